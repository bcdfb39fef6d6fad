"""RANSAC for affine transforms and similarities: samples, the transforms that most agree with, their refits.

Samples of the nearest descriptors come first (progressive sampling: Chum, Matas, CVPR 2005); if all samples
are no more than the trials, each is tried once. The best few transforms are each fitted again to the matches
that agree, for as long as this is better (Chum, Matas, Kittler, DAGM 2003): of transforms through few noisy
matches, the best one is often not the one that becomes best. For the same reason no sample is spared when one
seems free of outliers.

A transform is a row `a b c d e f` here: `(y, x)` goes to `(a y + b x + c, d y + e x + f)`.
"""

import functools
import itertools
import math

import numpy as np
import numpy.typing as npt

from delf_d2r.geometry.transforms import MINIMAL_PAIRS, Limits, Matrix, Model, Points
from delf_d2r.kernels.compiled import HAVE_NUMBA, njit

# The number of transforms that are fitted again. More find more right pairs of photos, and more wrong ones by
# chance: of 288 and 2,322, 2 find 133 and 3, 4 find 138 and 4, 8 find 141 and 7, OpenCV's USAC 128 and 2.
_REFITTED = 2
# Fits to all matches within these multiples of the squared residual come first; they depend less on the
# sample.
_WIDER = (4.0, 2.0)
# Rounds of fitting; few need more than five.
_MAX_ROUNDS = 10
# A transform through so few matches is off by some of their noise, so its limits are wider by this factor.
_SLACK = 2.0
# Three points are on a line if the square of their triangle is below this share of the product of two sides.
_FLAT = 1e-9
# Residuals that NumPy computes at a time.
_RESIDUALS_AT_A_TIME = 2**20

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def search(
  source: Points,
  target: Points,
  sampled: Model,
  fitted: Model | None,
  *,
  max_residual: float,
  trials: int,
  limits: Limits,
  seed: int,
  compiled: bool = HAVE_NUMBA,
) -> list[tuple[Matrix, int]]:
  """Returns the transforms that most matches agree with, at most 2 different ones, those with most first.

  Args:
    source, target: float64 [P, 2], finite, `(y, x)` in pixels, matches of nearest descriptors first.
    sampled: SIMILARITY or AFFINE, the transform through each sample.
    fitted: SIMILARITY or AFFINE, the transform that is fitted to the matches that agree; None: no other.
    max_residual: pixels of the target within which a match agrees.
    trials: the largest number of samples that are tried.
    limits: of the transforms that are looked at.
    seed: of the samples.
    compiled: take the path that numba compiles; both return the same bytes.

  Returns:
    The matrix float64 [3, 3] of homogeneous `(y, x, 1)`, and the number of matches that agree, of each.
  """
  size, count = MINIMAL_PAIRS[sampled], len(source)
  if count < size:
    return []
  try_samples, refit = (_try_samples, _refit) if compiled else (_try_samples_numpy, _refit_numpy)
  points = np.ascontiguousarray(np.concatenate([source, target], axis=1).T)
  most, rows = np.zeros(_REFITTED, np.int64), np.zeros((_REFITTED, 6))
  radius = max_residual**2
  try_samples(points, _samples(count, size, trials, seed), radius, *_bounds(limits), most, rows)
  if fitted is not None:
    for k in np.flatnonzero(most):
      most[k] = refit(points, rows[k], fitted is Model.SIMILARITY, radius)
  found: dict[bytes, tuple[Matrix, int]] = {}
  for k in np.argsort(-most, kind='stable')[: np.count_nonzero(most)]:
    matrix = np.eye(3)
    matrix[:2] = rows[k].reshape(2, 3)
    found.setdefault(matrix.tobytes(), (matrix, int(most[k])))
  return list(found.values())


def _bounds(limits: Limits) -> tuple[float, float]:
  """Returns the largest sum of both squared changes of length, and of both ratios of these."""
  scale, ratio = _SLACK * limits.max_scale, _SLACK * limits.max_anisotropy
  return 2 * scale**2, ratio + 1 / ratio


