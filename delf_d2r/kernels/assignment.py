"""Assignment of features to their nearest visual words.

  NN_m(x) = the m words k of smallest ||x - c_k||^2, nearest first, ties to the lower index

The squared distance is *defined* as the float32 sum of squared differences (docs/reference.md 2.2). All
distances together are a matrix product, ||x||^2 - 2 <x, c> + ||c||^2, which is fast but rounds differently:
it only proposes candidates, which `refine` then compares by definition. The exact assigner (this file) and
the approximate one (approximate_assignment.py) differ in how they propose candidates. faiss and OpenBLAS do
the heavy work.
"""

import contextlib
import functools
import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import faiss
import numpy as np
import numpy.typing as npt
import threadpoolctl

from delf_d2r.kernels.compiled import HAVE_NUMBA, njit
from delf_d2r.kernels.finite import require_finite
from delf_d2r.kernels.norms import row_squared_norms
from delf_d2r.kernels.word_groups import WordGroup, groups_of

DEFAULT_MEMORY_BYTES = 256 << 20
_SPARE_CANDIDATES = 3

WORDS_AT_A_TIME = 512
MIN_FEATURES = 128  # for each thread; fewer make poor use of the matrix product
MAX_FEATURES = 1024


class Assigner(Protocol):
  """The interface that the stages need: descriptors float32 [N, D] -> words int32 [N, m], nearest first."""

  def __call__(self, descriptors: npt.ArrayLike, num_assignments: int = 1) -> npt.NDArray[np.int32]:
    """Returns the words; see `assign`."""
    ...


