"""Spatial verification: finds the putative matches that agree on one transform between two images.

`verify` searches for the transform among the credible matches (sampling.py for affine transforms and
similarities, OpenCV's or pydegensac's searches for homographies, which `polish` then fits again to their
inliers), and keeps the inliers where it is plausible, each pixel once (`inliers`). Fewer inliers than chance
explains verify nothing (`least_inliers`).
"""

import dataclasses
import enum
import functools
import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from delf_d2r.errors import UserError
from delf_d2r.geometry import sampling, transforms
from delf_d2r.geometry.transforms import MINIMAL_PAIRS, Limits, Matrix, Model, Points

# The probability of having drawn a sample without outliers that ends the search early.
_CONFIDENCE = 0.999
# Rounds of fitting to the inliers; few pairs of images need more than five.
_MAX_POLISHES = 10


class Estimator(enum.Enum):
  """The method that searches for the transform among outliers."""

  USAC = 'usac'  # the RANSAC of sampling.py; for homographies OpenCV's USAC framework
  DEGENSAC = 'degensac'  # pydegensac's LO-RANSAC; it takes no seed, so two runs may differ


@dataclasses.dataclass(frozen=True)
class Options:
  """How matches are verified.

  Attributes:
    model: the kind of transform.
    estimator: the method that searches for it. DEGENSAC estimates homographies only.
    max_residual: pixels of the query image within which a match agrees.
    trials: the largest number of samples that are drawn.
    min_inliers: with fewer inliers, nothing is verified.
    max_false_alarms: with so few inliers that more transforms than this are expected to have them by chance,
      nothing is verified either; see `least_inliers`.
    limits: what a transform between two photos cannot exceed.
    seed: of the samples of the model.
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

  matrix: Matrix
  inliers: npt.NDArray[np.int64]

  def __len__(self) -> int:
    return len(self.inliers)

  @classmethod
  def nothing(cls) -> 'Verification':
    """Returns the outcome without a transform and without inliers."""
    return cls(np.zeros((3, 3)), np.zeros(0, np.int64))


# From source in the index image and target in the query to transforms, each fitted to the matches that agree
# with it, and how many these are, in descending order.
_Search = Callable[[Points, Points, Options], list[tuple[Matrix, int]]]


def verify(
  query: npt.NDArray[np.floating],
  index: npt.NDArray[np.floating],
  options: Options,
  *,
  credible: npt.NDArray[np.bool_] | None = None,
) -> Verification:
  """Searches for the transform that most credible matches agree with.

  Samples of the model are drawn. Unless half of the matches agree then, samples of two matches are drawn,
  too, which determine a similarity and are more often free of outliers; the model is fitted to what they find
  (Philbin et al., CVPR 2007, section 3.2). The results of either search are fitted again to their inliers for
  as long as these grow in number or come nearer (the local optimisation of Chum, Matas, Kittler, DAGM 2003).

  An inlier is a match within `max_residual`, whichever search found the transform. Several matches between
  one pixel and another, for example of a keypoint with two orientations, count once.

  Args:
    query, index: float [P, 2], `(y, x)` of the matched features in pixels of their images, nearest
      descriptors first: of several matches that share a pixel, the first is kept. A match that is not finite
      agrees with nothing.
    options: how to verify.
    credible: bool [P], the matches to search among, `min_inliers` of which must agree; None: all. Others that
      agree are inliers, too.

  Raises:
    ValueError: the estimator does not know the model.
    UserError: the estimator is not installed.
  """
  usable = np.isfinite(query).all(axis=1) & np.isfinite(index).all(axis=1)
  chosen = np.flatnonzero(usable if credible is None else usable & credible)
  places = _places(query, index, chosen)
  needed = least_inliers(
    places[1],
    options.model,
    max(options.min_inliers, MINIMAL_PAIRS[options.model]),
    max_residual=options.max_residual,
    max_false_alarms=options.max_false_alarms,
  )
  matrix, found = _best(_searches(options), *places, options, needed)
  if len(found) and len(chosen) < usable.sum():
    is_one_plane = 2 * len(found) >= len(chosen)
    chosen = np.flatnonzero(usable)
    places = _places(query, index, chosen)
    agree = transforms.residuals(matrix, *places) <= options.max_residual
    found = inliers(matrix, *places, agree, options.limits)
    if not is_one_plane:
      # Of several planes another one may have more matches in all. This happens to few pairs of images.
      other, more = _best(_searches(options)[:1], *places, options, len(found) + 1)
      if len(more):
        matrix, found = other, more
  return Verification(matrix, chosen[found])


def _places(
  query: npt.NDArray[np.floating], index: npt.NDArray[np.floating], chosen: npt.NDArray[np.int64]
) -> tuple[Points, Points]:
  """Returns source in the index image and target in the query of some matches, float64 [P, 2] each."""
  return index[chosen].astype(np.float64), query[chosen].astype(np.float64)


def _best(
  searches: list[_Search], source: Points, target: Points, options: Options, needed: int
) -> tuple[Matrix, npt.NDArray[np.int64]]:
  """Returns the transform [3, 3] of most inliers and these, int64 [I]; zeros and none below `needed`."""
  best, most = np.zeros((3, 3)), np.zeros(0, np.int64)
  if len(source) < needed:
    return best, most
  for search in searches:
    for matrix, count in search(source, target, options):
      least = max(needed, len(most) + 1)
      if count < least:
        break
      agree = transforms.residuals(matrix, source, target) <= options.max_residual
      kept = inliers(matrix, source, target, agree, options.limits)
      if len(kept) >= least and transforms.have_extent(source[kept], target[kept], options.limits):
        best, most = matrix, kept
      elif len(most):
        break
    if 2 * len(most) >= len(source):
      break
  return best, most


# The number of inliers that chance does not explain --------------------------------------------------


def least_inliers(
  target: Points, model: Model, least: int, *, max_residual: float, max_false_alarms: float
) -> int:
  """Returns the number of inliers from which on chance does not explain that matches agree.

  If all P matches were wrong, each would lie within r of where a transform takes it with probability
  p = pi r^2 / A. Of the transforms through s matches, at most (P - s) C(P, k) C(k, s) p^(k - s) would then be
  expected to gather k inliers (Moisan, Stival, IJCV 2004, the number of false alarms, here for one r).

  Args:
    target: float64 [P, 2], places in the query image. A is the area of the rectangle around them.
    model: the kind of transform; s matches determine one.
    least: a lower bound of the result.
    max_residual: r, pixels of the query image.
    max_false_alarms: the largest number of transforms that may be expected.

  Returns:
    The number, P + 1 if even P inliers can be chance.
  """
  count, samples = len(target), MINIMAL_PAIRS[model]
  if count < least:
    return least
  disc = math.pi * max_residual**2
  chance = disc / max(np.ptp(target, axis=0).prod(), disc)
  for number in range(least, count + 1):
    alarms = max(count - samples, 1) * math.comb(count, number) * math.comb(number, samples)
    if math.log(alarms) + (number - samples) * math.log(chance) <= math.log(max_false_alarms):
      return number
  return count + 1


# From a transform to its inliers ---------------------------------------------------------------------


def polish(
  matrix: Matrix, source: Points, target: Points, model: Model, max_residual: float
) -> tuple[Matrix, npt.NDArray[np.bool_]]:
  """Fits a transform to its own inliers for as long as that is better (Chum, Matas, Kittler, DAGM 2003).

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


