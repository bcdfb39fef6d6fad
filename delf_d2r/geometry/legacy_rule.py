"""Spatial verification as the research code does it (docs/reference.md 4.7), for comparable numbers."""

import warnings

import numpy as np
from scipy.spatial import cKDTree
from skimage import measure, transform

from delf_d2r.geometry.matching import PutativeMatches
from delf_d2r.geometry.verification import Verification

# So many matches or fewer are not tried.
_TOO_FEW = 3
_MIN_SAMPLES = 3


def match(query: np.ndarray, index: np.ndarray, *, max_distance: float) -> PutativeMatches:
  """The nearest neighbour of each feature of the query, through a k-d tree; several may share one.

  Args:
    query: float32 [N, D].
    index: float32 [M, D].
    max_distance: pairs must be nearer than this.

  Returns:
    Pairs in the order of the query's features.
  """
  distances, neighbours = cKDTree(index).query(query, distance_upper_bound=max_distance)
  kept = np.flatnonzero(np.isfinite(distances))
  return PutativeMatches(
    kept,
    neighbours[kept].astype(np.int64),
    distances[kept].astype(np.float32),
    np.ones(len(kept), bool),
  )


def verify(
  query: np.ndarray, index: np.ndarray, *, max_residual: float, trials: int, seed: int
) -> Verification:
  """The affine transform that scikit-image's RANSAC finds, and all matches within `max_residual` of it.

  Args:
    query, index: [P, 2], `(y, x)` of the matched features in pixels of their images.
    max_residual: pixels of the query image.
    trials: samples of three matches that are drawn.
    seed: of the samples.
  """
  if len(query) <= _TOO_FEW:
    return Verification.nothing()
  with warnings.catch_warnings():
    # Samples on a line are none of our business here.
    warnings.simplefilter('ignore')
    model, agree = measure.ransac(
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
