"""Exact and approximate assignment against the definition, feature by feature."""

import subprocess
import sys
import tracemalloc

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import kernels_oracle as oracle

from delf_d2r.kernels import assignment
from delf_d2r.kernels.approximate_assignment import ApproximateAssigner, CoordinateGaps
from delf_d2r.kernels.assignment import ExactAssigner, assign, refine
from delf_d2r.kernels.norms import row_squared_norms


def clustered(num_vectors, dimensions, seed, spread=0.3):
  """Returns unit vectors around a few hundred directions of a low-dimensional space, like descriptors."""
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
  for num_assignments in (1, data.draw(st.integers(1, num_words))):
    found = assign(descriptors, centroids, num_assignments=num_assignments)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, oracle.assign(descriptors, centroids, num_assignments))


@pytest.mark.parametrize('scale', [1, 2**-20])
@pytest.mark.parametrize('seed', range(4))
def test_ties_go_to_the_lower_index_where_the_matrix_product_rounds_them_apart(scale, seed, monkeypatch):
  """The feature is the first word; the other 200 are equally far, their products with it are not."""
  monkeypatch.setattr(faiss.cvar, 'distance_compute_blas_threshold', 1)  # no sum of differences by faiss
  rng = np.random.default_rng(seed)
  feature = (scale * rng.integers(0, 2**20, (1, 8)) / 2**14).astype(np.float32)
  others = feature + scale * rng.choice([-100, 100], (200, 8))
  centroids = np.concatenate([feature, others]).astype(np.float32)
  assert np.ptp(centroids[1:] @ feature[0] - row_squared_norms(centroids[1:]) / 2) > 0
  np.testing.assert_array_equal(assign(feature, centroids, num_assignments=2), [[0, 1]])
  np.testing.assert_array_equal(assign(feature, centroids[1:]), [[0]])


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


@pytest.mark.parametrize('num_features, num_assignments', [(80, 1), (500, 2)])
def test_working_memory_is_bounded_where_all_words_are_equally_far(num_features, num_assignments):
  """Memory is traced without that of faiss; features are compared with few words, with more, with all."""
  descriptors, centroids = np.zeros((num_features, 4), np.float32), np.ones((3000, 4), np.float32)
  assigner = ExactAssigner(centroids, memory_bytes=400_000)
  assigner(descriptors[:1], num_assignments)  # what numba and others keep of a first call
  tracemalloc.start()
  try:
    words = assigner(descriptors, num_assignments)
    _, peak = tracemalloc.get_traced_memory()
  finally:
    tracemalloc.stop()
  assert words.tolist() == [[0, 1][:num_assignments]] * num_features
  assert peak < 600_000


def test_refine_sorts_candidates_by_distance_then_index():
  centroids = np.array([[0], [4], [2], [2]], np.float32)
  words, distances = refine(np.array([[1.0]], np.float32), centroids, np.array([[3, 1, 0, 2]]), 3)
  assert words.tolist() == [[0, 2, 3]]
  assert distances.tolist() == [[1, 1, 1]]


@pytest.mark.parametrize('threads', [1, 2])
def test_best_words_of_more_words_and_features_than_one_part_holds(threads):
  """Small integers: no score is rounded, and many are equal or differ by the slack exactly."""
  rng = np.random.default_rng(8)
  features = rng.integers(-9, 10, (assignment.MAX_FEATURES + 60, 3)).astype(np.float32)
  centroids = rng.integers(-9, 10, (assignment.WORDS_AT_A_TIME + 60, 3)).astype(np.float32)
  half_norms = np.square(centroids).sum(axis=1) / 2
  slack = rng.integers(0, 4, len(features)).astype(np.float32)
  scores = features @ centroids.T - half_norms
  before = faiss.omp_get_max_threads()
  faiss.omp_set_num_threads(threads)
  try:
    words, is_certain = assignment.best_words(features, centroids, half_norms, slack)
  finally:
    faiss.omp_set_num_threads(before)
  np.testing.assert_array_equal(words, scores.argmax(axis=1))
  best, second = np.sort(scores, axis=1)[:, :-3:-1].T
  np.testing.assert_array_equal(is_certain, second < best - slack)
  assert 0.1 < is_certain.mean() < 0.9
  assert (words >= assignment.WORDS_AT_A_TIME).any()


# In a process of its own: libraries and threads of other tests change the limits of this one.
ONE_THREAD = """
import threadpoolctl
from delf_d2r.kernels import assignment

def num_threads():
  pools = assignment._thread_pools().info()
  return {pool['num_threads'] for pool in pools if pool['user_api'] == 'blas'}

with threadpoolctl.threadpool_limits(2, user_api='blas'):
  for _ in range(2):
    assert num_threads() == {2}
    with assignment._single_threaded_blas():
      with assignment._single_threaded_blas():
        assert num_threads() == {1}
      assert num_threads() == {1}
    assert num_threads() == {2}
"""


