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
  # All in one place: any transform has them.
  for count in (30, 29):
    in_one_place = target[::2][:count]
    assert least_inliers(in_one_place, model, 5, max_residual=10, max_false_alarms=0.1) == count + 1


def test_as_many_as_there_are_may_be_needed_and_enough():
  target = np.array([[0, 0], [400, 500]] * 3, float)
  # Of five, one transform has five inliers and each four of them are a sample: 5 p = 0.008.
  for most, expected in ((0.01, 5), (0.005, 6)):
    found = least_inliers(target[:5], Model.HOMOGRAPHY, 5, max_residual=10, max_false_alarms=most)
    assert found == expected
