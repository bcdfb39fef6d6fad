"""Aggregation of the local features of an image into one sparse descriptor: VLAD, ASMK, ASMK* and R- forms.

With x_n the features, c_k the visual words, and X_rk the features of region r that are assigned to word k:

  VLAD      V_rk   = sum over x_n in X_rk of (x_n - c_k)
  R-VLAD    R-V_k  = 1 / R  sum over r of  V_rk / ||V_r||,     ||V_r||^2 = sum over k of ||V_rk||^2
  ASMK      A_k    = V_k / ||V_k||            R-ASMK     the same of R-V_k
  ASMK*     B_k    = [A_k > 0]                R-ASMK*    the same of R-ASMK
                     or [A_k P > 0] with a projection P of A_k (projection.py)

R-ASMK and R-ASMK* may have region masks: for each word the set of regions that have it, in one byte.

VLAD: Jegou, Douze, Schmid, Perez, "Aggregating local descriptors into a compact image representation", CVPR
2010, equation 1. ASMK and ASMK*: Tolias, Avrithis, Jegou, "To aggregate or not to aggregate: selective match
kernels for image search", ICCV 2013. Regional aggregation: Teichmann, Araujo, Zhu, Sim, "Detect-to-Retrieve:
Efficient Regional Aggregation for Image Search", CVPR 2019, section 4. The rules that decide about single
bytes are in docs/reference.md 2.3 to 2.7. similarity.py compares two such descriptors.

A region of 1,000 features touches at most 1,000 of 65,536 words, so only the words that occur are kept: the
dense matrix [K, D] is never made.

ASMK needs no weights against bursts of like features (Jegou, Douze, Schmid, "On the burstiness of visual
elements", CVPR 2009): an image has one unit vector for each word, however many features it has there.
"""

import dataclasses
import enum
from typing import Any

import numpy as np
import numpy.typing as npt

from delf_d2r.kernels.compiled import HAVE_NUMBA, njit
from delf_d2r.kernels.finite import require_finite
from delf_d2r.kernels.norms import l2_norms, row_squared_norms
from delf_d2r.kernels.projection import Projection
from delf_d2r.structures import AggregatedDescriptor

PRESENCE_NORM = np.float32(1e-6)

# The regions that a mask of one byte can name: the whole image and seven boxes.
MASKED_REGIONS = 8


