"""Words of two kinds: the nearest ones by definition, whichever kind a feature is compared with."""

import numpy as np
import pytest

from delf_d2r.kernels import assignment, word_groups
from delf_d2r.kernels.assignment import ExactAssigner, refine
from delf_d2r.kernels.compiled import HAVE_NUMBA


def unit_vectors(number, dimensions, rng):
  vectors = rng.normal(size=(number, dimensions))
  return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def two_kinds(number, dimensions, rng, *, coordinate=0, distance=4.0):
  """Returns vectors of which every other one is of a second kind, moved along one coordinate."""
  vectors = unit_vectors(number, dimensions, rng)
  vectors[1::2, coordinate] += np.float32(distance)
  return vectors


def by_definition(descriptors, centroids):
  every = np.broadcast_to(np.arange(len(centroids)), (len(descriptors), len(centroids)))
  return refine(descriptors, centroids, every, 1)[0]


@pytest.mark.skipif(not HAVE_NUMBA, reason='without numba all words are compared')
@pytest.mark.parametrize('coordinate, distance', [(0, 4.0), (5, -4.0), (7, 1000.0), (2, 0.3), (0, 4.1)])
def test_words_are_those_of_the_definition(coordinate, distance):
  rng = np.random.default_rng(1)
  centroids = two_kinds(1500, 16, rng, coordinate=coordinate, distance=distance)
  centroids[900] = centroids[100]  # Ties go to the lower index.
  features = np.concatenate(
    [
      two_kinds(300, 16, rng, coordinate=coordinate, distance=distance),
      centroids[[100, 900]],
      # Between both kinds, far away, and at values that the shift rounds.
      two_kinds(40, 16, rng, coordinate=coordinate, distance=distance / 2),
      two_kinds(10, 16, rng, coordinate=coordinate, distance=30 * distance),
      unit_vectors(40, 16, rng) * np.float32(1e-3),
    ]
  )
  assert np.array_equal(ExactAssigner(centroids)(features), by_definition(features, centroids))


@pytest.mark.skipif(not HAVE_NUMBA, reason='without numba all words are compared')
def test_features_are_compared_with_words_of_their_kind_alone(monkeypatch):
  rng = np.random.default_rng(2)
  centroids = two_kinds(2000, 16, rng)
  assigner = ExactAssigner(centroids)
  compared = []
  best_words = assignment.best_words

  def recorded(features, words, *arguments):
    compared.append((len(features), len(words)))
    return best_words(features, words, *arguments)

  monkeypatch.setattr(assignment, 'best_words', recorded)
  assigner(two_kinds(60, 16, rng))
  assert [pair for pair in compared if pair[0]] == [(30, 1000), (30, 1000)]


def test_groups_need_a_gap_and_enough_words_on_both_sides():
  rng = np.random.default_rng(3)
  assert word_groups.groups_of(unit_vectors(1500, 16, rng)) is None
  assert word_groups.groups_of(two_kinds(1000, 16, rng)) is None, 'few words'
  outlier = unit_vectors(1500, 16, rng)
  outlier[0, 0] = 9
  assert word_groups.groups_of(outlier) is None
  assert word_groups.groups_of(np.ones((1500, 3), np.float32)) is None
  first, second = word_groups.groups_of(two_kinds(1500, 16, rng))
  assert (first.shift, second.shift) == (0, 4)
  assert np.array_equal(np.sort(np.concatenate([first.words, second.words])), np.arange(1500))


def test_moved_vectors_say_where_they_are_exact():
  (_, second) = word_groups.groups_of(two_kinds(1500, 16, np.random.default_rng(4)))
  vectors = np.ones((3, 16), np.float32)
  vectors[:, 0] = 3.7, 1e-5, 4
  moved, is_exact = second.moved(vectors)
  assert is_exact.tolist() == [True, False, True]
  assert moved[2, 0] == 0
  assert np.array_equal(moved[:, 1:], vectors[:, 1:])
