"""Similarity of one pair of aggregated descriptors by definition: the oracle of the inverted index.

  VLAD:        K(X, Y) = sum over common words of <V_k(X), V_k(Y)>
  ASMK, ASMK*: K(X, Y) = gamma(X) gamma(Y) sum over common words of sigma(u_k)
               sigma(u) = sign(u) |u|^alpha if u > tau, else 0

Tolias, Avrithis, Jegou, ICCV 2013. u_k is the cosine of the two residuals, for binary
codes 1 - 2 h / D with the Hamming distance h; gamma(X) = 1 / sqrt(W_X) makes K(X, X) = 1, since each
of the W_X words contributes 1.

Two oddities of the research code are kept behind `compat` (docs/reference.md 2.10): it divides h by the
number of bits stored, padding included, and it scores an empty descriptor -1. By default u does not
see the padding, and an empty descriptor scores 0 like any other without common words.
"""

import numpy as np

from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.structures import AggregatedDescriptor


def selectivity(u, *, alpha: float, tau: float) -> np.ndarray:
  """sigma(u) = sign(u) |u|^alpha where u > tau (strictly), else 0; float32, the shape of `u`."""
  u = np.asarray(u, np.float32)
  return np.where(u > tau, np.sign(u) * np.abs(u) ** np.float32(alpha), np.float32(0))


def selectivity_table(dimensions: int, *, alpha: float, tau: float) -> np.ndarray:
  """sigma(1 - 2 h / D) for every Hamming distance h in 0..D: float32 [D + 1]."""
  return selectivity(binary_similarity(np.arange(dimensions + 1), dimensions), alpha=alpha, tau=tau)


def binary_similarity(hamming, num_bits: int) -> np.ndarray:
  """u = 1 - 2 h / T, rounded once to float32, from Hamming distances h over T bits."""
  return (1 - 2 * np.asarray(hamming, np.float64) / num_bits).astype(np.float32)


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
  """K(a, b) by brute force.

  Args:
    a: one descriptor.
    b: the other, of the same kernel, codebook and D.
    kernel: what both are.
    alpha: exponent of the selectivity (ASMK family).
    tau: threshold of the selectivity, strict (ASMK family).
    normalize: divide by sqrt(W_a W_b) (ASMK family; VLAD carries its norm in its values).
    compat: the research code's padding bits and -1 for an empty side (ASMK family).

  Raises:
    ValueError: the dimensions differ, or a descriptor is not of the kernel's type.
  """
  _check_pair(a, b, kernel)
  if kernel is not Kernel.VLAD and (len(a) == 0 or len(b) == 0):
    return -1.0 if compat else 0.0
  _, in_a, in_b = np.intersect1d(a.visual_words, b.visual_words, assume_unique=True, return_indices=True)
  values_a, values_b = a.values[in_a], b.values[in_b]
  if kernel is Kernel.VLAD:
    return float(np.vdot(values_a, values_b))
  if kernel is Kernel.ASMK:
    u = np.einsum('wd,wd->w', values_a, values_b)
  else:
    hamming = np.bitwise_count(values_a ^ values_b).sum(axis=1, dtype=np.int64)
    num_bits = min(a.dimensions, 8) * a.values.shape[1] if compat else a.dimensions
    u = binary_similarity(hamming, num_bits)
  score = float(selectivity(u, alpha=alpha, tau=tau).sum(dtype=np.float64))
  return score / float(np.sqrt(float(len(a)) * len(b))) if normalize else score


def _check_pair(a: AggregatedDescriptor, b: AggregatedDescriptor, kernel: Kernel) -> None:
  if a.dimensions != b.dimensions:
    raise ValueError(
      f'similarity: expected descriptors of one dimensionality, found {a.dimensions} and {b.dimensions}'
    )
  wanted = np.uint8 if kernel is Kernel.ASMK_STAR else np.float32
  for descriptor in (a, b):
    if descriptor.values.dtype != wanted:
      raise ValueError(
        f'similarity: {kernel.name} expects values of {np.dtype(wanted)}, found {descriptor.values.dtype};'
        ' compare descriptors aggregated with the same kernel'
      )