@functools.lru_cache(256)
def _samples(count: int, size: int, trials: int, seed: int) -> Integers:
  """Returns samples of `size` of `count` matches, int64 [T, size], T <= `trials`, all different in a row."""
  if math.comb(count, size) <= trials:
    return np.array(list(itertools.combinations(range(count), size)), np.int64)
  # The first half is drawn from more and more of the matches, the second half from all of them.
  growth = np.minimum(2 * np.arange(1, trials + 1) / trials, 1)
  pool = size + np.ceil((count - size) * growth).astype(np.int64)
  shares = np.random.default_rng([seed, count, size]).random((trials, size))
  samples = np.empty((trials, size), np.int64)
  for column in range(size):
    # A number of those that are left, which those before it have to be skipped for.
    drawn = (shares[:, column] * (pool - column)).astype(np.int64)
    for earlier in np.sort(samples[:, :column], axis=1).T:
      drawn += drawn >= earlier
    samples[:, column] = drawn
  return samples


# Compiled loops --------------------------------------------------------------------------------------


@njit
def _try_samples(
  points: Floats,
  samples: Integers,
  radius: float,
  most_scale: float,
  most_ratio: float,
  most: Integers,
  rows: Floats,
) -> None:
  """Keeps in `rows` [k, 6] the transforms that most matches agree with, whose numbers are in `most` [k].

  Args:
    points: float64 [4, P], y and x of the source, y and x of the target.
    samples: int64 [T, 2] for similarities or [T, 3] for affine transforms.
    radius: the largest squared residual.
    most_scale, most_ratio: `_bounds`.
    most, rows: changed in place, descending; of equal ones the earlier comes first.
  """
  # Unpacked, they would not be known to be in one piece, and loops over them would be no vector instructions.
  y, x, v, u = points[0], points[1], points[2], points[3]
  last = most.size - 1
  for t in range(samples.shape[0]):
    i, j = samples[t, 0], samples[t, 1]
    y1, x1, v1, u1 = y[j] - y[i], x[j] - x[i], v[j] - v[i], u[j] - u[i]
    if samples.shape[1] == 2:
      power = y1 * y1 + x1 * x1
      if power == 0:
        continue
      a = (y1 * v1 + x1 * u1) / power
      d = (y1 * u1 - x1 * v1) / power
      b, e = -d, a
    else:
      k = samples[t, 2]
      y2, x2, v2, u2 = y[k] - y[i], x[k] - x[i], v[k] - v[i], u[k] - u[i]
      area = y1 * x2 - x1 * y2
      if area * area <= _FLAT * ((y1 * y1 + x1 * x1) * (y2 * y2 + x2 * x2)):
        continue
      a, b = (v1 * x2 - v2 * x1) / area, (v2 * y1 - v1 * y2) / area
      d, e = (u1 * x2 - u2 * x1) / area, (u2 * y1 - u1 * y2) / area
    # The determinant is the product of both changes of length, and the sum that of their squares.
    determinant, squares = a * e - b * d, a * a + b * b + d * d + e * e
    if (
      determinant <= 0
      or squares > most_scale
      or squares > most_scale * (determinant * determinant)
      or squares > most_ratio * determinant
    ):
      continue
    c, f = v[i] - a * y[i] - b * x[i], u[i] - d * y[i] - e * x[i]
    agree = _count_agreeing(y, x, v, u, a, b, c, d, e, f, radius)
    if agree > most[last]:
      place = last
      while place > 0 and most[place - 1] < agree:
        most[place] = most[place - 1]
        rows[place] = rows[place - 1]
        place -= 1
      most[place] = agree
      rows[place, 0], rows[place, 1], rows[place, 2] = a, b, c
      rows[place, 3], rows[place, 4], rows[place, 5] = d, e, f


@njit
def _count_agreeing(
  y: Floats,
  x: Floats,
  v: Floats,
  u: Floats,
  a: float,
  b: float,
  c: float,
  d: float,
  e: float,
  f: float,
  radius: float,
) -> int:
  count = 0
  for p in range(y.size):
    apart_y = a * y[p] + b * x[p] + c - v[p]
    apart_x = d * y[p] + e * x[p] + f - u[p]
    count += apart_y * apart_y + apart_x * apart_x <= radius
  return count


