"""How many matches must agree on a transform before that means something."""

import math

import numpy as np

from delf_d2r.geometry.transforms import MINIMAL_PAIRS, Model


def least_inliers(
  target: np.ndarray, model: Model, least: int, *, max_residual: float, max_false_alarms: float
) -> int:
  """How many inliers tell that matches agree by more than chance; more than there are if no number can.

  If all P matches were wrong, each would lie within r of where a transform takes it with probability
  p = pi r^2 / A. Of the transforms through s matches, at most (P - s) C(P, k) C(k, s) p^(k - s) would then be
  expected to gather k inliers (Moisan, Stival, IJCV 2004, the number of false alarms, here for one r).

  Args:
    target: float64 [P, 2], places in the query image. A is the area of the rectangle around them.
    model: the transform, of which s matches make one.
    least: the answer is at least this.
    max_residual: r, pixels of the query image.
    max_false_alarms: the most transforms that may be expected.
  """
  count, samples = len(target), MINIMAL_PAIRS[model]
  if count < least:
    return least
  disc = math.pi * max_residual**2
  chance = disc / max(np.ptp(target, axis=0).prod(), disc)
  for inliers in range(least, count + 1):
    alarms = max(count - samples, 1) * math.comb(count, inliers) * math.comb(inliers, samples)
    if math.log(alarms) + (inliers - samples) * math.log(chance) <= math.log(max_false_alarms):
      return inliers
  return count + 1
