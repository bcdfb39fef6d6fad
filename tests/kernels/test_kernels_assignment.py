"""Exact and approximate assignment against the definition, feature by feature."""

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import kernels_oracle as oracle

from delf_d2r.kernels.approximate_assignment import ApproximateAssigner, Gaps
from delf_d2r.kernels.assignment import ExactAssigner, assign, refine


def clustered(num_vectors, dimensions, seed, spread=0.3):
  """Unit vectors around a few hundred directions of a low-dimensional space, as descriptors are."""
  rng = np.random.default_rng(seed)
  basis = np.random.default_rng(0).normal(size=(12, dimensions))
  x = np.random.default_rng(1).normal(size=(300, 12))[rng.integers(0, 300, num_vectors)]
  x = (x + spread * rng.normal(size=x.shape)) @ basis
  x += 0.3 * rng.normal(size=x.shape)
  return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@given(
  shape=st.tuples(st.integers(0, 12), st.integers(1, 30), st.integers(1, 20)),
  levels=st.sampled_from([1, 2, 50, 10**6]),
  offset=st.sampled_from([0, 1000]),
  seed=st.integers(0, 2**32 - 1),
  data=st.data(),
)
@settings(max_examples=120, deadline=None)
def test_assign_equals_the_definition(shape, levels, offset, seed, data):
  """Few levels make ties and equal centroids; an offset makes the matrix product lose most digits."""
  num_features, num_words, dimensions = shape
  rng = np.random.default_rng(seed)
  descriptors = (offset + rng.integers(0, levels, (num_features, dimensions)) / levels).astype(np.float32)
  centroids = (offset + rng.integers(0, levels, (num_words, dimensions)) / levels).astype(np.float32)
  num_assignments = data.draw(st.integers(1, num_words))
  found = assign(descriptors, centroids, num_assignments=num_assignments)
  assert found.dtype == np.int32
  np.testing.assert_array_equal(found, oracle.assign(descriptors, centroids, num_assignments))


def test_ties_go_to_the_lower_index_among_more_equal_words_than_candidates():
  centroids = np.zeros((500, 6), np.float32)
  centroids[100:] += 1
  descriptors = np.array([np.zeros(6), np.ones(6), np.full(6, 0.5)], np.float32)
  found = assign(descriptors, centroids, num_assignments=2)
  assert found.tolist() == [[0, 1], [100, 101], [0, 1]]


def test_memory_bound_does_not_change_the_answer():
  descriptors, centroids = clustered(300, 16, seed=2), clustered(200, 16, seed=3)
  expected = assign(descriptors, centroids, num_assignments=3)
  for memory_bytes in (1, 20_000):
    found = assign(descriptors, centroids, num_assignments=3, memory_bytes=memory_bytes)
    np.testing.assert_array_equal(found, expected)


def test_refine_sorts_candidates_by_distance_then_index():
  centroids = np.array([[0], [4], [2], [2]], np.float32)
  words, distances = refine(np.array([[1.0]], np.float32), centroids, np.array([[3, 1, 0, 2]]), 3)
  assert words.tolist() == [[0, 2, 3]]
  assert distances.tolist() == [[1, 1, 1]]


@pytest.mark.parametrize('make', [ExactAssigner, ApproximateAssigner])
def test_assigners_agree_with_assign_on_small_codebooks(make):
  descriptors, centroids = clustered(50, 8, seed=2), clustered(40, 8, seed=3)
  assigner = make(centroids)
  np.testing.assert_array_equal(assigner(descriptors, 2), assign(descriptors, centroids, num_assignments=2))
  np.testing.assert_array_equal(assigner.assign(descriptors), assign(descriptors, centroids))
  assert assigner(descriptors[:0], 3).shape == (0, 3)
  assert 'K=40, D=8' in repr(assigner)


@pytest.fixture(scope='module', params=[32, 33])
def approximate(request):
  centroids = clustered(8192, request.param, seed=4)
  return centroids, clustered(1500, request.param, seed=5), ApproximateAssigner(centroids, seed=6)


