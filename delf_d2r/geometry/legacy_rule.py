"""The reference rule of spatial verification, for comparable numbers.

It is that of the tensorflow/models DELF code (docs/reference.md 4.7).
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from delf_d2r.geometry.matching import PutativeMatches
from delf_d2r.geometry.verification import Verification

# With so many matches or fewer, nothing is verified.
_TOO_FEW = 3
_MIN_SAMPLES = 3


def match(
  query: npt.NDArray[np.float32], index: npt.NDArray[np.float32], *, max_distance: float
) -> PutativeMatches:
  """Matches each feature of the query with its nearest neighbour, by a k-d tree; several may share one.

  Args:
    query: float32 [N, D].
    index: float32 [M, D].
    max_distance: the distance that pairs must be below.

  Returns:
    Pairs in the order of the query's features.
  """
  # Libraries are imported where they are used, since few verify by this rule and all searches import it.
  from scipy.spatial import cKDTree

  distances, neighbours = cKDTree(index).query(query, distance_upper_bound=max_distance)
  kept = np.flatnonzero(np.isfinite(distances))
  return PutativeMatches(
    kept,
    neighbours[kept].astype(np.int64),
    distances[kept].astype(np.float32),
    np.ones(len(kept), bool),
  )


def verify(
  query: npt.NDArray[np.floating],
  index: npt.NDArray[np.floating],
  *,
  max_residual: float,
  trials: int,
  seed: int,
) -> Verification:
  """Finds an affine transform by scikit-image's RANSAC, and all matches within `max_residual` of it.

  Args:
    query, index: float [P, 2], `(y, x)` of the matched features in pixels of their images.
    max_residual: pixels of the query image.
    trials: samples of three matches that are drawn.
    seed: of the samples.
  """
  if len(query) <= _TOO_FEW:
    return Verification.nothing()
  from skimage import measure, transform

  ransac: Callable[..., Any] = measure.ransac  # scikit-image has no type for it
  with warnings.catch_warnings():
    # scikit-image warns of samples on a line, which are only skipped.
    warnings.simplefilter('ignore')
    model, agree = ransac(
      (index, query),
      transform.AffineTransform,
      min_samples=_MIN_SAMPLES,
      residual_threshold=max_residual,
      max_trials=trials,
      rng=seed,
    )
  if agree is None or not agree.any():
    return Verification.nothing()
  return Verification(np.asarray(model.params, np.float64), np.flatnonzero(agree))
