"""The least number of inliers against the formula itself."""

import math

import numpy as np
import pytest

from delf_d2r.geometry.significance import least_inliers
from delf_d2r.geometry.transforms import MINIMAL_PAIRS, Model


@pytest.mark.parametrize('model', list(Model))
def test_least_inliers_is_the_first_number_with_few_false_alarms(model):
  target = np.array([[0, 0], [400, 500]] * 30, float)
  found = least_inliers(target, model, 5, max_residual=10, max_false_alarms=0.1)
  samples, chance = MINIMAL_PAIRS[model], np.pi * 10**2 / (400 * 500)

  def alarms(k):
    return (60 - samples) * math.comb(60, k) * math.comb(k, samples) * chance ** (k - samples)

  assert alarms(found) <= 0.1 < alarms(found - 1)
  assert least_inliers(target[:4], model, 5, max_residual=10, max_false_alarms=0.1) == 5
  assert (
    least_inliers(target[::2], model, 5, max_residual=10, max_false_alarms=0.1) == 31
  )  # All in one place: any transform has them.
