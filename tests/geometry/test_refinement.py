"""From a transform to its inliers: fitted anew while that is better, each place once."""

import numpy as np

from delf_d2r.geometry import refinement, transforms
from delf_d2r.geometry.transforms import Limits, Model

CORNERS = np.array([[0, 0], [0, 100], [100, 0], [100, 100]], float)
SHIFTED = np.array([[1, 0, 0], [0, 1, 0.5], [0, 0, 1]])


def test_a_fit_gathers_what_lies_exactly_at_the_residual():
  source = np.concatenate([CORNERS, [[50, 0], [50, 100]]])
  target = source + np.array([[0, 0]] * 4 + [[1, 0], [-1, 0]])
  _, agree = refinement.polish(SHIFTED, source, target, Model.SIMILARITY, 1.0)
  assert transforms.residuals(SHIFTED, source, target)[4:].min() > 1
  assert agree.all()


def test_a_transform_without_enough_matches_stays():
  matrix, agree = refinement.polish(SHIFTED, CORNERS, CORNERS + np.array([20, 0]), Model.AFFINE, 1.0)
  np.testing.assert_array_equal(matrix, SHIFTED)
  assert not agree.any()


def test_each_pixel_of_either_image_counts_once():
  source = np.array([[1.2, -0.5], [2.5, -0.5], [1.7, -0.1], [1.2, 40.9], [7, 8], [1e6, 1e6]])
  target = np.array([[1.2, -0.5], [2.5, -0.5], [9.5, 9.5], [1.5, 40.1], [1.9, 40.8], [1e6, 1e6]])
  agree = np.ones(6, bool)
  assert refinement.inliers(np.eye(3), source, target, agree, Limits()).tolist() == [0, 1, 3, 5]
  agree[0] = False
  assert refinement.inliers(np.eye(3), source, target, agree, Limits()).tolist() == [1, 2, 3, 5]


def test_inliers_are_where_the_transform_is_plausible():
  matrix = np.array([[1, 0, 0], [0, 1, 0], [-0.012, 0, 1]])
  found = refinement.inliers(matrix, CORNERS, CORNERS, np.ones(4, bool), Limits())
  assert found.tolist() == [0, 1]
