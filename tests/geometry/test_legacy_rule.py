"""The reference rule of the tensorflow/models DELF code against loops, and its peculiarities."""

import numpy as np
import pytest
from oracles import matching_oracle
from skimage import measure, transform

from delf_d2r.geometry import legacy_rule


def unit_vectors(n, seed):
  vectors = np.random.default_rng(seed).normal(size=(n, 8)).astype(np.float32)
  return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def pairs(found):
  return list(zip(found.query.tolist(), found.index.tolist(), strict=True))


@pytest.mark.parametrize('seed', range(5))
def test_matches_are_one_way_nearest_neighbours(seed):
  query, index = unit_vectors(60, seed), unit_vectors(40, seed + 100)
  found = legacy_rule.match(query, index, max_distance=0.9)
  assert pairs(found) == matching_oracle.one_way_matches(query, index, max_distance=0.9)
  assert len(set(found.index.tolist())) < len(found)


@pytest.mark.parametrize(('n', 'm'), [(0, 0), (0, 3), (3, 0)])
def test_nothing_to_match(n, m):
  assert len(legacy_rule.match(unit_vectors(n, 0), unit_vectors(m, 1), max_distance=0.9)) == 0


def places(inliers, outliers, seed=0):
  rng = np.random.default_rng(seed)
  index = rng.uniform(0, 500, (inliers + outliers, 2))
  query = index @ np.array([[0.9, 0.2], [-0.1, 1.1]]) + [30, -20] + rng.normal(0, 1, index.shape)
  query[inliers:] = rng.uniform(0, 500, (outliers, 2))
  return query.astype(np.float32), index.astype(np.float32)


def test_inliers_are_what_the_model_takes_within_the_residual():
  query, index = places(40, 40)
  found = legacy_rule.verify(query, index, max_residual=10, trials=1000, seed=0)
  agree = matching_oracle.affine_agreements(query, index, found.matrix, max_residual=10)
  np.testing.assert_array_equal(found.inliers, np.flatnonzero(agree))
  assert set(range(40)) <= set(found.inliers.tolist())


def test_samples_of_three_are_drawn():
  """There are so few samples that the result depends on the draw."""
  query, index = places(20, 60)
  found = legacy_rule.verify(query, index, max_residual=10, trials=5, seed=1)
  model, _ = measure.ransac(
    (index, query), transform.AffineTransform, min_samples=3, residual_threshold=10, max_trials=5, rng=1
  )
  np.testing.assert_array_equal(found.matrix, model.params)


def test_matches_of_one_place_agree_on_nothing():
  query, index = places(10, 0)
  found = legacy_rule.verify(query, np.zeros_like(index), max_residual=10, trials=20, seed=0)
  assert len(found) == 0
  np.testing.assert_array_equal(found.matrix, np.zeros((3, 3)))


@pytest.mark.parametrize('count', range(5))
def test_three_matches_are_too_few(count):
  query, index = places(5, 0)
  found = legacy_rule.verify(query[:count], index[:count], max_residual=10, trials=100, seed=0)
  assert len(found) == (count if count > 3 else 0)


def test_repeatable():
  query, index = places(20, 60)
  found = [legacy_rule.verify(query, index, max_residual=10, trials=50, seed=seed) for seed in (3, 3)]
  np.testing.assert_array_equal(found[0].matrix, found[1].matrix)