@njit
def _squares(points: Floats, row: Floats, squared: Floats) -> None:
  """Writes the squared residuals, float64 [P]."""
  y, x, v, u = points[0], points[1], points[2], points[3]
  for p in range(y.size):
    apart_y = row[0] * y[p] + row[1] * x[p] + row[2] - v[p]
    apart_x = row[3] * y[p] + row[4] * x[p] + row[5] - u[p]
    squared[p] = apart_y * apart_y + apart_x * apart_x


@njit
def _goodness(squared: Floats, radius: float) -> tuple[int, float]:
  """Returns the number of matches that agree, and the cost of MSAC (Torr, Zisserman, CVIU 2000)."""
  count, cost = 0, 0.0
  for value in squared:
    if value <= radius:
      count += 1
    cost += min(value, radius)
  return count, cost


@njit
def _fit(points: Floats, squared: Floats, radius: float, is_similarity: bool, fit: Floats) -> bool:
  """Writes the least-squares transform of the matches within `radius`; returns whether they determine one."""
  y, x, v, u = points[0], points[1], points[2], points[3]
  count = 0
  my = mx = mv = mu = 0.0
  for p in range(y.size):
    if squared[p] <= radius:
      count += 1
      my, mx, mv, mu = my + y[p], mx + x[p], mv + v[p], mu + u[p]
  if count < 2:
    return False
  my, mx, mv, mu = my / count, mx / count, mv / count, mu / count
  yy = yx = xx = yv = xv = yu = xu = 0.0
  for p in range(y.size):
    if squared[p] <= radius:
      dy, dx, dv, du = y[p] - my, x[p] - mx, v[p] - mv, u[p] - mu
      yy, yx, xx = yy + dy * dy, yx + dy * dx, xx + dx * dx
      yv, xv, yu, xu = yv + dy * dv, xv + dx * dv, yu + dy * du, xu + dx * du
  if not _solve(yy, yx, xx, yv, xv, yu, xu, is_similarity, fit):
    return False
  fit[2], fit[5] = mv - fit[0] * my - fit[1] * mx, mu - fit[3] * my - fit[4] * mx
  return True


@njit
def _refit(points: Floats, row: Floats, is_similarity: bool, radius: float) -> int:
  """Fits `row` [6] to the matches that agree while that is better; returns how many agree in the end."""
  squared, fit = np.empty(points.shape[1]), np.empty(6)
  _squares(points, row, squared)
  count, cost = _goodness(squared, radius)
  for wider in _WIDER:
    if not _fit(points, squared, wider * radius, is_similarity, fit):
      break
    _squares(points, fit, squared)
    more, less = _goodness(squared, radius)
    if more > count or (more == count and less < cost):
      count, cost = more, less
      row[:] = fit
  _squares(points, row, squared)
  for _ in range(_MAX_ROUNDS):
    if not _fit(points, squared, radius, is_similarity, fit):
      break
    _squares(points, fit, squared)
    more, less = _goodness(squared, radius)
    if more < count or (more == count and less >= cost):
      break
    count, cost = more, less
    row[:] = fit
  return count


@njit
def _solve(
  yy: float,
  yx: float,
  xx: float,
  yv: float,
  xv: float,
  yu: float,
  xu: float,
  is_similarity: bool,
  fit: Floats,
) -> bool:
  """Writes the linear part of the least-squares transform, from sums of products of centred places."""
  if is_similarity:
    power = yy + xx
    if power <= 0:
      return False
    fit[0], fit[3] = (yv + xu) / power, (yu - xv) / power
    fit[1], fit[4] = -fit[3], fit[0]
    return True
  determinant = yy * xx - yx * yx
  if determinant <= _FLAT * ((yy + xx) * (yy + xx)):
    return False
  fit[0], fit[1] = (yv * xx - xv * yx) / determinant, (xv * yy - yv * yx) / determinant
  fit[3], fit[4] = (yu * xx - xu * yx) / determinant, (xu * yy - yu * yx) / determinant
  return True


# The same in NumPy -----------------------------------------------------------------------------------