class Kernel(enum.Enum):
  """The part of each word's residual sum that an aggregated descriptor keeps."""

  VLAD = 'vlad'  # the sum; the whole vector is normalised
  ASMK = 'asmk'  # its direction
  ASMK_STAR = 'asmk_star'  # the signs of its D components, or of its projection, one bit each

  @property
  def is_binary(self) -> bool:
    """Whether the values are packed bits, compared by Hamming distance, and not floats."""
    return self is Kernel.ASMK_STAR

  @property
  def is_selective(self) -> bool:
    """Whether the kernel is of the ASMK family.

    Such a kernel passes the similarity of each word through the selectivity sigma, and normalises by
    1 / sqrt(W); the value of each word is a unit vector or its signs. VLAD is linear and carries its norm in
    its values.
    """
    return self is not Kernel.VLAD

  @property
  def dtype(self) -> np.dtype[Any]:
    """The dtype of the values of a descriptor: uint8 or float32."""
    return np.dtype(np.uint8 if self.is_binary else np.float32)

  def columns(self, dimensions: int) -> int:
    """Returns the number of values of a word: ceil(D / 8) bytes or D floats."""
    return -(-dimensions // 8) if self.is_binary else dimensions


# Descriptors -----------------------------------------------------------------------------------------


def aggregate(
  descriptors: npt.ArrayLike,
  words: npt.ArrayLike,
  centroids: npt.ArrayLike,
  *,
  kernel: Kernel,
  normalize: bool = True,
  projection: Projection | None = None,
) -> AggregatedDescriptor:
  """Returns VLAD, ASMK or ASMK* of one set of features.

  Args:
    descriptors: float32 [N, D].
    words: integer [N, m], the words assigned to each feature; [N] is read as [N, 1].
    centroids: float32 [K, D].
    kernel: which descriptor.
    normalize: VLAD only: divide by the L2 norm over all words.
    projection: ASMK* only: that of the codebook, so that the descriptor has B bits; None: D bits.

  Returns:
    The descriptor. Words are ascending. VLAD keeps the words with a nonzero residual sum, so its dense
    form is that of the reference; the ASMK family keeps those with a norm above 1e-6.

  Raises:
    ValueError: shapes disagree, a word is outside [0, K), or there is a projection for another kernel.
  """
  features = np.asarray(descriptors)
  blocks = sum_residuals(features, words, (0, len(features)), centroids)
  return _finish(blocks.words, blocks.sums, kernel, normalize, projection)


def aggregate_regions(
  descriptors: npt.ArrayLike,
  words: npt.ArrayLike,
  region_offsets: npt.ArrayLike,
  centroids: npt.ArrayLike,
  *,
  kernel: Kernel,
  normalize: bool = False,
  weights: npt.NDArray[Any] | None = None,
  masks: bool = False,
  projection: Projection | None = None,
) -> AggregatedDescriptor:
  """Returns R-VLAD, R-ASMK or R-ASMK* of all regions of one image.

  The VLAD of each region is L2-normalised before the sum whatever `normalize` says.

  With `masks`, the descriptor says of each word which regions have it. A region has the words of its own
  descriptor (`aggregate_each_region`) that are also in the pooled one. A word whose residuals cancel out in
  every region is left out: no region would have it.

  Args:
    descriptors: float32 [N, D], the features of all regions.
    words: integer [N, m], the words assigned to each feature; [N] is read as [N, 1].
    region_offsets: integer [R + 1], region r owns features `region_offsets[r]:region_offsets[r + 1]`.
    centroids: float32 [K, D].
    kernel: which descriptor.
    normalize: VLAD only: divide by the L2 norm over all words instead of by R.
    weights: float [R], positive, of the regions; None: all alike.
    masks: ASMK family, of at most 8 regions: also make `region_masks`.
    projection: that of `aggregate`.

  Raises:
    ValueError: shapes disagree, a word is outside [0, K), the offsets do not cover the features, masks are
      asked of VLAD or of more than 8 regions, or there is a projection for another kernel than ASMK*.
  """
  blocks = sum_residuals(descriptors, words, region_offsets, centroids)
  pooled_words, pooled = pool_regions(blocks, weights)
  if not masks:
    return _finish(pooled_words, pooled, kernel, normalize, projection)
  if not kernel.is_selective:
    raise ValueError(f'masks: expected ASMK or ASMK_STAR, found {kernel.name}; aggregate without masks')
  of_words = masks_of_words(blocks)
  found = of_words > 0
  descriptor = _finish(pooled_words[found], pooled[found], kernel, normalize, projection)
  # The pooled sum of a word may cancel out, too.
  kept = np.isin(pooled_words[found], descriptor.visual_words)
  return dataclasses.replace(descriptor, region_masks=of_words[found][kept])


def aggregate_each_region(
  descriptors: npt.ArrayLike,
  words: npt.ArrayLike,
  region_offsets: npt.ArrayLike,
  centroids: npt.ArrayLike,
  *,
  kernel: Kernel,
  normalize: bool = True,
  projection: Projection | None = None,
) -> list[AggregatedDescriptor]:
  """Returns the descriptor of each region alone, equal to that of `aggregate`, for regional search.

  There are R of them, empty ones included. Arguments and errors are those of `aggregate_regions`.
  """
  blocks = sum_residuals(descriptors, words, region_offsets, centroids)
  regions = (blocks.regions == r for r in range(blocks.num_regions))
  return [_finish(blocks.words[own], blocks.sums[own], kernel, normalize, projection) for own in regions]


def _finish(
  words: npt.NDArray[np.int64],
  sums: npt.NDArray[np.float32],
  kernel: Kernel,
  normalize: bool,
  projection: Projection | None,
) -> AggregatedDescriptor:
  """Makes a descriptor of words [W] and their residual sums [W, D], pooled over regions or not."""
  if projection is not None and kernel is not Kernel.ASMK_STAR:
    raise ValueError(
      f'projection: expected none for kernel {kernel!r}, found one to {projection.bits} bits; aggregate by'
      ' ASMK_STAR, or with a codebook without projection'
    )
  kept: npt.NDArray[np.bool_]
  values: npt.NDArray[Any]
  if kernel is Kernel.VLAD:
    kept = np.any(sums, axis=1)
    values = sums[kept]
    if normalize:
      values /= l2_norms(row_squared_norms(values).sum(dtype=np.float64))
  elif kernel is Kernel.ASMK:
    kept, values = normalize_words(sums)
  elif kernel is Kernel.ASMK_STAR:
    # Division by a norm changes no sign, so the bits are those of the normalised residuals.
    kept, _ = present_words(sums)
    values = binarize(sums if projection is None else projection(words, sums))[kept]
  else:
    raise ValueError(f'kernel: expected a Kernel, one of {[k.name for k in Kernel]}, found {kernel!r}')
  dimensions = sums.shape[1] if projection is None else projection.bits
  return AggregatedDescriptor(words[kept].astype(np.uint32), values, dimensions)


# VLAD: V_rk = sum over x_n in X_rk of (x_n - c_k) ----------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ResidualSums:
  """Unnormalised VLAD blocks of all regions of an image, in ascending order of (word, region).

  Attributes:
    words: int64 [S], visual word of each block.
    regions: int64 [S], region of each block.
    sums: float32 [S, D], V_rk.
    num_regions: R, empty regions included.
  """

  words: npt.NDArray[np.int64]
  regions: npt.NDArray[np.int64]
  sums: npt.NDArray[np.float32]
  num_regions: int


def sum_residuals(
  descriptors: npt.ArrayLike, words: npt.ArrayLike, region_offsets: npt.ArrayLike, centroids: npt.ArrayLike
) -> ResidualSums:
  """Sums the residuals of every (word, region) pair that occurs: V_rk.

  A feature with several words adds its full residual to each (docs/reference.md 2.3). The float32 sums run
  over the features in the order given, with and without numba: the sign of a sum near zero, a bit of ASMK*,
  depends on the order (docs/reference.md 2.11, point 12).

  Args:
    descriptors: float32 [N, D].
    words: integer [N, m], the words assigned to each feature; [N] is read as [N, 1].
    region_offsets: integer [R + 1], region r owns features `region_offsets[r]:region_offsets[r + 1]`.
    centroids: float32 [K, D].

  Raises:
    ValueError: shapes disagree, a word is outside [0, K), or the offsets do not cover the features.
  """
  features, words, offsets, centroids = _checked(descriptors, words, region_offsets, centroids)
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
  starts = _run_starts(pairs)
  block_words, block_regions = np.divmod(pairs[starts[:-1]], max(num_regions, 1))
  entry_features = entries // num_assignments
  sum_blocks = _sum_blocks_compiled if HAVE_NUMBA else _sum_blocks_numpy
  sums = sum_blocks(features, centroids, entry_features, block_words, starts)
  return ResidualSums(block_words, block_regions, sums, num_regions)


def _sum_blocks_numpy(
  descriptors: npt.NDArray[np.float32],
  centroids: npt.NDArray[np.float32],
  features: npt.NDArray[np.int64],
  block_words: npt.NDArray[np.int64],
  starts: npt.NDArray[np.int64],
) -> npt.NDArray[np.float32]:
  entry_words = np.repeat(block_words, np.diff(starts))
  return _sum_runs(descriptors[features] - centroids[entry_words], starts)


@njit
def _sum_blocks_compiled(
  descriptors: npt.NDArray[np.float32],
  centroids: npt.NDArray[np.float32],
  features: npt.NDArray[np.int64],
  block_words: npt.NDArray[np.int64],
  starts: npt.NDArray[np.int64],
) -> npt.NDArray[np.float32]:
  dimensions = descriptors.shape[1]
  sums = np.zeros((len(block_words), dimensions), np.float32)
  for block in range(len(block_words)):
    word = block_words[block]
    for entry in range(starts[block], starts[block + 1]):
      feature = features[entry]
      for d in range(dimensions):
        sums[block, d] += descriptors[feature, d] - centroids[word, d]
  return sums


# R-VLAD: R-V_k = 1 / R sum over r of V_rk / ||V_r|| --------------------------------------------------


def pool_regions(
  blocks: ResidualSums, weights: npt.NDArray[Any] | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
  """Returns the mean over the regions of their L2-normalised VLADs (docs/reference.md 2.4): R-V_k.

  ||V_r|| runs over all words of region r, so a region of few words weighs more in each of them. The mean is
  over all R regions, empty ones included. Rows are added in order of region.

  Args:
    blocks: the residual sums of R regions.
    weights: float [R], positive: the factor of each region's VLAD; None: 1.

  Returns:
    words int64 [W], ascending, and float32 [W, D].
  """
  squared_norms = np.bincount(blocks.regions, row_squared_norms(blocks.sums), minlength=blocks.num_regions)
  norms = l2_norms(squared_norms)
  if weights is not None:
    norms = (norms / weights).astype(norms.dtype)
  divisors = norms[blocks.regions]
  starts = _run_starts(blocks.words)
  pool = _pool_compiled if HAVE_NUMBA else _pool_numpy
  pooled = pool(blocks.sums, divisors, starts, np.float32(max(blocks.num_regions, 1)))
  return blocks.words[starts[:-1]], pooled


def _pool_numpy(
  sums: npt.NDArray[np.float32],
  divisors: npt.NDArray[np.float32],
  starts: npt.NDArray[np.int64],
  num_regions: np.float32,
) -> npt.NDArray[np.float32]:
  return _sum_runs(sums / divisors[:, None], starts) / num_regions


@njit(error_model='numpy')  # a check for division by zero would keep the loop from being vectorised
def _pool_compiled(
  sums: npt.NDArray[np.float32],
  divisors: npt.NDArray[np.float32],
  starts: npt.NDArray[np.int64],
  num_regions: np.float32,
) -> npt.NDArray[np.float32]:
  dimensions = sums.shape[1]
  pooled = np.zeros((len(starts) - 1, dimensions), np.float32)
  for word in range(len(pooled)):
    for block in range(starts[word], starts[word + 1]):
      divisor = divisors[block]
      for d in range(dimensions):
        pooled[word, d] += sums[block, d] / divisor
    for d in range(dimensions):
      pooled[word, d] /= num_regions
  return pooled


def masks_of_words(blocks: ResidualSums) -> npt.NDArray[np.uint8]:
  """Returns which regions have each word: uint8 [W], bit r for region r, words as of `pool_regions`.

  A region has a word if the norm of its own residual sum is above 1e-6, which is the rule of `present_words`.

  Raises:
    ValueError: there are more than 8 regions.
  """
  if blocks.num_regions > MASKED_REGIONS:
    raise ValueError(
      f'masks: expected at most {MASKED_REGIONS} regions, found {blocks.num_regions}; aggregate the first'
      f' {MASKED_REGIONS} alone'
    )
  present, _ = present_words(blocks.sums)
  bits = np.left_shift(present.astype(np.uint8), blocks.regions.astype(np.uint8))
  starts = _run_starts(blocks.words)[:-1]
  if not len(starts):
    return np.zeros(0, np.uint8)
  return np.bitwise_or.reduceat(bits, starts)


# ASMK and R-ASMK: A_k = V_k / ||V_k|| ----------------------------------------------------------------


def present_words(
  residual_sums: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
  """Finds the words whose residual sum has a norm above 1e-6, strictly (docs/reference.md 2.5).

  A word whose residuals cancel out, or whose only feature equals the centroid, is not present.

  Args:
    residual_sums: float32 [W, D], V_k or R-V_k.

  Returns:
    bool [W], and the norms float32 [W].
  """
  norms = np.sqrt(row_squared_norms(residual_sums))
  return norms > PRESENCE_NORM, norms


def normalize_words(
  residual_sums: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
  """Divides the residual sum of every present word by its norm.

  Args:
    residual_sums: float32 [W, D], V_k or R-V_k.

  Returns:
    bool [W], which words are present, and their unit vectors float32 [W present, D].
  """
  present, norms = present_words(residual_sums)
  return present, residual_sums[present] / norms[present, None]


# ASMK* and R-ASMK*: B_k = [A_k > 0] ------------------------------------------------------------------


def binarize(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
  """Packs the signs of values: float [W, D] -> uint8 [W, ceil(D / 8)], bit 1 where a value is above zero.

  Zero gives 0. The first dimension is the most significant bit of byte 0; the last byte is padded with zeros
  (docs/reference.md 2.7).
  """
  return np.packbits(values > 0, axis=1)


# Runs of equal keys ----------------------------------------------------------------------------------


def _run_starts(sorted_keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
  """Returns where each run of equal keys starts, and the end: int64 [S + 1] for S distinct keys."""
  is_start = np.empty(len(sorted_keys) + 1, bool)
  is_start[:1] = is_start[-1:] = True
  np.not_equal(sorted_keys[1:], sorted_keys[:-1], out=is_start[1:-1])
  return np.flatnonzero(is_start)


def _sum_runs(rows: npt.NDArray[np.float32], starts: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
  """Sums `rows[starts[s]:starts[s + 1]]` in order for each s; every run has at least one row.

  `np.add.reduceat` would add the rows of long runs pairwise, in another order.
  """
  lengths = np.diff(starts)
  sums = rows[starts[:-1]] + np.float32(0)  # the sum begins with 0, which turns -0 into 0
  for position in range(1, lengths.max(initial=0)):
    longer = np.flatnonzero(lengths > position)
    sums[longer] += rows[starts[longer] + position]
  return sums


def _checked(
  descriptors: npt.ArrayLike, words: npt.ArrayLike, region_offsets: npt.ArrayLike, centroids: npt.ArrayLike
) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
  """Returns the arguments of `sum_residuals` as contiguous arrays of one dtype each, or raises ValueError."""
  descriptors = np.ascontiguousarray(descriptors, np.float32)
  centroids = np.ascontiguousarray(centroids, np.float32)
  words = np.asarray(words)
  offsets = np.asarray(region_offsets, np.int64)
  if centroids.ndim != 2 or descriptors.ndim != 2 or descriptors.shape[1] != centroids.shape[1]:
    raise ValueError(
      f'descriptors {descriptors.shape} and centroids {centroids.shape} must be [N, D] and [K, D] of one D;'
      ' aggregate with the codebook that was trained on these descriptors'
    )
  require_finite('descriptors', descriptors)
  if words.ndim == 1:
    words = words[:, None]
  if words.ndim != 2 or len(words) != len(descriptors) or words.shape[1] < 1:
    raise ValueError(
      f'words: expected shape ({len(descriptors)}, m), m >= 1, found {words.shape}; give the words of these'
      ' features'
    )
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
      f' found {offsets.tolist()}; give the offsets of these features'
    )
  return descriptors, words, offsets, centroids