def assign(
  descriptors: npt.ArrayLike,
  centroids: npt.ArrayLike,
  *,
  num_assignments: int = 1,
  memory_bytes: int = DEFAULT_MEMORY_BYTES,
) -> npt.NDArray[np.int32]:
  """Returns the nearest words, exactly as defined; `ExactAssigner` checks the centroids only once.

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

  The answer for a feature is certain once all other words are farther by more than the product can err. Of
  the few features where it is not, the words that come near are compared by definition.

  Where the words are of two kinds that lie apart (word_groups.py), a feature is compared with those of its
  own kind, if none of the other can be as near.
  """

  def __init__(self, centroids: npt.ArrayLike, *, memory_bytes: int = DEFAULT_MEMORY_BYTES) -> None:
    """Keeps float32 [K, D] `centroids`; raises ValueError unless they are finite and K >= 1."""
    self._centroids = checked_centroids(centroids)
    self._memory_bytes = memory_bytes
    squared_norms = row_squared_norms(self._centroids)
    self._half_norms = squared_norms / np.float32(2)
    self._largest_length = math.sqrt(squared_norms.max())
    self._parts: list[tuple[WordGroup, ExactAssigner]] = []
    for group in (HAVE_NUMBA and groups_of(self._centroids)) or ():
      moved, _ = group.moved(self._centroids[group.words])
      self._parts.append((group, ExactAssigner(moved, memory_bytes=memory_bytes)))

  def __call__(self, descriptors: npt.ArrayLike, num_assignments: int = 1) -> npt.NDArray[np.int32]:
    """Returns words int32 [N, m]; arguments and errors are those of `assign`."""
    descriptors = checked_descriptors(descriptors, self._centroids, num_assignments)
    words = np.empty((len(descriptors), num_assignments), np.int32)
    if num_assignments == 1 and HAVE_NUMBA:
      rest = self._settle_by_kind(descriptors, words) if self._parts else np.arange(len(descriptors))
      words[rest] = self._by_product(descriptors[rest])
      return words
    unsure = np.arange(len(descriptors))
    fewest = num_assignments + _SPARE_CANDIDATES
    for num_candidates in (fewest, 16 * fewest):
      if num_candidates < len(self._centroids):
        unsure = self._settle(descriptors, unsure, num_candidates, words)
    self._settle_by_definition(descriptors, unsure, words)
    return words

  assign = __call__

  def _settle_by_kind(
    self, descriptors: npt.NDArray[np.float32], words: npt.NDArray[np.int32]
  ) -> npt.NDArray[np.intp]:
    """Fills the only column of `words` from the words of each feature's kind; returns those still unsure."""
    bounds = np.stack([group.least_squared_distances(descriptors) for group, _ in self._parts])
    nearer = bounds.argmin(axis=0)
    is_sure = np.zeros(len(descriptors), bool)
    for kind, (group, part) in enumerate(self._parts):
      own = np.flatnonzero(nearer == kind)
      moved, is_exact = group.moved(descriptors[own])
      found = part._by_product(moved)[:, 0]
      distances = row_squared_norms(moved - part._centroids[found])
      # Twice the distance is far more than what its float32 sum may lack.
      is_sure[own] = is_exact & (bounds[1 - kind, own] > 2 * distances.astype(np.float64))
      words[own, 0] = group.words[found]
    return np.flatnonzero(~is_sure)

  def _by_product(self, descriptors: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """Returns the nearest words int32 [N, 1] from the scores of all words."""
    words = np.empty((len(descriptors), 1), np.int32)
    slack = self._slack(descriptors)
    words[:, 0], is_certain = best_words(descriptors, self._centroids, self._half_norms, slack)
    unsure = np.flatnonzero(~is_certain)
    for block in blocks(unsure, self._memory_bytes // (16 * len(self._centroids))):
      scores = descriptors[block] @ self._centroids.T - self._half_norms
      is_near = scores >= scores.max(axis=1, keepdims=True) - slack[block, None]
      for feature, near in zip(block, is_near, strict=True):
        candidates = np.flatnonzero(near)[None]
        words[feature], _ = refine(descriptors[feature, None], self._centroids, candidates, 1)
    return words

  def _slack(self, features: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """Returns the worst-case rounding of a sum of D products, in the matrix product and in the definition."""
    lengths = np.sqrt(row_squared_norms(features)) + self._largest_length
    slack: npt.NDArray[Any] = 2 * (features.shape[1] + 8) * np.finfo(np.float32).eps * lengths**2
    return slack

  def _settle(
    self,
    descriptors: npt.NDArray[np.float32],
    unsure: npt.NDArray[np.intp],
    num_candidates: int,
    words: npt.NDArray[np.int32],
  ) -> npt.NDArray[np.intp]:
    """Fills `words` of the features `unsure` from some candidates; returns those still unsure."""
    dimensions = descriptors.shape[1]
    still_unsure = []
    for block in blocks(unsure, self._memory_bytes // (16 * num_candidates * dimensions)):
      features = descriptors[block]
      bounds, candidates = faiss.knn(features, self._centroids, num_candidates)
      words[block], distances = refine(features, self._centroids, candidates, words.shape[1])
      still_unsure.append(block[bounds[:, -1] <= distances[:, -1] + self._slack(features)])
    return np.concatenate(still_unsure) if still_unsure else unsure

  def _settle_by_definition(
    self,
    descriptors: npt.NDArray[np.float32],
    unsure: npt.NDArray[np.intp],
    words: npt.NDArray[np.int32],
  ) -> None:
    num_words, dimensions = self._centroids.shape
    for block in blocks(unsure, self._memory_bytes // (8 * num_words * (dimensions + 8))):
      everything = np.broadcast_to(np.arange(num_words), (len(block), num_words))
      words[block], _ = refine(descriptors[block], self._centroids, everything, words.shape[1])

  def __repr__(self) -> str:
    return f'ExactAssigner(K={len(self._centroids)}, D={self._centroids.shape[1]})'


def refine(
  descriptors: npt.NDArray[np.float32],
  centroids: npt.NDArray[np.float32],
  candidates: npt.NDArray[np.integer[Any]],
  num_assignments: int,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
  """Returns the best of each feature's candidates by the definition of distance.

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


# The word of largest score by matrix product ---------------------------------------------------------


def best_words(
  features: npt.NDArray[np.float32],
  centroids: npt.NDArray[np.float32],
  half_norms: npt.NDArray[np.float32],
  slack: npt.NDArray[Any],
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
  """Returns the word of largest score by matrix product, and whether any other word comes near it.

    score(x, c) = <x, c> - ||c||^2 / 2 = (||x||^2 - ||x - c||^2) / 2

  faiss finds the nearest word at this speed, but not how far the second nearest is, without which a rounded
  product proves nothing; to ask faiss for two words costs a fifth more. Here OpenBLAS multiplies, in pieces
  that stay in the cache, and a compiled loop reads them once.

  Args:
    features: float32 [N, D].
    centroids: float32 [K, D].
    half_norms: float32 [K], half the squared length of each.
    slack: float32 [N], the difference up to which another score counts as near.

  Returns:
    words int32 [N], and bool [N], true where every other word's score is smaller by more than `slack`.
  """
  words, is_certain = np.empty(len(features), np.int32), np.empty(len(features), bool)
  threads = faiss.omp_get_max_threads()
  size = min(max(-(-len(features) // threads), MIN_FEATURES), MAX_FEATURES)
  parts = [slice(start, start + size) for start in range(0, len(features), size)]

  def scan(part: slice) -> None:
    words[part], is_certain[part] = _best_of_part(features[part], centroids, half_norms, slack[part])

  with _single_threaded_blas():
    if threads == 1 or len(parts) == 1:
      for part in parts:
        scan(part)
    else:
      with ThreadPoolExecutor(threads) as pool:
        list(pool.map(scan, parts))
  return words, is_certain


def _best_of_part(
  features: npt.NDArray[np.float32],
  centroids: npt.NDArray[np.float32],
  half_norms: npt.NDArray[np.float32],
  slack: npt.NDArray[Any],
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
  num_features = len(features)
  best = np.full(num_features, -np.inf, np.float32)
  rival = best.copy()  # the second largest score, where it comes near the largest
  words = np.zeros(num_features, np.int32)
  largest = np.empty(num_features, np.float32)
  buffer = np.empty((WORDS_AT_A_TIME, num_features), np.float32)
  for start in range(0, len(centroids), WORDS_AT_A_TIME):
    some = centroids[start : start + WORDS_AT_A_TIME]
    products = np.dot(some, features.T, out=buffer[: len(some)])
    _scan(products, half_norms[start : start + len(some)], start, slack, largest, best, rival, words)
  return words, rival < best - slack


@njit
def _scan(
  products: npt.NDArray[np.float32],
  half_norms: npt.NDArray[np.float32],
  start: int,
  slack: npt.NDArray[Any],
  largest: npt.NDArray[np.float32],
  best: npt.NDArray[np.float32],
  rival: npt.NDArray[np.float32],
  words: npt.NDArray[np.int32],
) -> None:
  """Updates the best words with those of some centroids.

  Features are columns: so the largest score of each is found in vector registers, 8 times faster.
  """
  largest[:] = -np.inf
  for j in range(products.shape[0]):
    row, half_norm = products[j], half_norms[j]
    for i in range(row.size):
      score = row[i] - half_norm
      largest[i] = score if score > largest[i] else largest[i]
  for i in range(largest.size):
    if largest[i] < best[i] - slack[i]:
      continue
    for j in range(products.shape[0]):
      score = products[j, i] - half_norms[j]
      if score > best[i]:
        rival[i] = best[i]
        best[i] = score
        words[i] = start + j
      elif score > rival[i]:
        rival[i] = score


_blas = threading.Lock()
_blas_users = 0
_blas_limit: Any = None


@contextlib.contextmanager
def _single_threaded_blas() -> Iterator[None]:
  """Limits BLAS to one thread inside the block, where the features are distributed over threads already.

  The limit is that of the whole process: the first user sets it, the last one restores it.
  """
  global _blas_users, _blas_limit
  with _blas:
    if _blas_users == 0:
      _blas_limit = _thread_pools().limit(limits=1, user_api='blas')
    _blas_users += 1
  try:
    yield
  finally:
    with _blas:
      _blas_users -= 1
      if _blas_users == 0:
        _blas_limit.restore_original_limits()


@functools.cache
def _thread_pools() -> Any:
  """Returns the controller of the thread pools of all loaded libraries; to look for them once is enough."""
  return threadpoolctl.ThreadpoolController()


# Checks and blocks, of both assigners ----------------------------------------------------------------


def blocks(indices: npt.NDArray[np.intp], size: int) -> Iterator[npt.NDArray[np.intp]]:
  """Returns slices of `indices`, at most `size` long and at least 1."""
  size = max(size, 1)
  return (indices[start : start + size] for start in range(0, len(indices), size))


def checked_centroids(centroids: npt.ArrayLike) -> npt.NDArray[np.float32]:
  """Returns contiguous float32 [K, D]; raises ValueError unless it is finite and K, D >= 1."""
  checked = np.ascontiguousarray(centroids, np.float32)
  if checked.ndim != 2 or 0 in checked.shape:
    raise ValueError(
      f'centroids: expected shape [K, D] with K, D >= 1, found {checked.shape}; train a codebook'
    )
  require_finite('centroids', checked)
  return checked


def checked_descriptors(
  descriptors: npt.ArrayLike, centroids: npt.NDArray[np.float32], num_assignments: int
) -> npt.NDArray[np.float32]:
  """Returns contiguous float32 [N, D]; raises ValueError unless it fits the centroids and is finite."""
  checked = np.ascontiguousarray(descriptors, np.float32)
  if checked.ndim != 2 or checked.shape[1] != centroids.shape[1]:
    raise ValueError(
      f'descriptors: expected shape [N, {centroids.shape[1]}] for these centroids, found {checked.shape};'
      ' use the codebook that was trained on these descriptors'
    )
  if not 1 <= num_assignments <= len(centroids):
    raise ValueError(
      f'num_assignments: expected 1 to K = {len(centroids)}, found {num_assignments};'
      ' assign to fewer words or train a larger codebook'
    )
  require_finite('descriptors', checked)
  return checked
