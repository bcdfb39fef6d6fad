"""From the features of an image and their words to one sparse aggregated descriptor.

`aggregate` takes one set of features (VLAD, ASMK, ASMK*), `aggregate_regions` all regions of an image
(R-VLAD, R-ASMK, R-ASMK*), `aggregate_each_region` gives every region a descriptor of its own (regional
search). Rules: docs/reference.md 2.3 to 2.7.
"""

import enum

import numpy as np

from delf_d2r.kernels.asmk import normalize_words, present_words
from delf_d2r.kernels.binarization import binarize
from delf_d2r.kernels.regional import pool_regions
from delf_d2r.kernels.vlad import l2_norms, row_squared_norms, sum_residuals
from delf_d2r.structures import AggregatedDescriptor


class Kernel(enum.Enum):
  """What an aggregated descriptor keeps of each word's residual sum."""

  VLAD = 'vlad'  # the sum; the whole vector is normalised
  ASMK = 'asmk'  # its direction
  ASMK_STAR = 'asmk_star'  # the signs of its D components, one bit each


def aggregate(
  descriptors, words, centroids, *, kernel: Kernel, normalize: bool = True
) -> AggregatedDescriptor:
  """VLAD, ASMK or ASMK* of one set of features.

  Args:
    descriptors: float32 [N, D].
    words: integer [N, m], the words assigned to each feature.
    centroids: float32 [K, D].
    kernel: which descriptor.
    normalize: VLAD only: divide by the L2 norm over all words.

  Returns:
    The descriptor. Words are ascending. VLAD keeps the words with a nonzero residual sum, so its dense
    form is that of the reference; the ASMK family keeps those with a norm above 1e-6.

  Raises:
    ValueError: shapes disagree or a word is outside [0, K).
  """
  blocks = sum_residuals(descriptors, words, (0, len(descriptors)), centroids)
  return _finish(blocks.words, blocks.sums, kernel, normalize)


def aggregate_regions(
  descriptors, words, region_offsets, centroids, *, kernel: Kernel, normalize: bool = False, weights=None
) -> AggregatedDescriptor:
  """R-VLAD, R-ASMK or R-ASMK* of all regions of one image.

  Each region's VLAD is L2-normalised before the sum whatever `normalize` says.

  Args:
    descriptors: float32 [N, D], the features of all regions.
    words: integer [N, m].
    region_offsets: integer [R + 1], region r owns features `region_offsets[r]:region_offsets[r + 1]`.
    centroids: float32 [K, D].
    kernel: which descriptor.
    normalize: VLAD only: divide by the L2 norm over all words instead of by R.
    weights: float [R], positive, of the regions; None: all alike.

  Raises:
    ValueError: shapes disagree, a word is outside [0, K), or the offsets do not cover the features.
  """
  words, pooled = pool_regions(sum_residuals(descriptors, words, region_offsets, centroids), weights)
  return _finish(words, pooled, kernel, normalize)


def aggregate_each_region(
  descriptors, words, region_offsets, centroids, *, kernel: Kernel, normalize: bool = True
) -> list[AggregatedDescriptor]:
  """The descriptor of each region alone, as `aggregate` would give it; R of them, empty ones included.

  Arguments and errors as for `aggregate_regions`.
  """
  blocks = sum_residuals(descriptors, words, region_offsets, centroids)
  regions = (blocks.regions == r for r in range(blocks.num_regions))
  return [_finish(blocks.words[own], blocks.sums[own], kernel, normalize) for own in regions]


def _finish(words: np.ndarray, sums: np.ndarray, kernel: Kernel, normalize: bool) -> AggregatedDescriptor:
  """Words int64 [W] and their residual sums float32 [W, D], pooled or not, as a descriptor."""
  if kernel is Kernel.VLAD:
    kept = sums.any(axis=1)
    values = sums[kept]
    if normalize:
      values /= l2_norms(row_squared_norms(values).sum(dtype=np.float64))
  elif kernel is Kernel.ASMK:
    kept, values = normalize_words(sums)
  elif kernel is Kernel.ASMK_STAR:
    # Division by a norm changes no sign, so the bits are those of the normalised residuals.
    kept, _ = present_words(sums)
    values = binarize(sums)[kept]
  else:
    raise ValueError(f'kernel: expected a Kernel, one of {[k.name for k in Kernel]}, found {kernel!r}')
  return AggregatedDescriptor(words[kept].astype(np.uint32), values, sums.shape[1])
