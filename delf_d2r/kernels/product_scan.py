"""The word of largest score by matrix product, and whether any other comes near it.

  score(x, c) = <x, c> - ||c||^2 / 2 = (||x||^2 - ||x - c||^2) / 2

faiss finds the nearest word at this speed, but not how far the second nearest is, without which a rounded
product proves nothing; to ask faiss for two costs a fifth more. Here OpenBLAS multiplies, in pieces that
stay in the cache, and a compiled loop reads them once.
"""

import contextlib
import functools
import threading
from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
import threadpoolctl

from delf_d2r.kernels.compiled import njit

WORDS_AT_A_TIME = 512
MIN_FEATURES = 128  # for each thread; fewer make poor use of the matrix product
MAX_FEATURES = 1024


def best_words(features, centroids, half_norms, slack) -> tuple[np.ndarray, np.ndarray]:
  """The word of largest score.

  Args:
    features: float32 [N, D].
    centroids: float32 [K, D].
    half_norms: float32 [K], half the squared length of each.
    slack: float32 [N], how close another score must come to matter.

  Returns:
    words int32 [N], and bool [N], true where every other word's score is smaller by more than `slack`.
  """
  words, is_certain = np.empty(len(features), np.int32), np.empty(len(features), bool)
  threads = faiss.omp_get_max_threads()
  size = min(max(-(-len(features) // threads), MIN_FEATURES), MAX_FEATURES)
  parts = [slice(start, start + size) for start in range(0, len(features), size)]

  def scan(part):
    words[part], is_certain[part] = _best_of_part(features[part], centroids, half_norms, slack[part])

  with _single_threaded_blas():
    if threads == 1 or len(parts) == 1:
      for part in parts:
        scan(part)
    else:
      with ThreadPoolExecutor(threads) as pool:
        list(pool.map(scan, parts))
  return words, is_certain


def _best_of_part(features, centroids, half_norms, slack):
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
def _scan(products, half_norms, start, slack, largest, best, rival, words):
  """Features are columns: so the largest of each is found in vector registers, 8 times faster."""
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
_blas_limit = None


@contextlib.contextmanager
def _single_threaded_blas():
  """One thread for each product inside the block, since the features are shared out among threads.

  The number is the whole process's: the first to come sets it, the last to go restores it.
  """
  global _blas_users, _blas_limit
  with _blas:
    if _blas_users == 0:
      _blas_limit = _controller().limit(limits=1, user_api='blas')
    _blas_users += 1
  try:
    yield
  finally:
    with _blas:
      _blas_users -= 1
      if _blas_users == 0:
        _blas_limit.restore_original_limits()


@functools.cache
def _controller() -> threadpoolctl.ThreadpoolController:
  return threadpoolctl.ThreadpoolController()  # looks at all loaded libraries: once is enough
