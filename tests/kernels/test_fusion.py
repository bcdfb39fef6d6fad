"""Two scores as one: parts that add up, standardised scores, and a power of what is positive."""

import numpy as np
import pytest

from delf_d2r.kernels import fusion
from delf_d2r.kernels.background import Expected, ExpectedOfImages, descriptor_statistics


def test_parts_add_up():
  found = fusion.add(np.array([1.0, -2, 0.5]), np.array([2.0, 4, -1]), 0.25)
  assert found.scores.tolist() == [1.5, -1, 0.25]
  assert found.local_scores.tolist() == [1, -2, 0.5]
  assert found.global_scores.tolist() == [0.5, 1, -0.25]
  assert {part.dtype for part in vars(found).values()} == {np.dtype(np.float32)}


def test_norm_of_the_parts():
  parts = np.array([3.0, 3, -1, -1, 0, 1e30, 0.0]), np.array([4.0, -2, 5, -2, 7, 1e30, 0.0])
  by_hand = [5, 3 - 2, 5 - 1, -3, 7, 2**0.5 * 1e30, 0]
  found = fusion.add(*parts, 1.0, norm_order=2)
  np.testing.assert_allclose(found.scores, np.array(by_hand).astype(np.float32), rtol=1e-6)
  np.testing.assert_array_equal(found.local_scores, parts[0].astype(np.float32))
  # A weight counts before the norm, and a high order leaves the greater part.
  assert fusion.add(*(part[:1] for part in parts), 0.5, norm_order=2).scores[0] == pytest.approx(13**0.5)
  assert fusion.add(*(part[:1] for part in parts), 1.0, norm_order=100).scores[0] == pytest.approx(4)
  assert len(fusion.add(parts[0][:0], parts[1][:0], 1.0, norm_order=3).scores) == 0


@pytest.mark.parametrize('norm_order', [1, 2, 3.5])
def test_a_higher_part_never_lowers_the_score(norm_order):
  values = np.linspace(-3, 8, 45)
  others = np.repeat([-2.0, 0, 3], 15)
  for first, other in ((values, np.full(45, 2.5)), (np.full(45, -1.5), values), (values, np.sort(others))):
    assert (np.diff(fusion.add(first, other, 0.7, norm_order=norm_order).scores) >= 0).all()


@pytest.mark.parametrize(
  ('scores', 'expected'),
  [([1, 3], [-1, 1]), ([5, 5, 5], [0, 0, 0]), ([], []), ([0, 0, 6], [-(0.5**0.5), -(0.5**0.5), 2**0.5])],
)
def test_z_scores(scores, expected):
  np.testing.assert_allclose(fusion.z_scores(np.array(scores, np.float32)), expected)


def test_scores_by_what_is_expected():
  scores = np.array([0.1, 0.3], np.float32)
  np.testing.assert_allclose(fusion.standardized(scores, 0.1, 0.05), [0, 4], atol=1e-6)
  assert fusion.standardized(scores, 0.1, 0).tolist() == [0, 0]
  assert len(fusion.standardized(scores[:0], 0.1, 0.05)) == 0


def test_a_power_of_what_is_positive():
  scores = np.array([-2.0, 0, 3])
  assert fusion.positive_power(scores, 1).tolist() == [-2, 0, 3]
  assert fusion.positive_power(scores, 2).tolist() == [0, 0, 9]
  # Twice the logarithm of the ratio of two Gaussian densities of deviation 1, around z and around 0.
  ratio = np.exp(0) / np.exp(-(3**2) / 2)
  assert 2 * np.log(ratio) == pytest.approx(fusion.positive_power(scores, 2)[2])


def test_scores_standardised_by_both_sides():
  images = ExpectedOfImages(np.array([0.1, 0.2, 0.0]), np.array([0.5, 0.25, 0.0]))
  found = fusion.symmetric(np.array([0.6, 0.2, 1.0], np.float32), Expected(0.2, 0.2), images)
  # The last image has nothing to compare: its own side is 0.
  np.testing.assert_allclose(found, [(2 + 1) / 2, 0, 4 / 2], atol=1e-6)
  with pytest.raises(ValueError, match='expected the statistics of 2 images, found 3'):
    fusion.symmetric(np.zeros(2), Expected(0, 1), images)


def test_both_sides_are_alike():
  rng = np.random.default_rng(1)
  rows = rng.standard_normal((6, 4)).astype(np.float32)
  statistics = descriptor_statistics(rng.standard_normal((20, 4)).astype(np.float32))
  images = statistics.expected_of_images([rows])
  scores = np.array([fusion.symmetric(rows @ row, statistics.expected(row), images) for row in rows])
  np.testing.assert_allclose(scores, scores.T, atol=1e-5)
