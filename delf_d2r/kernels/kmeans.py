"""Lloyd's algorithm, which trains codebooks: exact by faiss, or with an approximate assignment step.

`approximate` takes the assignment step of Agustsson, Timofte and Van Gool, "k2-means for fast and accurate
large scale clustering", ECML PKDD 2017: from one iteration to the next a descriptor moves to a word near its
own, so only the words nearest to its word are compared. An iteration costs N x `NEIGHBORS` distances instead
of N x K.
"""

import math

import faiss
import numpy as np

from delf_d2r.kernels.approximate_assignment import ApproximateAssigner

NEIGHBORS = 32


def exact(
  sample: np.ndarray, num_words: int, iterations: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[float]]:
  """Lloyd's algorithm with each descriptor's nearest word.

  Args:
    sample: float32 [N, D], N >= K.
    num_words: K.
    iterations: at least 1.
    rng: of the first centroids and the splits of empty words.

  Returns:
    float32 [K, D], and the mean squared distance of the descriptors to their words at the start of each
    iteration.
  """
  kmeans = _faiss_kmeans(sample, num_words, iterations, int(rng.integers(2**31)))
  return kmeans.centroids, [float(total) / len(sample) for total in kmeans.obj]


def _faiss_kmeans(vectors, num_centroids, iterations, seed) -> faiss.Kmeans:
  kmeans = faiss.Kmeans(
    vectors.shape[1],
    num_centroids,
    niter=iterations,
    seed=seed,
    min_points_per_centroid=1,  # no warnings on stderr; `quality_report` tells more
    max_points_per_centroid=len(vectors),  # sampled already
  )
  kmeans.train(vectors)
  return kmeans


def approximate(
  sample: np.ndarray, num_words: int, iterations: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[float]]:
  """Lloyd's algorithm among neighbouring words; arguments and result as of `exact`."""
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


def _assign_to_neighbors(sample, centroids, words, seed) -> tuple[np.ndarray, float]:
  """Moves each descriptor to the nearest of the words around its own; mean squared distance.

  Words are grouped so that descriptors of one group share their candidates: few large products.
  """
  num_words = len(centroids)
  _, neighbors = faiss.knn(centroids, centroids, min(NEIGHBORS, num_words))
  groups = _faiss_kmeans(centroids, min(2 * math.isqrt(num_words), num_words), 5, seed)
  group_of_word = faiss.knn(centroids, groups.centroids, 1)[1][:, 0]
  new_words = np.empty_like(words)
  total = 0.0
  for group, members in _members(group_of_word[words], len(groups.centroids)):
    own = np.flatnonzero(group_of_word == group)
    candidates = np.union1d(own, neighbors[own])
    distances, nearest = faiss.knn(sample[members], centroids[candidates], 1)
    new_words[members] = candidates[nearest[:, 0]]
    total += float(distances.sum(dtype=np.float64))
  return new_words, total / len(sample)


def _move_to_means(sample, centroids, words) -> None:
  for word, members in _members(words, len(centroids)):
    centroids[word] = sample[members].mean(axis=0, dtype=np.float64)


def _split_into_empty_words(centroids, counts, rng) -> None:
  """Gives each empty word half of a populous one: both move by 1 / 1024, oppositely, as in faiss.

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


def _members(words, num_words):
  """(word, positions of its descriptors in ascending order) for each word that has any."""
  order = np.argsort(words, kind='stable')
  ends = np.cumsum(np.bincount(words, minlength=num_words))
  for word, (start, end) in enumerate(zip(np.r_[0, ends[:-1]], ends, strict=True)):
    if start < end:
      yield word, order[start:end]


def mean_squared_error(descriptors: np.ndarray, centroids: np.ndarray, words: np.ndarray) -> float:
  """Mean squared distance of descriptors [N, D], N >= 1, to centroids [K, D] of words, int [N]."""
  total = 0.0
  for part in _parts(len(descriptors)):
    total += float(np.square(descriptors[part] - centroids[words[part]]).sum(dtype=np.float64))
  return total / len(descriptors)


def _parts(length: int, size: int = 65536):
  return (slice(start, start + size) for start in range(0, length, size))
