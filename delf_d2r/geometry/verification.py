"""Spatial verification: which putative matches agree on one transform between two images."""

import dataclasses
import enum

import cv2
import numpy as np

from delf_d2r.geometry import transforms
from delf_d2r.geometry.transforms import MINIMAL_PAIRS, Limits, Model

# Probability of having met a sample without outliers before the search stops early.
_CONFIDENCE = 0.999
# Rounds of fitting anew to the inliers. More were never seen to find any.
_MAX_POLISHES = 5


class Estimator(enum.Enum):
  """Who searches for the transform among outliers."""

  MAGSAC = 'magsac'  # OpenCV's USAC framework with MAGSAC++ scores
  DEGENSAC = 'degensac'  # pydegensac's LO-RANSAC; it takes no seed, so two runs may differ


@dataclasses.dataclass(frozen=True)
class Options:
  """How matches are verified.

  Attributes:
    model: the kind of transform.
    estimator: who searches for it. DEGENSAC knows homographies only.
    max_residual: pixels of the query image within which a match agrees.
    trials: the most samples that are drawn.
    min_inliers: with fewer, nothing is verified.
    limits: what no transform between two photos does.
    seed: of the samples.
  """

  model: Model = Model.AFFINE
  estimator: Estimator = Estimator.MAGSAC
  max_residual: float = 10.0
  trials: int = 1000
  min_inliers: int = 5
  limits: Limits = dataclasses.field(default_factory=Limits)
  seed: int = 0


@dataclasses.dataclass(frozen=True)
class Verification:
  """The outcome for one pair of images.

  Attributes:
    matrix: float64 [3, 3], takes homogeneous `(y, x, 1)` of the index image to the query image. Zeros if
      nothing is verified.
    inliers: int64 [I], ascending, the matches that agree with it, each place of either image once.
  """

  matrix: np.ndarray
  inliers: np.ndarray

  def __len__(self) -> int:
    return len(self.inliers)

  @classmethod
  def nothing(cls) -> 'Verification':
    """No transform, no inliers."""
    return cls(np.zeros((3, 3)), np.zeros(0, np.int64))


def verify(query: np.ndarray, index: np.ndarray, options: Options) -> Verification:
  """Searches for the transform that most matches agree with.

  Samples are drawn by the estimator; whatever it returns is fitted anew to its inliers until these stay the
  same (the local optimisation of Chum, Matas, Kittler, DAGM 2003), and an inlier is a match within
  `max_residual` whichever the estimator. Several matches between one pixel and another, as of a keypoint with
  two orientations, count once.

  Args:
    query, index: [P, 2], `(y, x)` of the matched features in pixels of their images, nearest descriptors
      first. A match that is not finite agrees with nothing.
    options: how.
  """
  finite = np.flatnonzero(np.isfinite(query).all(axis=1) & np.isfinite(index).all(axis=1))
  needed = max(options.min_inliers, MINIMAL_PAIRS[options.model])
  if len(finite) < needed:
    return Verification.nothing()
  source, target = index[finite].astype(np.float64), query[finite].astype(np.float64)
  matrix = _search(source, target, options)
  if matrix is None:
    return Verification.nothing()
  matrix, agree = _polish(matrix, source, target, options)
  inliers = np.flatnonzero(agree & transforms.plausible(matrix, source, options.limits))
  inliers = inliers[_distinct(source[inliers], target[inliers])]
  found = source[inliers], target[inliers]
  if len(inliers) < needed or not transforms.have_extent(*found, options.limits):
    return Verification.nothing()
  return Verification(matrix, finite[inliers])


def _search(source: np.ndarray, target: np.ndarray, options: Options) -> np.ndarray | None:
  """The transform that an estimator finds; None if it gives up."""
  # OpenCV and pydegensac want (x, y).
  source, target = np.ascontiguousarray(source[:, ::-1]), np.ascontiguousarray(target[:, ::-1])
  if options.estimator is Estimator.DEGENSAC:
    found = _degensac(source, target, options)
  elif options.model is Model.SIMILARITY:
    # USAC has no similarity. This RANSAC always starts from the same state of its own.
    found, _ = cv2.estimateAffinePartial2D(
      source,
      target,
      method=cv2.RANSAC,
      ransacReprojThreshold=options.max_residual,
      maxIters=options.trials,
      confidence=_CONFIDENCE,
    )
  elif options.model is Model.AFFINE:
    found, _ = cv2.estimateAffine2D(source, target, _usac(options))
  else:
    found, _ = cv2.findHomography(source, target, _usac(options))
  if found is None or not np.isfinite(found).all():
    return None
  matrix = np.eye(3)
  matrix[: len(found)] = found
  if matrix[2, 2] == 0:
    return None
  # (x, y, 1) to (y, x, 1) on both sides.
  return matrix[[1, 0, 2]][:, [1, 0, 2]] / matrix[2, 2]


def _usac(options: Options) -> cv2.UsacParams:
  params = cv2.UsacParams()
  params.score = cv2.SCORE_METHOD_MAGSAC
  params.loMethod = cv2.LOCAL_OPTIM_SIGMA
  params.final_polisher = cv2.COV_POLISHER
  params.threshold = options.max_residual
  params.maxIterations = options.trials
  params.confidence = _CONFIDENCE
  params.randomGeneratorState = options.seed
  return params


def _degensac(source: np.ndarray, target: np.ndarray, options: Options) -> np.ndarray | None:
  if options.model is not Model.HOMOGRAPHY:
    raise ValueError(f'pydegensac estimates homographies; expected HOMOGRAPHY, found {options.model.name}')
  try:
    import pydegensac
  except ImportError:
    raise ImportError(
      'estimator DEGENSAC needs the package pydegensac. Install it (pip install pydegensac) or choose MAGSAC'
    ) from None
  matrix, _ = pydegensac.findHomography(source, target, options.max_residual, _CONFIDENCE, options.trials)
  return matrix


def _polish(
  matrix: np.ndarray, source: np.ndarray, target: np.ndarray, options: Options
) -> tuple[np.ndarray, np.ndarray]:
  """The transform fitted to its own inliers for as long as they grow, and bool [P], its inliers."""
  agree = transforms.residuals(matrix, source, target) <= options.max_residual
  for _ in range(_MAX_POLISHES):
    candidate = transforms.fit(options.model, source[agree], target[agree])
    if candidate is None:
      break
    now = transforms.residuals(candidate, source, target) <= options.max_residual
    if now.sum() < agree.sum():
      break
    settled = np.array_equal(now, agree)
    matrix, agree = candidate, now
    if settled:
      break
  return matrix, agree


def _distinct(source: np.ndarray, target: np.ndarray) -> np.ndarray:
  """int64 [I]: the first match of each pixel of either image, ascending."""
  kept = np.arange(len(source))
  for points in (source, target):
    _, first = np.unique(np.floor(points[kept]), axis=0, return_index=True)
    kept = kept[np.sort(first)]
  return kept