def test_blas_has_one_thread_from_the_first_user_to_the_last():
  done = subprocess.run([sys.executable, '-c', ONE_THREAD], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr


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
  return centroids, clustered(400, request.param, seed=5), ApproximateAssigner(centroids, seed=6)


def test_approximate_recall_is_measured_against_exact(approximate):
  centroids, descriptors, assigner = approximate
  same = assigner(descriptors) == assign(descriptors, centroids)
  assert same.mean() >= 0.99
  assert assigner.measure_recall(descriptors) == same.mean()
  assert assigner.measure_recall(descriptors[:0]) == 1


def test_fewer_probes_lower_the_recall_so_that_it_is_not_exact_search_in_disguise(approximate):
  centroids, descriptors, assigner = approximate
  descriptors = descriptors[:200]
  hasty, other = (ApproximateAssigner(centroids, seed=s, num_probes=1, num_candidates=4) for s in (6, 7))
  assert hasty.measure_recall(descriptors) < assigner.measure_recall(descriptors)
  assert np.any(hasty(descriptors) != other(descriptors))


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


@pytest.mark.slow
def test_approximate_gives_distinct_words_nearest_first_even_with_too_few_cells(approximate):
  centroids, descriptors, _ = approximate
  starved = ApproximateAssigner(centroids, seed=6, num_probes=1)
  words = starved(descriptors[:40], 100)
  assert all(len(set(row)) == 100 for row in words.tolist())
  distances = np.square(descriptors[:40, None] - centroids[words]).sum(axis=2)
  assert np.all(np.diff(distances, axis=1) >= 0)
  for as_many_as_a_cell_holds in range(44, 62):
    assert starved(descriptors[:40], as_many_as_a_cell_holds).min() >= 0


def test_four_times_as_many_words_are_compared_as_asked_for(approximate):
  centroids, descriptors, _ = approximate
  frugal = ApproximateAssigner(centroids, seed=6, num_candidates=1)
  expected = assign(descriptors[:100], centroids, num_assignments=10)
  assert np.mean(frugal(descriptors[:100], 10) == expected) > 0.995


@pytest.mark.parametrize(
  'descriptors, centroids, num_assignments, message',
  [
    (np.zeros((2, 3)), np.zeros((4, 5)), 1, r'expected shape \[N, 5\].*found \(2, 3\)'),
    (np.zeros(3), np.zeros((4, 3)), 1, r'expected shape \[N, 3\].*found \(3,\)'),
    (np.zeros((2, 3)), np.zeros((4, 3)), 5, r'expected 1 to K = 4, found 5'),
    (np.zeros((2, 3)), np.zeros((4, 3)), 0, r'expected 1 to K = 4, found 0'),
    (np.zeros((2, 3)), np.zeros((0, 3)), 1, r'centroids: expected shape \[K, D\].*found \(0, 3\)'),
    (np.array([[0.0], [np.nan]]), np.zeros((4, 1)), 1, 'descriptors: expected finite.*row 1 of 2'),
    (np.r_[np.zeros((65540, 1)), [[np.inf]]], np.zeros((4, 1)), 1, 'infinity in row 65540 of 65541'),
    (np.zeros((2, 1)), np.array([[np.inf], [0]]), 1, 'centroids: expected finite.*row 0 of 2'),
  ],
)
@pytest.mark.parametrize('make', [ExactAssigner, ApproximateAssigner])
def test_wrong_arguments_are_named(make, descriptors, centroids, num_assignments, message):
  with pytest.raises(ValueError, match=message):
    make(centroids)(descriptors, num_assignments)


def test_words_of_two_kinds_that_lie_apart_are_found_too():
  """They are 4 times as far apart as in extractors/joined.py: with the whole gap, recall is 0.4."""
  apart = np.eye(1, 32, dtype=np.float32) * 16
  centroids = np.concatenate([clustered(6000, 32, seed=4), clustered(3000, 32, seed=5) + apart])
  descriptors = np.concatenate([clustered(200, 32, seed=6), clustered(100, 32, seed=7) + apart])
  assigner = ApproximateAssigner(centroids)
  assert 'cells=141, probes=40' in repr(assigner)
  assert assigner.measure_recall(descriptors) > 0.99
  np.testing.assert_array_equal(assigner(descriptors)[:, 0] >= 6000, np.arange(300) >= 200)


def test_gaps_are_narrowed_without_changing_distances_within_a_kind():
  vectors = np.array([[0, 1], [1, 2], [2, 1], [12, 0], [13, 2]], np.float32)
  gaps = CoordinateGaps.between(vectors)
  assert gaps.middles[0] == 7
  assert gaps.excess.tolist() == [7, 0]
  assert gaps.narrow(vectors)[:, 0].tolist() == [0, 1, 2, 5, 6]
  assert CoordinateGaps.between(vectors[:1]).narrow(vectors) is vectors


@pytest.mark.parametrize('value', [1e20, -1e20, np.finfo(np.float32).max])
def test_values_whose_distances_overflow_are_refused(value):
  descriptors, centroids = np.ones((3, 16), np.float32), np.eye(4, 16, dtype=np.float32)
  descriptors[2, 5] = value
  with pytest.raises(ValueError, match=r'descriptors: .*row 2 of 3'):
    ExactAssigner(centroids)(descriptors)
  with pytest.raises(ValueError, match=r'centroids: .*row 2 of 3'):
    ExactAssigner(descriptors)(centroids)
