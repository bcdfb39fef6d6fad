"""Matches of regions that have a channel and no descriptor: all pairs of one channel, and those that agree.

Most such pairs are wrong, so that samples of several pairs would rarely be free of outliers. Instead, each
pair alone determines a transform: the shift between both regions and the ratio of their sizes (Philbin et
al., CVPR 2007, section 3.2; Simeoni, Avrithis and Chum, CVPR 2019, section 4).
"""

import numpy as np
import numpy.typing as npt

from delf_d2r.geometry.matching import PutativeMatches
from delf_d2r.structures import LocalFeatures

# The number of residuals that are in memory at a time.
_CHUNK = 2**22


def match(query: LocalFeatures, index: LocalFeatures) -> PutativeMatches:
  """Returns all pairs of regions of one channel, those of most attention in both first; distances are 0.

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


def consistent_matches(
  query: LocalFeatures,
  index: LocalFeatures,
  matches: PutativeMatches,
  *,
  max_residual: float,
  max_scale: float,
  trials: int,
) -> npt.NDArray[np.bool_]:
  """Returns the matches that are consistent with one of them, the one with which most are.

  A match is consistent with another if the shift and scale of the other take its region near the right one.

  Args:
    query, index: the arguments of `match`.
    matches: its result.
    max_residual: pixels of the query image within which a match agrees.
    max_scale: the largest ratio of sizes of a match whose transform is tried.
    trials: the number of matches whose transforms are tried, the first ones.

  Returns:
    bool [P].
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
    agree: npt.NDArray[np.bool_] = squares <= max_residual**2
    counts = agree.sum(axis=1)
    first = counts.argmax()
    if counts[first] > best.sum():
      best = agree[first]
  return best
