"""Spatial verification: which putative matches agree on one transform between two images."""

import dataclasses
import enum
from collections.abc import Callable

import cv2
import numpy as np

from delf_d2r.errors import UserError
from delf_d2r.geometry import refinement, transforms
from delf_d2r.geometry.significance import least_inliers
from delf_d2r.geometry.transforms import MINIMAL_PAIRS, Limits, Model

# Probability of having met a sample without outliers before the search stops early.
_CONFIDENCE = 0.999


class Estimator(enum.Enum):
  """Who searches for the transform among outliers."""

  USAC = 'usac'  # OpenCV's USAC framework
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
    max_false_alarms: nor with so few that more transforms than this are expected to have them by chance; see
      significance.py.
    limits: what no transform between two photos does.
    seed: of the model's own samples.
  """

  model: Model = Model.AFFINE
  estimator: Estimator = Estimator.USAC
  max_residual: float = 10.0
  trials: int = 1000
  min_inliers: int = 5
  max_false_alarms: float = 0.01
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


def verify(
  query: np.ndarray, index: np.ndarray, options: Options, *, credible: np.ndarray | None = None
) -> Verification:
  """Searches for the transform that most credible matches agree with.

  Samples of the model are drawn. Unless half of the matches agree then, samples of two matches are drawn too,
  which make a similarity, are free of outliers sooner, and have the model fitted to what they find (Philbin
  et al., CVPR 2007, section 3.2). What either finds is fitted anew to its inliers for as long as these grow
  or come nearer (the local optimisation of Chum, Matas, Kittler, DAGM 2003).

  An inlier is a match within `max_residual`, whoever searched. Several matches between one pixel and another,
  as of a keypoint with two orientations, count once.

  Args:
    query, index: [P, 2], `(y, x)` of the matched features in pixels of their images, nearest descriptors
      first: they stay where several share a pixel. A match that is not finite agrees with nothing.
    options: how.
    credible: bool [P], the matches to search among, so many of which must agree; None: all. Others that agree
      are inliers, too.

  Raises:
    ValueError: the estimator does not know the model.
    UserError: the estimator is not installed.
  """
  usable = np.isfinite(query).all(axis=1) & np.isfinite(index).all(axis=1)
  chosen = np.flatnonzero(usable if credible is None else usable & credible)
  places = _places(query, index, chosen)
  needed = max(options.min_inliers, MINIMAL_PAIRS[options.model])
  needed = least_inliers(
    places[1],
    options.model,
    needed,
    max_residual=options.max_residual,
    max_false_alarms=options.max_false_alarms,
  )
  matrix, inliers = _best(_searches(options), *places, options, needed)
  if len(inliers) and len(chosen) < usable.sum():
    is_one_plane = 2 * len(inliers) >= len(chosen)
    chosen = np.flatnonzero(usable)
    places = _places(query, index, chosen)
    agree = transforms.residuals(matrix, *places) <= options.max_residual
    inliers = refinement.inliers(matrix, *places, agree, options.limits)
    if not is_one_plane:
      # Of several planes another one may have more matches in all. Few pairs of images come so far.
      other, more = _best(_searches(options)[:1], *places, options, len(inliers) + 1)
      if len(more):
        matrix, inliers = other, more
  return Verification(matrix, chosen[inliers])


def _places(query: np.ndarray, index: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """float64 [P, 2] each: source in the index image and target in the query of some of the matches."""
  return index[chosen].astype(np.float64), query[chosen].astype(np.float64)


def _best(
  searches: list[Callable], source: np.ndarray, target: np.ndarray, options: Options, needed: int
) -> tuple[np.ndarray, np.ndarray]:
  """The transform [3, 3] of most inliers and these, int64 [I]; zeros and none with fewer than `needed`."""
  best, most = np.zeros((3, 3)), np.zeros(0, np.int64)
  if len(source) < needed:
    return best, most
  # OpenCV and pydegensac want (x, y).
  turned = np.ascontiguousarray(source[:, ::-1]), np.ascontiguousarray(target[:, ::-1])
  for search in searches:
    found = search(*turned, options)
    if found is None or not np.isfinite(found).all() or (len(found) == 3 and found[2, 2] == 0):
      continue
    matrix, agree = refinement.polish(_as_matrix(found), source, target, options.model, options.max_residual)
    least = max(needed, len(most) + 1)
    if np.count_nonzero(agree) < least:
      continue
    inliers = refinement.inliers(matrix, source, target, agree, options.limits)
    if len(inliers) >= least and transforms.have_extent(source[inliers], target[inliers], options.limits):
      best, most = matrix, inliers
    if 2 * len(most) >= len(source):
      break
  return best, most


def _searches(options: Options) -> list[Callable]:
  """The searches to try, each from (x, y) of index image and query to [2, 3], [3, 3] or None."""
  if options.estimator is Estimator.DEGENSAC:
    if options.model is not Model.HOMOGRAPHY:
      raise ValueError(f'pydegensac estimates homographies; expected HOMOGRAPHY, found {options.model.name}')
    return [_degensac]
  own = {Model.SIMILARITY: [], Model.AFFINE: [_affine], Model.HOMOGRAPHY: [_homography]}
  return [*own[options.model], _similarity]


def _similarity(source: np.ndarray, target: np.ndarray, options: Options) -> np.ndarray | None:
  # USAC has no similarity. This RANSAC always starts from the same state of its own.
  matrix, _ = cv2.estimateAffinePartial2D(
    source,
    target,
    method=cv2.RANSAC,
    ransacReprojThreshold=options.max_residual,
    maxIters=options.trials,
    confidence=_CONFIDENCE,
    refineIters=0,
  )
  return matrix


def _affine(source: np.ndarray, target: np.ndarray, options: Options) -> np.ndarray | None:
  matrix, _ = cv2.estimateAffine2D(source, target, _usac(options))
  return matrix


def _homography(source: np.ndarray, target: np.ndarray, options: Options) -> np.ndarray | None:
  matrix, _ = cv2.findHomography(source, target, _usac(options))
  return matrix


def _usac(options: Options) -> cv2.UsacParams:
  params = cv2.UsacParams()
  # With the scores of MAGSAC++ it settles for the nearest half of the inliers where a plane is seen in strong
  # perspective (129 of 180 between two views of HPatches).
  params.score = cv2.SCORE_METHOD_MSAC
  params.loMethod = cv2.LOCAL_OPTIM_INNER_AND_ITER_LO
  # Nearest descriptors first (Chum, Matas, CVPR 2005).
  params.sampler = cv2.SAMPLING_PROSAC
  params.threshold = options.max_residual
  params.maxIterations = options.trials
  params.confidence = _CONFIDENCE
  params.randomGeneratorState = options.seed
  return params


def _degensac(source: np.ndarray, target: np.ndarray, options: Options) -> np.ndarray | None:
  try:
    import pydegensac
  except ImportError:
    raise UserError(
      'estimator DEGENSAC needs the package pydegensac. Install it (pip install pydegensac) or choose USAC'
    ) from None
  matrix, _ = pydegensac.findHomography(source, target, options.max_residual, _CONFIDENCE, options.trials)
  return matrix


def _as_matrix(found: np.ndarray) -> np.ndarray:
  """[2, 3] or [3, 3] for (x, y, 1) as float64 [3, 3] for (y, x, 1)."""
  matrix = np.eye(3)
  matrix[: len(found)] = found
  return matrix[[1, 0, 2]][:, [1, 0, 2]] / matrix[2, 2]
