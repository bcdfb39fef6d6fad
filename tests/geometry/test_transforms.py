"""Transforms: fitted to exact points, applied, judged."""

import numpy as np
import pytest

from delf_d2r.geometry import transforms
from delf_d2r.geometry.transforms import MINIMAL_PAIRS, Limits, Model

MATRICES = {
  Model.SIMILARITY: np.array([[0, -2, 5], [2, 0, 7], [0, 0, 1.0]]),
  Model.AFFINE: np.array([[1, 0.5, -3], [0.2, 2, 8], [0, 0, 1.0]]),
  Model.HOMOGRAPHY: np.array([[1, 0.1, 2], [0.2, 0.9, 3], [1e-3, 2e-3, 1.0]]),
}
SQUARE = np.array([[0, 0], [0, 100], [100, 0], [100, 100], [40, 70]], float)


def test_apply():
  matrix = np.array([[1, 0, 3], [0, 2, 4], [0.5, 0, 1]])
  np.testing.assert_allclose(transforms.apply(matrix, np.array([[2.0, 5.0]])), [[5 / 2, 14 / 2]])


@pytest.mark.parametrize('model', list(Model))
def test_fit_of_exact_points(model):
  target = transforms.apply(MATRICES[model], SQUARE)
  np.testing.assert_allclose(transforms.fit(model, SQUARE, target), MATRICES[model], atol=1e-6)


@pytest.mark.parametrize('model', list(Model))
def test_fit_of_too_few_or_coinciding_points(model):
  few = SQUARE[: MINIMAL_PAIRS[model] - 1]
  assert transforms.fit(model, few, few) is None
  if model is not Model.HOMOGRAPHY:
    assert transforms.fit(model, np.zeros((6, 2)), SQUARE[[0, 1, 2, 3, 4, 0]]) is None


def test_similarity_is_the_nearest_one():
  rng = np.random.default_rng(0)
  target = transforms.apply(MATRICES[Model.AFFINE], SQUARE)
  matrix = transforms.fit(Model.SIMILARITY, SQUARE, target)
  best = transforms.residuals(matrix, SQUARE, target)
  for _ in range(50):
    a, b, y, x = rng.normal(0, [0.01, 0.01, 1, 1])
    other = matrix + np.array([[a, -b, y], [b, a, x], [0, 0, 0]])
    assert (transforms.residuals(other, SQUARE, target) ** 2).sum() >= (best**2).sum()


def test_points_on_the_horizon_go_nowhere():
  matrix = np.array([[1, 0, 0], [0, 1, 0], [-0.01, 0, 1]])
  found = transforms.residuals(matrix, np.array([[100.0, 5.0], [0.0, 0.0]]), np.zeros((2, 2)))
  np.testing.assert_array_equal(found, [np.inf, 0])


def test_plausible_only_on_the_near_side_of_the_horizon():
  matrix = np.array([[1, 0, 0], [0, 1, 0], [-0.01, 0, 1]])
  points = np.array([[0, 0], [20, 10], [99, 0], [100, 0], [150, 0], [0, 100]], float)
  assert transforms.plausible(matrix, points, Limits()).tolist() == [True, True, False, False, False, True]


def test_a_matrix_that_is_not_finite_is_never_plausible():
  assert not transforms.plausible(np.full((3, 3), np.nan), SQUARE, Limits()).any()


def test_extent():
  limits = Limits(min_spread=2)
  line = np.column_stack([np.arange(10), 3 * np.arange(10)]).astype(float)
  assert transforms.have_extent(SQUARE, SQUARE, limits)
  assert not transforms.have_extent(SQUARE, np.tile(line, (1, 1))[:5], limits)
  assert not transforms.have_extent(np.zeros((0, 2)), np.zeros((0, 2)), limits)
