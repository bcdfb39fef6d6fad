"""Assignment of features to their nearest visual words.

  NN_m(x) = the m words k of smallest ||x - c_k||^2, nearest first, ties to the lower index

The squared distance is *defined* as the float32 sum of squared differences (docs/reference.md 2.2). All
distances together are a matrix product, ||x||^2 - 2 <x, c> + ||c||^2, which is fast but rounds differently:
it only proposes candidates, which are then compared by definition. Both assigners answer through
`refine`; they differ in who proposes. faiss does the heavy work.
"""

import math
from typing import Protocol

import faiss
import numpy as np

from delf_d2r.kernels import product_scan
from delf_d2r.kernels.compiled import HAVE_NUMBA
from delf_d2r.kernels.vlad import row_squared_norms

DEFAULT_MEMORY_BYTES = 256 << 20
_SPARE_CANDIDATES = 3


class Assigner(Protocol):
  """What the stages need: descriptors float32 [N, D] -> words int32 [N, m], nearest first."""

  def __call__(self, descriptors: np.ndarray, num_assignments: int = 1) -> np.ndarray: ...


def assign(
  descriptors, centroids, *, num_assignments: int = 1, memory_bytes: int = DEFAULT_MEMORY_BYTES
) -> np.ndarray:
  """The nearest words, exactly as defined; see `ExactAssigner`, which checks the centroids once only.

  Args:
    descriptors: float32 [N, D].
    centroids: float32 [K, D].
    num_assignments: m.
    memory_bytes: bound of the working memory, on top of arguments and result (at least about 64 MiB).

  Returns:
    int32 [N, m].

  Raises:
    ValueError: shapes disagree, a value is not finite, or m is not in [1, K].
  """
  return ExactAssigner(centroids, memory_bytes=memory_bytes)(descriptors, num_assignments)


