"""From a transform that a search has found to its inliers: fitted anew, plausible, each place once."""

import numpy as np

from delf_d2r.geometry import transforms
from delf_d2r.geometry.transforms import Limits, Model

# Rounds of fitting anew to the inliers; few pairs of images need more than five.
_MAX_POLISHES = 10


def polish(
  matrix: np.ndarray, source: np.ndarray, target: np.ndarray, model: Model, max_residual: float
) -> tuple[np.ndarray, np.ndarray]:
  """The transform fitted to its own inliers for as long as that is better (Chum, Matas, Kittler, DAGM 2003).

  Args:
    matrix: float64 [3, 3], takes homogeneous `(y, x, 1)` of the index image to the query image.
    source, target: float64 [P, 2], `(y, x)` in pixels of index image and query image.
    model: the kind of transform.
    max_residual: pixels of the query image within which a match agrees.

  Returns:
    The transform, float64 [3, 3], and bool [P], the matches that agree with it.
  """
  residuals = transforms.residuals(matrix, source, target)
  agree = residuals <= max_residual
  goodness = _goodness(residuals, agree, max_residual)
  for _ in range(_MAX_POLISHES):
    candidate = transforms.fit(model, source[agree], target[agree])
    if candidate is None:
      break
    residuals = transforms.residuals(candidate, source, target)
    nearer = residuals <= max_residual
    previous, goodness = goodness, _goodness(residuals, nearer, max_residual)
    if goodness <= previous:
      break
    matrix, agree = candidate, nearer
  return matrix, agree


def _goodness(residuals: np.ndarray, agree: np.ndarray, max_residual: float) -> tuple[int, float]:
  """More inliers are better, then nearer ones: the cost of MSAC (Torr, Zisserman, CVIU 2000)."""
  limited = np.minimum(residuals, max_residual)
  return int(np.count_nonzero(agree)), -float(limited @ limited)


def inliers(
  matrix: np.ndarray, source: np.ndarray, target: np.ndarray, agree: np.ndarray, limits: Limits
) -> np.ndarray:
  """int64 [I], ascending: the matches that `agree` where the transform is plausible, of a pixel the first.

  Arguments as of `polish`; `agree` is bool [P].
  """
  found = np.flatnonzero(agree & transforms.plausible(matrix, source, limits))
  for points in (source, target):
    rows, columns = np.floor(points[found]).astype(np.int64).T
    _, first = np.unique(rows * 2**31 + columns, return_index=True)
    found = found[np.sort(first)]
  return found
