"""Plane transforms between two images: their fit without outliers, application and plausibility.

A transform is float64 [3, 3] and acts on homogeneous `(y, x, 1)` in pixels; the last entry is 1.
"""

import dataclasses
import enum
import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]  # [3, 3]
Points = npt.NDArray[np.float64]  # [P, 2], `(y, x)` in pixels


class Model(enum.Enum):
  """The kind of transform between two photos of a plane."""

  SIMILARITY = 'similarity'  # rotation, one scale, translation
  AFFINE = 'affine'
  HOMOGRAPHY = 'homography'


# The number of pairs of points that determine each.
MINIMAL_PAIRS = {Model.SIMILARITY: 2, Model.AFFINE: 3, Model.HOMOGRAPHY: 4}


@dataclasses.dataclass(frozen=True)
class Limits:
  """Bounds of a transform between two photos of one object, at the places of the matches.

  Attributes:
    max_scale: the largest change of length; its inverse is the smallest one.
    max_anisotropy: the largest ratio of the changes of length in two directions.
    min_spread: the least standard deviation of the points across their main direction, in pixels, in both
      images, since points on a line or in one place agree with any transform.
  """

  max_scale: float = 10.0
  max_anisotropy: float = 4.0
  min_spread: float = 2.0


def apply(matrix: Matrix, points: Points) -> Points:
  """Maps `points` [P, 2] to the other image: float64 [P, 2], not finite where they are mapped to infinity."""
  moved: Points = points @ matrix[:2, :2].T + matrix[:2, 2]
  if is_affine(matrix):
    return moved
  with np.errstate(divide='ignore', invalid='ignore'):
    projected: Points = moved / (points @ matrix[2, :2] + matrix[2, 2])[:, None]
  return projected


def is_affine(matrix: Matrix) -> bool:
  """Returns whether the linear part of a transform is the same everywhere."""
  return bool(matrix[2, 0] == matrix[2, 1] == 0 and matrix[2, 2] == 1)


def residuals(matrix: Matrix, source: Points, target: Points) -> npt.NDArray[np.float64]:
  """Returns the distance of each mapped source point to its target: pixels, float64 [P], infinite for NaN."""
  apart = apply(matrix, source) - target
  distances: npt.NDArray[np.float64] = np.sqrt(np.einsum('pd,pd->p', apart, apart))
  return np.where(np.isnan(distances), np.inf, distances)


def fit(model: Model, source: Points, target: Points) -> Matrix | None:
  """Returns the least-squares transform of float64 [P, 2] points; None if they do not determine one.

  The similarity is that of Umeyama (PAMI 1991) without reflections.
  """
  if len(source) < MINIMAL_PAIRS[model]:
    return None
  if model is Model.HOMOGRAPHY:
    found: Any = cv2.findHomography(source, target, 0)[0]  # None, too, of which its types do not know
    homography: Matrix | None = found
    return homography
  middles = source.sum(axis=0) / len(source), target.sum(axis=0) / len(target)
  a, b = source - middles[0], target - middles[1]
  if model is Model.AFFINE:
    (yy, yx), (_, xx) = (a.T @ a).tolist()
    determinant = yy * xx - yx * yx
    if determinant <= 1e-9 * (yy + xx) ** 2:
      return None
    linear = b.T @ a @ np.array([[xx, -yx], [-yx, yy]]) / determinant
  else:
    power = (a * a).sum()
    if power == 0:
      return None
    along, across = (a * b).sum() / power, (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / power
    linear = np.array([[along, -across], [across, along]])
  matrix = np.eye(3)
  matrix[:2, :2] = linear
  matrix[:2, 2] = middles[1] - linear @ middles[0]
  return matrix


def plausible(matrix: Matrix, points: Points, limits: Limits) -> npt.NDArray[np.bool_]:
  """Returns at which points [P, 2] a transform is one between two photos of one object: bool [P].

  It is not where it mirrors, nor where it changes size or shape beyond the limits. An affine transform is
  the same everywhere; for a homography the linear part at each point is tested.
  """
  if not np.isfinite(matrix).all():
    return np.zeros(len(points), bool)
  if is_affine(matrix) and len(points) > 1:
    return np.repeat(plausible(matrix, points[:1], limits), len(points))
  depths = points @ matrix[2, :2] + matrix[2, 2]
  with np.errstate(all='ignore'):
    moved = apply(matrix, points)
    linear = (matrix[:2, :2] - moved[:, :, None] * matrix[2, :2]) / depths[:, None, None]
  # Singular values of 2 x 2 matrices; the smaller has the sign of the determinant.
  (a, b), (c, d) = linear[:, 0].T, linear[:, 1].T
  half_sum = np.hypot(a + d, c - b) / 2
  half_difference = np.hypot(a - d, c + b) / 2
  larger, smaller = half_sum + half_difference, half_sum - half_difference
  fits: npt.NDArray[np.bool_] = (larger <= limits.max_scale) & (smaller * limits.max_scale >= 1)
  fits &= (larger <= limits.max_anisotropy * smaller) & (depths > 0)
  return fits


def have_extent(source: Points, target: Points, limits: Limits) -> bool:
  """Returns whether inliers [I, 2] spread in both images, without which any transform agrees with them."""
  return bool(len(source)) and min(_spread(source), _spread(target)) >= limits.min_spread


def _spread(points: Points) -> float:
  """Returns the standard deviation of points [P, 2] across their main direction."""
  centred = points - points.sum(axis=0) / len(points)
  (yy, yx), (_, xx) = (centred.T @ centred / len(points)).tolist()
  # The smaller eigenvalue.
  return math.sqrt(max((yy + xx - math.hypot(yy - xx, 2 * yx)) / 2, 0))
