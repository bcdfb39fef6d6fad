"""Transforms: their fit to exact points, application and plausibility."""

import math

import numpy as np
import pytest

from delf_d2r.geometry import transforms
from delf_d2r.geometry.transforms import Limits, Model

MATRICES = {
  Model.SIMILARITY: np.array([[0, -2, 5], [2, 0, 7], [0, 0, 1.0]]),
  Model.AFFINE: np.array([[1, 0.5, -3], [0.2, 2, 8], [0, 0, 1.0]]),
  Model.HOMOGRAPHY: np.array([[1, 0.1, 2], [0.2, 0.9, 3], [1e-3, 2e-3, 1.0]]),
}
SQUARE = np.array([[0, 0], [0, 100], [100, 0], [100, 100], [40, 70]], float)
# Of many directions, so that rounding may go either way.
LINES = [
  np.array([37.3, 12.7]) + np.outer(np.arange(9), [math.sin(angle), math.cos(angle)])
  for angle in np.linspace(0, 3, 50)
]


def test_apply():
  matrix = np.array([[1, 0, 3], [0, 2, 4], [0.5, 0, 1]])
  np.testing.assert_allclose(transforms.apply(matrix, np.array([[2.0, 5.0]])), [[5 / 2, 14 / 2]])


@pytest.mark.parametrize('model', list(Model))
def test_fit_of_exact_points(model):
  target = transforms.apply(MATRICES[model], SQUARE)
  np.testing.assert_allclose(transforms.fit(model, SQUARE, target), MATRICES[model], atol=1e-6)


@pytest.mark.parametrize(
  ('model', 'count'), [(Model.SIMILARITY, 2), (Model.AFFINE, 3), (Model.HOMOGRAPHY, 4)]
)
def test_fit_of_as_few_points_as_there_can_be(model, count):
  few = SQUARE[:count]
  target = transforms.apply(MATRICES[model], few)
  np.testing.assert_allclose(transforms.fit(model, few, target), MATRICES[model], atol=1e-6)
  assert transforms.fit(model, few[1:], target[1:]) is None


@pytest.mark.parametrize('model', [Model.SIMILARITY, Model.AFFINE])
def test_fit_of_coinciding_points(model):
  assert transforms.fit(model, np.zeros((6, 2)), SQUARE[[0, 1, 2, 3, 4, 0]]) is None


@pytest.mark.parametrize('scale', [1e-7, 1, 1e5])
def test_points_on_a_line_determine_no_affine_transform_in_any_unit(scale):
  square = scale * np.tile(SQUARE, (10, 1))
  np.testing.assert_allclose(
    transforms.fit(Model.AFFINE, square, square), np.eye(3), atol=1e-6 * max(scale, 1)
  )
  for line in LINES:
    assert transforms.fit(Model.AFFINE, scale * line, square[: len(line)]) is None


def test_what_is_the_same_everywhere():
  assert transforms.is_affine(np.eye(3))
  for model, matrix in MATRICES.items():
    assert transforms.is_affine(matrix) == (model is not Model.HOMOGRAPHY)
  for last_row in ([0.1, 0, 1], [0, 0.1, 1], [0.1, 0.1, 1], [-0.1, -0.1, 1], [0, 0, 2], [0, 0, 0.5]):
    assert not transforms.is_affine(np.array([[1, 0, 0], [0, 1, 0], last_row]))


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


def test_what_mirrors_is_not_plausible_beyond_its_horizon_either():
  matrix = np.array([[-1, 0, 0], [0, 1, 0], [-0.01, 0, 1]])
  points = np.array([[20, 10], [150, 0], [300, 50]], float)
  assert not transforms.plausible(matrix, points, Limits()).any()


@pytest.mark.parametrize(
  ('down', 'across', 'is_plausible'),
  [
    (9.9, 9.9, True),
    (10.1, 10.1, False),
    (1 / 9.9, 1 / 9.9, True),
    (1 / 10.1, 1 / 10.1, False),
    (3.9, 1, True),
    (4.1, 1, False),
    (0.5, 1.9, True),
    (0.5, 2.1, False),
  ],
)
def test_plausible_within_the_limits(down, across, is_plausible):
  turn = np.array([[0.8, -0.6], [0.6, 0.8]])
  matrix = np.eye(3)
  matrix[:2, :2] = turn @ np.diag([down, across]) @ turn
  found = transforms.plausible(matrix, SQUARE, Limits(max_scale=10, max_anisotropy=4))
  assert found.tolist() == [is_plausible] * len(SQUARE)


def test_a_matrix_that_is_not_finite_is_never_plausible():
  assert not transforms.plausible(np.full((3, 3), np.nan), SQUARE, Limits()).any()


def test_extent_is_the_deviation_across_the_main_direction():
  rectangle = np.array([[-3, -50], [3, -50], [-3, 50], [3, 50], [-3, 0], [3, 0]])
  tilted = rectangle @ np.array([[0.8, -0.6], [0.6, 0.8]]) + [300, 400]
  assert transforms.have_extent(tilted, tilted, Limits(min_spread=2.99))
  assert not transforms.have_extent(tilted, tilted, Limits(min_spread=3.01))
  for line in LINES:
    assert not transforms.have_extent(line, line, Limits(min_spread=0.01))


def test_extent():
  limits = Limits(min_spread=2)
  line = np.column_stack([np.arange(10), 3 * np.arange(10)]).astype(float)
  assert transforms.have_extent(SQUARE, SQUARE, limits)
  assert not transforms.have_extent(SQUARE, np.tile(line, (1, 1))[:5], limits)
  assert not transforms.have_extent(np.zeros((0, 2)), np.zeros((0, 2)), limits)
