"""Plane transforms between two images: fitting without outliers, applying, and what no photo can show.

A transform is float64 [3, 3] and acts on homogeneous `(y, x, 1)` in pixels; the last entry is 1.
"""

import dataclasses
import enum
import math

import cv2
import numpy as np


class Model(enum.Enum):
  """What may lie between two photos of a plane."""

  SIMILARITY = 'similarity'  # rotation, one scale, translation
  AFFINE = 'affine'
  HOMOGRAPHY = 'homography'


# Pairs of points that determine each.
MINIMAL_PAIRS = {Model.SIMILARITY: 2, Model.AFFINE: 3, Model.HOMOGRAPHY: 4}


@dataclasses.dataclass(frozen=True)
class Limits:
  """What a transform between two photos of one object may do where the matches are.

  Attributes:
    max_scale: the largest change of length, and its inverse the smallest.
    max_anisotropy: the largest ratio of the two.
    min_spread: the least standard deviation of the points across their main direction, in pixels, in both
      images: points on a line or in one place agree with anything.
  """

  max_scale: float = 10.0
  max_anisotropy: float = 4.0
  min_spread: float = 2.0


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
  """float64 [P, 2]: `points` [P, 2] in the other image; not finite where they go to infinity."""
  moved = points @ matrix[:2, :2].T + matrix[:2, 2]
  if is_affine(matrix):
    return moved
  with np.errstate(divide='ignore', invalid='ignore'):
    return moved / (points @ matrix[2, :2] + matrix[2, 2])[:, None]


def is_affine(matrix: np.ndarray) -> bool:
  """Whether a transform is the same everywhere."""
  return matrix[2, 0] == matrix[2, 1] == 0 and matrix[2, 2] == 1


def residuals(matrix: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
  """float64 [P]: pixels between where each source point goes and its target; infinite if nowhere."""
  apart = apply(matrix, source) - target
  distances = np.sqrt(np.einsum('pd,pd->p', apart, apart))
  return np.where(np.isnan(distances), np.inf, distances)


def fit(model: Model, source: np.ndarray, target: np.ndarray) -> np.ndarray | None:
  """The least-squares transform of float64 [P, 2] points; None if they do not determine one.

  The similarity is that of Umeyama (PAMI 1991) without its reflections.
  """
  if len(source) < MINIMAL_PAIRS[model]:
    return None
  if model is Model.HOMOGRAPHY:
    matrix, _ = cv2.findHomography(source, target, 0)
    return matrix
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


def plausible(matrix: np.ndarray, points: np.ndarray, limits: Limits) -> np.ndarray:
  """bool [P]: at which points [P, 2] a transform does what can lie between two photos of one object.

  It can not where it mirrors, nor where it changes size or shape beyond the limits. An affine transform is
  the same everywhere; of a homography the linear part at each point is judged.
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
  fits = (larger <= limits.max_scale) & (smaller * limits.max_scale >= 1)
  return fits & (larger <= limits.max_anisotropy * smaller) & (depths > 0)


def have_extent(source: np.ndarray, target: np.ndarray, limits: Limits) -> bool:
  """Whether inliers [I, 2] spread in both images, so that their agreement means something."""
  return bool(len(source)) and min(_spread(source), _spread(target)) >= limits.min_spread


def _spread(points: np.ndarray) -> float:
  """The standard deviation of points [P, 2] across their main direction."""
  centred = points - points.sum(axis=0) / len(points)
  (yy, yx), (_, xx) = (centred.T @ centred / len(points)).tolist()
  # The smaller eigenvalue.
  return math.sqrt(max((yy + xx - math.hypot(yy - xx, 2 * yx)) / 2, 0))