def test_approximate_recall_is_measured_against_exact(approximate):
  centroids, descriptors, assigner = approximate
  same = assigner(descriptors) == assign(descriptors, centroids)
  assert same.mean() >= 0.99
  assert assigner.measure_recall(descriptors) == same.mean()
  assert assigner.measure_recall(descriptors[:0]) == 1


def test_fewer_probes_lower_the_recall_so_that_it_is_not_exact_search_in_disguise(approximate):
  centroids, descriptors, assigner = approximate
  hasty = ApproximateAssigner(centroids, seed=6, num_probes=1, num_candidates=4)
  assert hasty.measure_recall(descriptors) < assigner.measure_recall(descriptors)


def test_approximate_words_depend_neither_on_batch_nor_on_threads(approximate):
  centroids, descriptors, assigner = approximate
  expected = assigner(descriptors, 2)
  one_by_one = np.concatenate([assigner(descriptors[n : n + 1], 2) for n in range(100)])
  np.testing.assert_array_equal(one_by_one, expected[:100])
  again = ApproximateAssigner(centroids, seed=6)
  before = faiss.omp_get_max_threads()
  faiss.omp_set_num_threads(1)
  try:
    np.testing.assert_array_equal(again(descriptors, 2), expected)
  finally:
    faiss.omp_set_num_threads(before)


def test_approximate_gives_distinct_words_nearest_first_even_with_too_few_cells(approximate):
  centroids, descriptors, _ = approximate
  starved = ApproximateAssigner(centroids, seed=6, num_probes=1)
  words = starved(descriptors[:40], 100)
  assert all(len(set(row)) == 100 for row in words.tolist())
  distances = np.square(descriptors[:40, None] - centroids[words]).sum(axis=2)
  assert np.all(np.diff(distances, axis=1) >= 0)


@pytest.mark.parametrize(
  'descriptors, centroids, num_assignments, message',
  [
    (np.zeros((2, 3)), np.zeros((4, 5)), 1, r'expected shape \[N, 5\].*found \(2, 3\)'),
    (np.zeros(3), np.zeros((4, 3)), 1, r'expected shape \[N, 3\].*found \(3,\)'),
    (np.zeros((2, 3)), np.zeros((4, 3)), 5, r'expected 1 to K = 4, found 5'),
    (np.zeros((2, 3)), np.zeros((4, 3)), 0, r'expected 1 to K = 4, found 0'),
    (np.zeros((2, 3)), np.zeros((0, 3)), 1, r'centroids: expected shape \[K, D\].*found \(0, 3\)'),
    (np.array([[0.0], [np.nan]]), np.zeros((4, 1)), 1, 'descriptors: expected finite.*row 1 of 2'),
    (np.zeros((2, 1)), np.array([[np.inf], [0]]), 1, 'centroids: expected finite.*row 0 of 2'),
  ],
)
@pytest.mark.parametrize('make', [ExactAssigner, ApproximateAssigner])
def test_wrong_arguments_are_named(make, descriptors, centroids, num_assignments, message):
  with pytest.raises(ValueError, match=message):
    make(centroids)(descriptors, num_assignments)


def test_words_of_two_kinds_that_lie_apart_are_found_too():
  """As extractors/joined.py makes them."""
  apart = np.eye(1, 32, dtype=np.float32) * 4
  centroids = np.concatenate([clustered(6000, 32, seed=4), clustered(3000, 32, seed=5) + apart])
  descriptors = np.concatenate([clustered(600, 32, seed=6), clustered(300, 32, seed=7) + apart])
  assigner = ApproximateAssigner(centroids)
  assert assigner.measure_recall(descriptors) > 0.99
  np.testing.assert_array_equal(assigner(descriptors)[:, 0] >= 6000, np.arange(900) >= 600)


def test_gaps_are_closed_without_changing_distances_within_a_kind():
  vectors = np.array([[0, 1], [1, 2], [2, 1], [12, 0], [13, 2]], np.float32)
  gaps = Gaps.between(vectors)
  assert gaps.widths.tolist() == [10, 0]
  assert gaps.close(vectors)[:, 0].tolist() == [0, 1, 2, 2, 3]
  assert Gaps.between(vectors[:1]).close(vectors) is vectors
