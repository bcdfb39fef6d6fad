"""Lloyd's algorithm, which trains codebooks: exactly by faiss, or with an approximate assignment step.

`approximate` takes the assignment step of Agustsson, Timofte and Van Gool, "k2-means for fast and accurate
large scale clustering", ECML PKDD 2017: from one iteration to the next a descriptor moves to a word near its
own, so only the words nearest to its word are compared. An iteration costs N x `NEIGHBORS` distances instead
of N x K.
"""

import math
from collections.abc import Iterator

import faiss
import numpy as np
import numpy.typing as npt

from delf_d2r.kernels.approximate_assignment import ApproximateAssigner

NEIGHBORS = 32


def exact(
  sample: npt.NDArray[np.float32], num_words: int, iterations: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], list[float]]:
  """Runs Lloyd's algorithm with each descriptor's nearest word.

  Args:
    sample: float32 [N, D], N >= K.
    num_words: K.
    iterations: at least 1.
    rng: of the first centroids and the splits of empty words.

  Returns:
    float32 [K, D], and the mean squared distance of the descriptors to their words at the start of each
    iteration.
  """
  centroids, loss = _faiss_kmeans(sample, num_words, iterations, int(rng.integers(2**31)))
  return centroids, [float(total) / len(sample) for total in loss]


def _faiss_kmeans(
  vectors: npt.NDArray[np.float32], num_centroids: int, iterations: int, seed: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
  """Returns the centroids [K, D] and the sum of squared distances at the start of each iteration."""
  kmeans = faiss.Kmeans(
    vectors.shape[1],
    num_centroids,
    niter=iterations,
    seed=seed,
    min_points_per_centroid=1,  # no warnings on stderr; `quality_report` tells more
    max_points_per_centroid=len(vectors),  # sampled already
  )
  kmeans.train(vectors)
  assert kmeans.centroids is not None
  assert kmeans.obj is not None
  return kmeans.centroids, kmeans.obj


def approximate(
  sample: npt.NDArray[np.float32], num_words: int, iterations: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], list[float]]:
  """Runs Lloyd's algorithm among neighbouring words; arguments and result are those of `exact`."""
  centroids = sample[np.sort(rng.choice(len(sample), num_words, replace=False))]
  seed = int(rng.integers(2**31))
  words = ApproximateAssigner(centroids, seed=seed)(sample)[:, 0]
  loss = [mean_squared_error(sample, centroids, words)]
  for iteration in range(iterations):
    if iteration:
      words, error = _assign_to_neighbors(sample, centroids, words, seed)
      loss.append(error)
    _move_to_means(sample, centroids, words)
    _split_into_empty_words(centroids, np.bincount(words, minlength=num_words), rng)
  return centroids, loss


def _assign_to_neighbors(
  sample: npt.NDArray[np.float32],
  centroids: npt.NDArray[np.float32],
  words: npt.NDArray[np.int32],
  seed: int,
) -> tuple[npt.NDArray[np.int32], float]:
  """Moves each descriptor to the nearest of the words around its own.

  Words are grouped so that descriptors of one group share their candidates: few large products.

  Returns:
    The new words int32 [N], and the mean squared distance of the descriptors to them.
  """
  num_words = len(centroids)
  _, neighbors = faiss.knn(centroids, centroids, min(NEIGHBORS, num_words))
  groups, _ = _faiss_kmeans(centroids, min(2 * math.isqrt(num_words), num_words), 5, seed)
  group_of_word = faiss.knn(centroids, groups, 1)[1][:, 0]
  new_words = np.empty_like(words)
  total = 0.0
  for group, members in _members(group_of_word[words], len(groups)):
    own = np.flatnonzero(group_of_word == group)
    candidates = np.union1d(own, neighbors[own])
    distances, nearest = faiss.knn(sample[members], centroids[candidates], 1)
    new_words[members] = candidates[nearest[:, 0]]
    total += float(distances.sum(dtype=np.float64))
  return new_words, total / len(sample)


def _move_to_means(
  sample: npt.NDArray[np.float32], centroids: npt.NDArray[np.float32], words: npt.NDArray[np.int32]
) -> None:
  """Replaces each centroid by the mean of its descriptors."""
  for word, members in _members(words, len(centroids)):
    centroids[word] = sample[members].mean(axis=0, dtype=np.float64)


def _split_into_empty_words(
  centroids: npt.NDArray[np.float32], counts: npt.NDArray[np.int64], rng: np.random.Generator
) -> None:
  """Gives each empty word half of a populous one; both move by 1 / 1024, in opposite directions, as in faiss.

  The word to split is drawn with a probability proportional to its count less one.
  """
  nudge = np.where(np.arange(centroids.shape[1]) % 2, 1 - 1 / 1024, 1 + 1 / 1024).astype(np.float32)
  for empty in np.flatnonzero(counts == 0):
    surplus = np.maximum(counts - 1.0, 0)
    word = rng.choice(len(counts), p=surplus / surplus.sum())
    centroids[empty] = centroids[word] * nudge
    centroids[word] /= nudge
    counts[empty] = counts[word] // 2
    counts[word] -= counts[empty]


def _members(words: npt.NDArray[np.integer], num_words: int) -> Iterator[tuple[int, npt.NDArray[np.intp]]]:
  """Yields each word that has descriptors, and their positions in ascending order."""
  order = np.argsort(words, kind='stable')
  ends = np.cumsum(np.bincount(words, minlength=num_words))
  for word, (start, end) in enumerate(zip(np.r_[0, ends[:-1]], ends, strict=True)):
    if start < end:
      yield word, order[start:end]


def mean_squared_error(
  descriptors: npt.NDArray[np.float32],
  centroids: npt.NDArray[np.float32],
  words: npt.NDArray[np.int32],
) -> float:
  """Returns the mean squared distance of descriptors [N, D], N >= 1, to the centroids of their words [N]."""
  total = 0.0
  for part in _parts(len(descriptors)):
    total += float(np.square(descriptors[part] - centroids[words[part]]).sum(dtype=np.float64))
  return total / len(descriptors)


def _parts(length: int, size: int = 65536) -> Iterator[slice]:
  return (slice(start, start + size) for start in range(0, length, size))
