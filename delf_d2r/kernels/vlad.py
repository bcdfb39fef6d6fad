"""VLAD on the words that occur: sums of residuals for each (visual word, region) pair.

  V_rk = sum of (x_n - c_k) over the features x_n of region r assigned to word k

Jegou et al., "Aggregating local descriptors into a compact image representation", CVPR 2010, eq. 1;
several assigned words take the full residual each (docs/reference.md 2.3). A region of 1,000 features
touches at most 1,000 of 65,536 words, so the K x D matrix is never made; `to_dense` makes it.
"""

import dataclasses

import numpy as np

from delf_d2r.kernels.compiled import HAVE_NUMBA, njit
from delf_d2r.structures import AggregatedDescriptor


@dataclasses.dataclass(frozen=True)
class ResidualSums:
  """Unnormalised VLAD blocks of all regions of an image, in ascending order of (word, region).

  Attributes:
    words: int64 [S], visual word of each block.
    regions: int64 [S], region of each block.
    sums: float32 [S, D], V_rk.
    num_regions: R, empty regions included.
  """

  words: np.ndarray
  regions: np.ndarray
  sums: np.ndarray
  num_regions: int


def sum_residuals(descriptors, words, region_offsets, centroids) -> ResidualSums:
  """Sums the residuals of every (word, region) pair that occurs.

  The float32 sums run over the features in the order given, with and without numba: the sign of a
  sum near zero, a bit of ASMK*, depends on the order (docs/reference.md 2.11, point 12).

  Args:
    descriptors: float32 [N, D].
    words: integer [N, m], the words assigned to each feature; [N] is read as [N, 1].
    region_offsets: integer [R + 1], region r owns features `region_offsets[r]:region_offsets[r + 1]`.
    centroids: float32 [K, D].

  Raises:
    ValueError: shapes disagree, a word is outside [0, K), or the offsets do not cover the features.
  """
  descriptors, words, offsets, centroids = _checked(descriptors, words, region_offsets, centroids)
  num_features, num_assignments = words.shape
  num_regions = len(offsets) - 1
  num_entries = words.size
  # One integer for each entry, ordered by word, region, position: sorting values is several times
  # faster than a stable argsort and gives the same order.
  region_of_feature = np.repeat(np.arange(num_regions), np.diff(offsets))
  keys = words.astype(np.int64) * num_regions + region_of_feature[:, None]
  keys *= num_entries
  keys += np.arange(num_entries).reshape(num_features, num_assignments)
  keys = np.sort(keys, axis=None)
  pairs, entries = np.divmod(keys, max(num_entries, 1))
  starts = run_starts(pairs)
  block_words, block_regions = np.divmod(pairs[starts[:-1]], max(num_regions, 1))
  features = entries // num_assignments
  sum_blocks = _sum_blocks_compiled if HAVE_NUMBA else _sum_blocks_numpy
  sums = sum_blocks(descriptors, centroids, features, block_words, starts)
  return ResidualSums(block_words, block_regions, sums, num_regions)


def run_starts(sorted_keys: np.ndarray) -> np.ndarray:
  """Where each run of equal keys starts, and the end: int64 [S + 1] for S distinct keys."""
  is_start = np.empty(len(sorted_keys) + 1, bool)
  is_start[:1] = is_start[-1:] = True
  np.not_equal(sorted_keys[1:], sorted_keys[:-1], out=is_start[1:-1])
  return np.flatnonzero(is_start)


def sum_runs(rows: np.ndarray, starts: np.ndarray) -> np.ndarray:
  """Sums `rows[starts[s]:starts[s + 1]]` in order for each s; every run has at least one row.

  `np.add.reduceat` would add the rows of long runs pairwise, in another order.
  """
  lengths = np.diff(starts)
  sums = rows[starts[:-1]] + np.float32(0)  # as 0 + row: turns -0 into 0
  for position in range(1, lengths.max(initial=0)):
    longer = np.flatnonzero(lengths > position)
    sums[longer] += rows[starts[longer] + position]
  return sums


def _sum_blocks_numpy(descriptors, centroids, features, block_words, starts):
  entry_words = np.repeat(block_words, np.diff(starts))
  return sum_runs(descriptors[features] - centroids[entry_words], starts)


@njit
def _sum_blocks_compiled(descriptors, centroids, features, block_words, starts):
  dimensions = descriptors.shape[1]
  sums = np.zeros((len(block_words), dimensions), np.float32)
  for block in range(len(block_words)):
    word = block_words[block]
    for entry in range(starts[block], starts[block + 1]):
      feature = features[entry]
      for d in range(dimensions):
        sums[block, d] += descriptors[feature, d] - centroids[word, d]
  return sums


def l2_norms(squared: np.ndarray, epsilon: float = 1e-12) -> np.ndarray:
  """sqrt(max(squared, epsilon)): the divisor of an L2 normalisation that leaves zeros at zero."""
  return np.sqrt(np.maximum(squared, epsilon)).astype(np.float32)


def row_squared_norms(rows: np.ndarray) -> np.ndarray:
  """Squared L2 norm of each row, float32 [S]."""
  return np.einsum('sd,sd->s', rows, rows)


def to_dense(descriptor: AggregatedDescriptor, num_words: int) -> np.ndarray:
  """The dense float32 [K * D] vector, word-major, of a VLAD or ASMK descriptor.

  Raises:
    ValueError: the descriptor is binary or holds a word outside [0, num_words).
  """
  if descriptor.is_binary:
    raise ValueError('to_dense: expected float values (VLAD, ASMK), found the bytes of ASMK*')
  if len(descriptor) and descriptor.visual_words[-1] >= num_words:
    raise ValueError(
      f'to_dense: expected visual words below num_words = {num_words},'
      f' found {descriptor.visual_words[-1]}; pass the size of the codebook that assigned them'
    )
  dense = np.zeros((num_words, descriptor.dimensions), np.float32)
  dense[descriptor.visual_words] = descriptor.values
  return dense.ravel()


def _checked(descriptors, words, region_offsets, centroids):
  descriptors = np.ascontiguousarray(descriptors, np.float32)
  centroids = np.ascontiguousarray(centroids, np.float32)
  words = np.asarray(words)
  offsets = np.asarray(region_offsets, np.int64)
  if centroids.ndim != 2 or descriptors.ndim != 2 or descriptors.shape[1] != centroids.shape[1]:
    raise ValueError(
      f'descriptors {descriptors.shape} and centroids {centroids.shape} must be [N, D] and [K, D] of one D;'
      ' aggregate with the codebook that was trained on these descriptors'
    )
  if words.ndim == 1:
    words = words[:, None]
  if words.ndim != 2 or len(words) != len(descriptors) or words.shape[1] < 1:
    raise ValueError(f'words: expected shape ({len(descriptors)}, m), m >= 1, found {words.shape}')
  if words.size and (words.dtype.kind not in 'iu' or words.min() < 0 or words.max() >= len(centroids)):
    raise ValueError(
      f'words: expected integers in [0, {len(centroids)}), found {words.dtype} in'
      f' [{words.min()}, {words.max()}]; assign with the same codebook'
    )
  if (
    offsets.ndim != 1
    or len(offsets) < 1
    or offsets[0] != 0
    or np.any(np.diff(offsets) < 0)
    or (offsets[-1] != len(descriptors))
  ):
    raise ValueError(
      f'region_offsets must rise from 0 to the number of features ({len(descriptors)}),'
      f' found {offsets.tolist()}'
    )
  return descriptors, words, offsets, centroids