def _try_samples_numpy(
  points: Floats,
  samples: Integers,
  radius: float,
  most_scale: float,
  most_ratio: float,
  most: Integers,
  rows: Floats,
) -> None:
  first = points[:, samples[:, 0]]
  y1, x1, v1, u1 = points[:, samples[:, 1]] - first
  with np.errstate(divide='ignore', invalid='ignore'):
    if samples.shape[1] == 2:
      power = y1 * y1 + x1 * x1
      usable = power != 0
      a, d = (y1 * v1 + x1 * u1) / power, (y1 * u1 - x1 * v1) / power
      b, e = -d, a
    else:
      y2, x2, v2, u2 = points[:, samples[:, 2]] - first
      area = y1 * x2 - x1 * y2
      usable = area * area > _FLAT * ((y1 * y1 + x1 * x1) * (y2 * y2 + x2 * x2))
      a, b = (v1 * x2 - v2 * x1) / area, (v2 * y1 - v1 * y2) / area
      d, e = (u1 * x2 - u2 * x1) / area, (u2 * y1 - u1 * y2) / area
    determinant, squares = a * e - b * d, a * a + b * b + d * d + e * e
    usable &= (determinant > 0) & (squares <= most_scale)
    usable &= (squares <= most_scale * (determinant * determinant)) & (squares <= most_ratio * determinant)
    c, f = first[2] - a * first[0] - b * first[1], first[3] - d * first[0] - e * first[1]
  found = np.stack([a, b, c, d, e, f], axis=1)[usable]
  counts = np.zeros(len(found), np.int64)
  for start in range(0, len(found), step := max(_RESIDUALS_AT_A_TIME // points.shape[1], 1)):
    piece = found[start : start + step]
    counts[start : start + step] = (_squares_numpy(points, piece) <= radius).sum(axis=1)
  together = np.concatenate([most, counts]), np.concatenate([rows, found])
  order = np.argsort(-together[0], kind='stable')[: len(most)]
  most[:], rows[:] = together[0][order], together[1][order]


def _squares_numpy(points: Floats, rows: Floats) -> Floats:
  """Returns the squared residuals of each of R transforms, float64 [R, P]."""
  y, x, v, u = points
  a, b, c, d, e, f = rows.T[:, :, None]
  apart_y, apart_x = a * y + b * x + c - v, d * y + e * x + f - u
  squared: Floats = apart_y * apart_y + apart_x * apart_x
  return squared


def _fit_numpy(points: Floats, squared: Floats, radius: float, is_similarity: bool, fit: Floats) -> bool:
  own = points[:, squared <= radius]
  if own.shape[1] < 2:
    return False
  # A cumulative sum is added in order, other sums of NumPy are not.
  middle = own.cumsum(axis=1)[:, -1] / own.shape[1]
  dy, dx, dv, du = own - middle[:, None]
  products = np.stack([dy * dy, dy * dx, dx * dx, dy * dv, dx * dv, dy * du, dx * du])
  yy, yx, xx, yv, xv, yu, xu = products.cumsum(axis=1)[:, -1].tolist()
  if not _solve(yy, yx, xx, yv, xv, yu, xu, is_similarity, fit):
    return False
  my, mx, mv, mu = middle
  fit[2], fit[5] = mv - fit[0] * my - fit[1] * mx, mu - fit[3] * my - fit[4] * mx
  return True


def _refit_numpy(points: Floats, row: Floats, is_similarity: bool, radius: float) -> int:
  fit = np.empty(6)
  squared = _squares_numpy(points, row[None])[0]
  count, cost = _goodness_numpy(squared, radius)
  for wider in _WIDER:
    if not _fit_numpy(points, squared, wider * radius, is_similarity, fit):
      break
    squared = _squares_numpy(points, fit[None])[0]
    more, less = _goodness_numpy(squared, radius)
    if more > count or (more == count and less < cost):
      count, cost = more, less
      row[:] = fit
  squared = _squares_numpy(points, row[None])[0]
  for _ in range(_MAX_ROUNDS):
    if not _fit_numpy(points, squared, radius, is_similarity, fit):
      break
    squared = _squares_numpy(points, fit[None])[0]
    more, less = _goodness_numpy(squared, radius)
    if more < count or (more == count and less >= cost):
      break
    count, cost = more, less
    row[:] = fit
  return count


def _goodness_numpy(squared: Floats, radius: float) -> tuple[int, float]:
  return int(np.count_nonzero(squared <= radius)), float(np.minimum(squared, radius).cumsum()[-1])