def _goodness(
  residuals: npt.NDArray[np.float64], agree: npt.NDArray[np.bool_], max_residual: float
) -> tuple[int, float]:
  """Returns a sort key: more inliers are better, then lower cost of MSAC (Torr, Zisserman, CVIU 2000)."""
  limited = np.minimum(residuals, max_residual)
  return int(np.count_nonzero(agree)), -float(limited @ limited)


def inliers(
  matrix: Matrix, source: Points, target: Points, agree: npt.NDArray[np.bool_], limits: Limits
) -> npt.NDArray[np.int64]:
  """Selects the matches that agree where the transform is plausible, the first of those that share a pixel.

  Args:
    matrix, source, target: those of `polish`.
    agree: bool [P].
    limits: what a transform between two photos cannot exceed.

  Returns:
    int64 [I], ascending.
  """
  found = np.flatnonzero(agree & transforms.plausible(matrix, source, limits))
  for points in (source, target):
    rows, columns = np.floor(points[found]).astype(np.int64).T
    _, first = np.unique(rows * 2**31 + columns, return_index=True)
    found = found[np.sort(first)]
  return found


# Searches among outliers -----------------------------------------------------------------------------


def _searches(options: Options) -> list[_Search]:
  """Returns the searches to try, in order."""
  if options.estimator is Estimator.DEGENSAC:
    if options.model is not Model.HOMOGRAPHY:
      raise ValueError(
        f'pydegensac estimates homographies; expected HOMOGRAPHY, found {options.model.name}; choose'
        ' USAC for other models'
      )
    return [_degensac]
  samples_of_two = functools.partial(_sampled, Model.SIMILARITY)
  own: dict[Model, list[_Search]] = {
    Model.SIMILARITY: [],
    Model.AFFINE: [functools.partial(_sampled, Model.AFFINE)],
    Model.HOMOGRAPHY: [_homography],
  }
  return [*own[options.model], samples_of_two]


