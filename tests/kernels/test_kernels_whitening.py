"""Learned whitening: the definition over all pairs, its effect, and its errors."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from oracles import global_oracle

from delf_d2r.kernels import whitening

GROUPS = [np.arange(0, 5), np.arange(5, 7), np.arange(7, 20), np.arange(20, 32)]


def data(dimensions=5, seed=0):
  """Returns objects that differ along some axes; photos of one object differ along others, and more."""
  generator = np.random.default_rng(seed)
  between, within = generator.normal(size=(2, dimensions, dimensions)) * np.array([1, 3])[:, None, None]
  between[:, 2:], within[:, :1] = 0, 0
  within += np.eye(dimensions) * 0.3
  objects = generator.normal(size=(len(GROUPS), dimensions)) @ between.T * 2
  owners = np.repeat(np.arange(len(GROUPS)), [len(group) for group in GROUPS])
  noise = generator.normal(size=(len(owners), dimensions)) @ within.T
  return (objects[owners] + noise + 1).astype(np.float32), owners


def test_it_is_the_definition_over_all_pairs():
  x, _ = data()
  found = whitening.learn(x, GROUPS, shrinkage=0)
  expected = global_oracle.learned_whitening(x, GROUPS)
  signs = np.sign((found.components * expected).sum(axis=1))
  assert_allclose(found.components, expected * signs[:, None], rtol=1e-3, atol=1e-4)
  assert_allclose(found.mean, x.mean(axis=0), rtol=1e-5)
  assert_array_equal(found.variances, 1)
  largest = np.abs(found.components).argmax(axis=1)
  assert np.all(found.components[np.arange(5), largest] > 0)


def test_objects_come_apart():
  x, owners = data()
  learned = whitening.learn(x, GROUPS, shrinkage=0.01).truncated(2)
  matrix, offset = learned.as_affine(whitening=False)

  def neighbours_right(points):
    distances = np.linalg.norm(points[:, None] - points, axis=2) + np.eye(len(points)) * 1e9
    return (owners[distances.argmin(axis=1)] == owners).mean()

  assert neighbours_right(x @ matrix + offset) > neighbours_right(x) + 0.1


def test_division_by_deviations_changes_nothing():
  learned = whitening.learn(data()[0], GROUPS, shrinkage=0.1)
  assert_array_equal(learned.as_affine(whitening=True)[0], learned.as_affine(whitening=False)[0])


def test_few_pairs_need_shrinkage():
  x = data()[0]
  pair = [np.array([3, 4])]
  with pytest.raises(ValueError, match=r'1 pairs leave directions without variance among 5; raise .* \(0\)'):
    whitening.learn(x, pair, shrinkage=0)
  assert np.isfinite(whitening.learn(x, pair, shrinkage=0.1).components).all()
  with pytest.raises(ValueError, match='from pairs, but 0 groups have none'):
    whitening.learn(x, [], shrinkage=0.1)


def test_nan_is_refused():
  descriptors = np.ones((4, 3), np.float32)
  descriptors[3, 0] = np.nan
  with pytest.raises(ValueError, match='row 3 of 4'):
    whitening.learn(descriptors, [np.array([0, 1])], shrinkage=0.1)
