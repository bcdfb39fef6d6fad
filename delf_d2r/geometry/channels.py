"""Matches of regions that have no descriptors but a channel: all pairs of one channel, and who of them agree.

Most such pairs are wrong, so samples of several would rarely be right. Each pair alone tells a transform
instead: the shift between both regions and the ratio of their sizes (Philbin et al., CVPR 2007, section 3.2;
Simeoni, Avrithis and Chum, CVPR 2019, section 4).
"""

import numpy as np

from delf_d2r.geometry.matching import PutativeMatches
from delf_d2r.structures import LocalFeatures

# Residuals that are held at a time.
_CHUNK = 2**22


def match(query: LocalFeatures, index: LocalFeatures) -> PutativeMatches:
  """All pairs of regions of one channel, those of most attention in both first; distances are 0.

  Args:
    query, index: N and M regions; descriptors [N, 1] and [M, 1] are their channels.
  """
  channels = [features.descriptors[:, 0].astype(np.int64) for features in (query, index)]
  order = np.argsort(channels[1], kind='stable')
  ends = [np.searchsorted(channels[1][order], channels[0], side) for side in ('left', 'right')]
  counts = ends[1] - ends[0]
  left = np.repeat(np.arange(len(query)), counts)
  within = np.arange(len(left)) - np.repeat(np.cumsum(counts) - counts, counts)
  right = order[np.repeat(ends[0], counts) + within]
  strengths = query.attention[left] * index.attention[right]
  best_first = np.argsort(-strengths, kind='stable')
  nothing = np.zeros(len(left), np.float32)
  return PutativeMatches(left[best_first], right[best_first], nothing, np.ones(len(left), bool))


def agreeing(
  query: LocalFeatures,
  index: LocalFeatures,
  matches: PutativeMatches,
  *,
  max_residual: float,
  max_scale: float,
  trials: int,
) -> np.ndarray:
  """bool [P]: the matches that agree with the shift and scale of that match with which most do.

  Args:
    query, index, matches: as `match` took and made them.
    max_residual: pixels of the query image within which a match agrees.
    max_scale: pairs whose sizes differ by more tell nothing.
    trials: so many pairs are tried, the first that tell something.
  """
  target = query.locations[matches.query].astype(np.float64)
  source = index.locations[matches.index].astype(np.float64)
  ratios = query.scales[matches.query] / index.scales[matches.index].astype(np.float64)
  tried = np.flatnonzero(np.abs(np.log(ratios)) <= np.log(max_scale))[:trials]
  best = np.zeros(len(target), bool)
  rows = max(_CHUNK // max(len(target), 1), 1)
  for start in range(0, len(tried), rows):
    chosen = tried[start : start + rows]
    scales = ratios[chosen]
    squares = np.zeros((len(chosen), len(target)))
    for axis in range(2):
      shifts = target[chosen, axis] - scales * source[chosen, axis]
      squares += (np.outer(scales, source[:, axis]) + shifts[:, None] - target[:, axis]) ** 2
    agree = squares <= max_residual**2
    counts = agree.sum(axis=1)
    first = counts.argmax()
    if counts[first] > best.sum():
      best = agree[first]
  return best