def _sampled(sampled: Model, source: Points, target: Points, options: Options) -> list[tuple[Matrix, int]]:
  is_homography = options.model is Model.HOMOGRAPHY
  found = sampling.search(
    source,
    target,
    sampled,
    None if is_homography else options.model,
    max_residual=options.max_residual,
    trials=options.trials,
    limits=options.limits,
    seed=options.seed,
  )
  return _polished([matrix for matrix, _ in found[:1]], source, target, options) if is_homography else found


def _homography(source: Points, target: Points, options: Options) -> list[tuple[Matrix, int]]:
  found = cv2.findHomography(*_turned(source, target), _usac(options))[0]
  return _polished(_matrices(found), source, target, options)


def _degensac(source: Points, target: Points, options: Options) -> list[tuple[Matrix, int]]:
  try:
    import pydegensac
  except ImportError:
    raise UserError(
      'estimator DEGENSAC needs the package pydegensac. Install it (pip install pydegensac) or choose USAC'
    ) from None
  residual, trials = options.max_residual, options.trials
  found = pydegensac.findHomography(*_turned(source, target), residual, _CONFIDENCE, trials)[0]
  return _polished(_matrices(found), source, target, options)


def _polished(
  matrices: list[Matrix], source: Points, target: Points, options: Options
) -> list[tuple[Matrix, int]]:
  found = [polish(matrix, source, target, options.model, options.max_residual) for matrix in matrices]
  return [(matrix, int(np.count_nonzero(agree))) for matrix, agree in found]


def _usac(options: Options) -> cv2.UsacParams:
  params = cv2.UsacParams()
  # With the scores of MAGSAC++ the nearest half of the inliers wins where a plane is seen in strong
  # perspective (129 of 180 between two views of HPatches).
  params.score = cv2.SCORE_METHOD_MSAC
  params.loMethod = cv2.LOCAL_OPTIM_INNER_AND_ITER_LO
  # Samples of the nearest descriptors come first (Chum, Matas, CVPR 2005).
  params.sampler = cv2.SAMPLING_PROSAC
  params.threshold = options.max_residual
  params.maxIterations = options.trials
  params.confidence = _CONFIDENCE
  params.randomGeneratorState = options.seed
  return params


def _turned(source: Points, target: Points) -> tuple[Points, Points]:
  """Returns the points as (x, y), which OpenCV and pydegensac take."""
  return np.ascontiguousarray(source[:, ::-1]), np.ascontiguousarray(target[:, ::-1])


def _matrices(found: Any) -> list[Matrix]:
  """Returns a homography [3, 3] of (x, y, 1) as one of (y, x, 1); none if there is none.

  Args:
    found: None, too, which the types of OpenCV leave out.
  """
  if found is None or not np.isfinite(found).all() or found[2, 2] == 0:
    return []
  return [found[[1, 0, 2]][:, [1, 0, 2]] / found[2, 2]]
