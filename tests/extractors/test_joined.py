import numpy as np
import pytest

from delf_d2r.codebook import Codebook
from delf_d2r.extractors.joined import JoinedExtractor
from delf_d2r.kernels.aggregation import Kernel, aggregate
from delf_d2r.kernels.assignment import ExactAssigner
from delf_d2r.kernels.similarity import similarity
from delf_d2r.structures import LocalFeatures

IMAGE = np.zeros((20, 30, 3), np.uint8)


class Fixed:
  """An extractor that finds the same features in every image."""

  def __init__(self, descriptors):
    self._descriptors = descriptors
    self.dimensions = descriptors.shape[1]
    self.note = ''

  def __call__(self, image):
    del image
    n = len(self._descriptors)
    numbers = np.arange(n, dtype=np.float32)
    return LocalFeatures(np.stack([numbers, numbers], 1), numbers, numbers, self._descriptors)


def unit_vectors(n, dimensions, seed):
  vectors = np.random.default_rng(seed).normal(size=(n, dimensions)).astype(np.float32)
  return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_features_of_both_kinds_in_order():
  first, second = unit_vectors(3, 8, 0), unit_vectors(2, 8, 1)
  found = JoinedExtractor(Fixed(first), Fixed(second))(IMAGE)
  np.testing.assert_array_equal(found.descriptors[:3], first)
  np.testing.assert_allclose(found.descriptors[3:] - second, [[4, *[0] * 7]] * 2, atol=1e-6)
  assert found.attention.tolist() == [0, 1, 2, 0, 1]


def test_extractors_are_not_changed():
  second = unit_vectors(2, 8, 1)
  before = second.copy()
  JoinedExtractor(Fixed(unit_vectors(3, 8, 0)), Fixed(second))(IMAGE)
  np.testing.assert_array_equal(second, before)


@pytest.mark.parametrize(('n', 'm'), [(0, 2), (2, 0), (0, 0)])
def test_a_kind_without_features(n, m):
  found = JoinedExtractor(Fixed(unit_vectors(n, 8, 0)), Fixed(unit_vectors(m, 8, 1)))(IMAGE)
  assert found.descriptors.shape == (n + m, 8)


def test_kinds_are_farther_apart_than_any_two_of_one_kind():
  vectors = unit_vectors(500, 4, 2)
  found = JoinedExtractor(Fixed(vectors), Fixed(vectors))(IMAGE).descriptors
  between = np.linalg.norm(found[:500, None] - found[None, 500:], axis=2)
  within = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
  assert between.min() >= within.max()


def test_scores_are_sums_of_what_each_kind_scores_alone():
  kinds = [unit_vectors(400, 16, seed) for seed in (3, 4)]
  joined = JoinedExtractor(Fixed(kinds[0]), Fixed(kinds[1]))(IMAGE).descriptors
  words = Codebook.train(joined, num_words=16, iterations=10, seed=0)
  own = (words.centroids[:, 0] > 2).astype(int)
  # No word holds both kinds: centroids lie around 0 or around 4.
  assert np.all((np.abs(words.centroids[:, 0]) < 1) | (np.abs(words.centroids[:, 0] - 4) < 1))
  assert 0 < own.sum() < 16
  assign = ExactAssigner(words.centroids)

  def scores(chosen):
    halves = [descriptors[chosen] for descriptors in (joined[:400], joined[400:])]
    return [
      aggregate(part, assign(part), words.centroids, kernel=Kernel.ASMK_STAR)
      for part in (*halves, np.concatenate(halves))
    ]

  (a1, a2, both_a), (b1, b2, both_b) = scores(slice(0, 200)), scores(slice(100, 300))
  one, two, both = (
    similarity(a, b, kernel=Kernel.ASMK_STAR, normalize=False)
    for a, b in ((a1, b1), (a2, b2), (both_a, both_b))
  )
  assert both == pytest.approx(one + two, rel=1e-6)
  assert min(one, two) > 0


def test_different_dimensions_are_refused():
  with pytest.raises(ValueError, match='found 8 and 4'):
    JoinedExtractor(Fixed(unit_vectors(1, 8, 0)), Fixed(unit_vectors(1, 4, 0)))