class ExactAssigner:
  """The nearest words of one codebook, exactly as defined, whatever the matrix product rounds.

  A feature's answer is certain once all other words are farther by more than the product can err. Of the
  few features where it is not, the words that come near are compared by definition.
  """

  def __init__(self, centroids, *, memory_bytes: int = DEFAULT_MEMORY_BYTES):
    """Keeps float32 [K, D] `centroids`; raises ValueError unless they are finite and K >= 1."""
    self._centroids = checked_centroids(centroids)
    self._memory_bytes = memory_bytes
    squared_norms = row_squared_norms(self._centroids)
    self._half_norms = squared_norms / 2
    self._largest_length = math.sqrt(squared_norms.max())

  def __call__(self, descriptors, num_assignments: int = 1) -> np.ndarray:
    """Words int32 [N, m]; arguments and errors as for `assign`."""
    descriptors = checked_descriptors(descriptors, self._centroids, num_assignments)
    words = np.empty((len(descriptors), num_assignments), np.int32)
    if num_assignments == 1 and HAVE_NUMBA:
      self._settle_by_product(descriptors, words)
      return words
    unsure = np.arange(len(descriptors))
    fewest = num_assignments + _SPARE_CANDIDATES
    for num_candidates in (fewest, 16 * fewest):
      if num_candidates < len(self._centroids):
        unsure = self._settle(descriptors, unsure, num_candidates, words)
    self._settle_by_definition(descriptors, unsure, words)
    return words

  assign = __call__

  def _settle_by_product(self, descriptors, words) -> None:
    """Fills the only column of `words` from the scores of all words."""
    slack = self._slack(descriptors)
    words[:, 0], is_certain = product_scan.best_words(descriptors, self._centroids, self._half_norms, slack)
    unsure = np.flatnonzero(~is_certain)
    for block in blocks(unsure, self._memory_bytes // (16 * len(self._centroids))):
      scores = descriptors[block] @ self._centroids.T - self._half_norms
      is_near = scores >= scores.max(axis=1, keepdims=True) - slack[block, None]
      for feature, near in zip(block, is_near, strict=True):
        candidates = np.flatnonzero(near)[None]
        words[feature], _ = refine(descriptors[feature, None], self._centroids, candidates, 1)

  def _slack(self, features) -> np.ndarray:
    """Worst-case rounding of a sum of D products, in the matrix product and in the definition."""
    lengths = np.sqrt(row_squared_norms(features)) + self._largest_length
    return 2 * (features.shape[1] + 8) * np.finfo(np.float32).eps * lengths**2

  def _settle(self, descriptors, unsure, num_candidates, words) -> np.ndarray:
    """Fills `words` of the features `unsure` from some candidates; returns those still unsure."""
    dimensions = descriptors.shape[1]
    still_unsure = []
    for block in blocks(unsure, self._memory_bytes // (16 * num_candidates * dimensions)):
      features = descriptors[block]
      bounds, candidates = faiss.knn(features, self._centroids, num_candidates)
      words[block], distances = refine(features, self._centroids, candidates, words.shape[1])
      still_unsure.append(block[bounds[:, -1] <= distances[:, -1] + self._slack(features)])
    return np.concatenate(still_unsure) if still_unsure else unsure

  def _settle_by_definition(self, descriptors, unsure, words) -> None:
    num_words, dimensions = self._centroids.shape
    for block in blocks(unsure, self._memory_bytes // (8 * num_words * (dimensions + 8))):
      everything = np.broadcast_to(np.arange(num_words), (len(block), num_words))
      words[block], _ = refine(descriptors[block], self._centroids, everything, words.shape[1])

  def __repr__(self) -> str:
    return f'ExactAssigner(K={len(self._centroids)}, D={self._centroids.shape[1]})'


def refine(descriptors, centroids, candidates, num_assignments: int) -> tuple[np.ndarray, np.ndarray]:
  """The best of each feature's candidates by the definition of distance.

  Args:
    descriptors: float32 [N, D].
    centroids: float32 [K, D].
    candidates: integer [N, C], distinct words of each feature, in any order.
    num_assignments: m <= C.

  Returns:
    words int32 [N, m], nearest first, ties to the lower index, and squared distances float32 [N, m].
  """
  candidates = np.sort(candidates, axis=1)
  differences = centroids[candidates]
  np.subtract(descriptors[:, None, :], differences, out=differences)
  distances = np.square(differences, out=differences).sum(axis=2)
  order = np.argsort(distances, axis=1, kind='stable')[:, :num_assignments]
  words = np.take_along_axis(candidates, order, axis=1).astype(np.int32)
  return words, np.take_along_axis(distances, order, axis=1)


def blocks(indices: np.ndarray, size: int):
  """Slices of `indices`, at most `size` long and at least 1."""
  size = max(size, 1)
  return (indices[start : start + size] for start in range(0, len(indices), size))


def checked_centroids(centroids) -> np.ndarray:
  """Contiguous float32 [K, D]; raises ValueError unless it is finite and K, D >= 1."""
  centroids = np.ascontiguousarray(centroids, np.float32)
  if centroids.ndim != 2 or 0 in centroids.shape:
    raise ValueError(f'centroids: expected shape [K, D] with K, D >= 1, found {centroids.shape}')
  require_finite('centroids', centroids)
  return centroids


def checked_descriptors(descriptors, centroids, num_assignments) -> np.ndarray:
  """Contiguous float32 [N, D]; raises ValueError unless it fits the centroids and is finite."""
  descriptors = np.ascontiguousarray(descriptors, np.float32)
  if descriptors.ndim != 2 or descriptors.shape[1] != centroids.shape[1]:
    raise ValueError(
      f'descriptors: expected shape [N, {centroids.shape[1]}] as the centroids, found {descriptors.shape};'
      ' use the codebook that was trained on these descriptors'
    )
  if not 1 <= num_assignments <= len(centroids):
    raise ValueError(
      f'num_assignments: expected 1 to K = {len(centroids)}, found {num_assignments};'
      ' assign to fewer words or train a larger codebook'
    )
  require_finite('descriptors', descriptors)
  return descriptors


def require_finite(name: str, array: np.ndarray) -> None:
  """Raises ValueError naming the first row of `array` [N, D] that holds NaN or infinity."""
  for start in range(0, len(array), 65536):
    finite = np.isfinite(array[start : start + 65536]).all(axis=1)
    if not finite.all():
      raise ValueError(
        f'{name}: expected finite values, found NaN or infinity in row {start + finite.argmin()} of'
        f' {len(array)}; extract the features again or drop such rows'
      )
