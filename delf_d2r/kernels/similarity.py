"""Similarity of one pair of aggregated descriptors by definition, which the inverted index must reproduce.

  VLAD:        K(X, Y) = sum over common words of <V_k(X), V_k(Y)>
  ASMK, ASMK*: K(X, Y) = gamma(X) gamma(Y) sum over common words of sigma(u_k)
               sigma(u) = sign(u) |u|^alpha if u > tau, else 0

Tolias, Avrithis, Jegou, ICCV 2013, section 3; Teichmann et al., CVPR 2019, section 4. u_k is the cosine of
the two residuals, for binary codes 1 - 2 h / D with the Hamming distance h; gamma(X) = 1 / sqrt(W_X) makes
K(X, X) = 1, since each of the W_X words contributes 1.

With region masks, an image Y scores as its best region does. S_r(Y) are the words of region r, and the codes
of all regions are the one that is pooled:

  K(X, Y) = max over r of  gamma(X) / sqrt(|S_r|)  sum over common words in S_r of sigma(u_k)

Two peculiarities of the tensorflow/models DELF code are kept behind `compat` (docs/reference.md 2.10): it
divides h by the number of bits stored, padding included, and it scores an empty descriptor -1. By default u
does not see the padding, and an empty descriptor scores 0 like any other without common words.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from delf_d2r.kernels.aggregation import MASKED_REGIONS, Kernel
from delf_d2r.structures import AggregatedDescriptor


def selectivity(u: npt.ArrayLike, *, alpha: float, tau: float) -> npt.NDArray[np.float32]:
  """Returns sigma(u) = sign(u) |u|^alpha where u > tau (strictly), else 0; float32, the shape of `u`."""
  values = np.asarray(u, np.float32)
  return np.where(values > tau, np.sign(values) * np.abs(values) ** np.float32(alpha), np.float32(0))


def selectivity_table(dimensions: int, *, alpha: float, tau: float) -> npt.NDArray[np.float32]:
  """Returns sigma(1 - 2 h / D) for every Hamming distance h in 0..D: float32 [D + 1]."""
  return selectivity(binary_similarity(np.arange(dimensions + 1), dimensions), alpha=alpha, tau=tau)


def binary_similarity(hamming: npt.ArrayLike, num_bits: int) -> npt.NDArray[np.float32]:
  """Returns u = 1 - 2 h / T, rounded once to float32, from Hamming distances h over T bits."""
  similarities: npt.NDArray[np.float64] = 1 - 2 * np.asarray(hamming, np.float64) / num_bits
  return similarities.astype(np.float32)


def similarity(
  a: AggregatedDescriptor,
  b: AggregatedDescriptor,
  *,
  kernel: Kernel,
  alpha: float = 3.0,
  tau: float = 0.0,
  normalize: bool,
  compat: bool = False,
) -> float:
  """Returns K(a, b) by brute force.

  Args:
    a: one descriptor.
    b: the other, of the same kernel, codebook and D.
    kernel: of both descriptors.
    alpha: exponent of the selectivity (ASMK family).
    tau: threshold of the selectivity, strict (ASMK family).
    normalize: divide by sqrt(W_a W_b) (ASMK family; VLAD carries its norm in its values).
    compat: padding bits and -1 for an empty side, of the tensorflow/models DELF code (ASMK family).

  Raises:
    ValueError: the dimensions differ, or a descriptor is not of the kernel's type.
  """
  _check_pair(a, b, kernel)
  if kernel.is_selective and (len(a) == 0 or len(b) == 0):
    return -1.0 if compat else 0.0
  in_a, in_b = _common_words(a, b)
  if not kernel.is_selective:
    return float(np.vdot(a.values[in_a], b.values[in_b]))
  terms = _word_terms(a.values[in_a], b.values[in_b], a.dimensions, kernel, alpha, tau, compat)
  score = float(terms.sum(dtype=np.float64))
  return score / float(np.sqrt(float(len(a)) * len(b))) if normalize else score


def region_similarities(
  query: AggregatedDescriptor,
  image: AggregatedDescriptor,
  *,
  kernel: Kernel,
  alpha: float = 3.0,
  tau: float = 0.0,
  normalize: bool = True,
  compat: bool = False,
) -> npt.NDArray[np.float64]:
  """Returns the similarity of a query and each region of an image with region masks, by brute force.

  Args:
    query: a descriptor; its own masks are ignored.
    image: a descriptor with region masks, of the ASMK family.
    kernel, alpha, tau, compat: those of `similarity`.
    normalize: divide by sqrt(W_query W_r), with W_r the number of words of the region.

  Returns:
    float64 [8], NaN for a region without words. The score of the image is the largest, and 0 if there is
    none; under `compat` it is -1 if the image or the query has no words.

  Raises:
    ValueError: for the reasons of `similarity`, or the image has no masks.
  """
  _check_pair(query, image, kernel)
  if image.region_masks is None or not kernel.is_selective:
    raise ValueError('region_similarities: expected ASMK or ASMK* with region masks; use similarity')
  in_query, in_image = _common_words(query, image)
  values = query.values[in_query], image.values[in_image]
  terms = _word_terms(*values, query.dimensions, kernel, alpha, tau, compat).astype(np.float64)
  bits = (image.region_masks[:, None] >> np.arange(MASKED_REGIONS, dtype=np.uint8)) & 1
  counts = bits.sum(axis=0, dtype=np.int64)
  scores: npt.NDArray[np.float64] = terms @ bits[in_image]
  if normalize:
    scores /= np.sqrt(np.maximum(counts * float(len(query)), 1))
  return np.where(counts > 0, scores, np.nan)


def _common_words(
  a: AggregatedDescriptor, b: AggregatedDescriptor
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
  """Returns the positions of the common words in both descriptors."""
  _, in_a, in_b = np.intersect1d(a.visual_words, b.visual_words, assume_unique=True, return_indices=True)
  return in_a, in_b


def _word_terms(
  values_a: npt.NDArray[Any],
  values_b: npt.NDArray[Any],
  dimensions: int,
  kernel: Kernel,
  alpha: float,
  tau: float,
  compat: bool,
) -> npt.NDArray[np.float32]:
  """Returns sigma(u_k) of the common words, whose values are [W, columns] each: float32 [W]."""
  if kernel.is_binary:
    hamming = np.bitwise_count(values_a ^ values_b).sum(axis=1, dtype=np.int64)
    num_bits = min(dimensions, 8) * values_a.shape[1] if compat else dimensions
    u = binary_similarity(hamming, num_bits)
  else:
    u = np.einsum('wd,wd->w', values_a, values_b)
  return selectivity(u, alpha=alpha, tau=tau)


def _check_pair(a: AggregatedDescriptor, b: AggregatedDescriptor, kernel: Kernel) -> None:
  if a.dimensions != b.dimensions:
    raise ValueError(
      f'similarity: expected descriptors of one dimensionality, found {a.dimensions} and {b.dimensions};'
      ' compare descriptors of features of the same extractor'
    )
  for descriptor in (a, b):
    if descriptor.values.dtype != kernel.dtype:
      raise ValueError(
        f'similarity: {kernel.name} expects values of {kernel.dtype}, found {descriptor.values.dtype};'
        ' compare descriptors aggregated with the same kernel'
      )
