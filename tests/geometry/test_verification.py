"""Verification of matches with known inliers, and of matches without any; its steps one by one."""

import concurrent.futures
import math
import sys

import numpy as np
import pytest

from delf_d2r import config as configs
from delf_d2r.errors import UserError
from delf_d2r.geometry import transforms
from delf_d2r.geometry.transforms import MINIMAL_PAIRS, Limits, Model
from delf_d2r.geometry.verification import (
  Estimator,
  Options,
  Verification,
  inliers,
  least_inliers,
  polish,
  verify,
)

MODELS = list(Model)
TRUE_MATRICES = {
  Model.SIMILARITY: np.array([[0.8, -0.5, 300], [0.5, 0.8, 40], [0, 0, 1]]),
  Model.AFFINE: np.array([[0.9, -0.3, 200], [0.2, 1.2, 30], [0, 0, 1]]),
  Model.HOMOGRAPHY: np.array([[1.1, -0.2, 120], [0.15, 0.9, 60], [2e-4, -1e-4, 1]]),
}


def problem(model, *, inliers=400, outliers=400, noise=1.0, seed=0):
  """Matched places in query and index image, float32 [P, 2], the inliers first."""
  rng = np.random.default_rng(seed)
  index = rng.uniform(0, 1000, (inliers + outliers, 2))
  query = transforms.apply(TRUE_MATRICES[model], index)
  query += rng.normal(0, noise, query.shape)
  query[inliers:] = rng.uniform(-200, 1200, (outliers, 2))
  return query.astype(np.float32), index.astype(np.float32)


@pytest.mark.parametrize('model', MODELS)
def test_all_of_400_inliers_among_800_are_found(model):
  for seed in range(5):
    found = verify(*problem(model, seed=seed), Options(model=model))
    assert (found.inliers < 400).sum() >= 399
    assert (found.inliers >= 400).sum() <= 8
    corners = np.array([[0, 0], [0, 1000], [1000, 0], [1000, 1000]])
    errors = transforms.residuals(found.matrix, corners, transforms.apply(TRUE_MATRICES[model], corners))
    assert errors.max() < 3


@pytest.mark.parametrize('model', MODELS)
def test_inliers_are_what_the_matrix_takes_within_the_residual(model):
  query, index = problem(model, noise=4)
  found = verify(query, index, Options(model=model, max_residual=8))
  residuals = transforms.residuals(found.matrix, index.astype(float), query.astype(float))
  assert residuals[found.inliers].max() <= 8
  # Two of them may fall on one pixel, which counts once.
  assert len(found) >= 0.99 * (residuals <= 8).sum()


def test_search_among_the_credible_and_count_all():
  query, index = problem(Model.AFFINE, inliers=100, outliers=300)
  credible = np.arange(400) % 5 == 0
  found = verify(query, index, Options(), credible=credible)
  assert (found.inliers < 100).sum() >= 98
  alone = verify(query[credible], index[credible], Options())
  np.testing.assert_array_equal(found.matrix, alone.matrix)
  assert {5 * i for i in alone.inliers.tolist()} <= set(found.inliers.tolist())


# The first changes shape more than what begins with a similarity could be fitted to.
PLANES = np.array([[0.5, 0, 200], [0.3, 1.3, 30], [0, 0, 1]]), TRUE_MATRICES[Model.SIMILARITY]


def two_planes(counts, *, seed=0):
  """Matched places of so many matches of each plane and of none, in any order, and the plane of each."""
  rng = np.random.default_rng(seed)
  plane = rng.permutation(np.repeat([0, 1, 2], counts))
  index = rng.uniform(0, 1000, (len(plane), 2))
  query = rng.uniform(-200, 1200, index.shape)
  for number, matrix in enumerate(PLANES):
    query[plane == number] = transforms.apply(matrix, index[plane == number])
  return query, index, plane


def planes_of(found, plane):
  return np.bincount(plane[found.inliers], minlength=3).tolist()


@pytest.mark.parametrize(
  ('counts', 'expected'),
  [
    ((40, 35, 25), [0, 235, 0]),  # Neither is most of what is credible: the one of more matches in all.
    ((60, 20, 20), [60, 0, 0]),
  ],
)
def test_of_two_planes_that_are_credible(counts, expected):
  """The second has 200 more matches that are not credible."""
  query, index, plane = two_planes(np.add(counts, (0, 200, 0)))
  credible = np.ones(len(plane), bool)
  credible[np.random.default_rng(0).permutation(np.flatnonzero(plane == 1))[:200]] = False
  assert planes_of(verify(query, index, Options(max_residual=2), credible=credible), plane) == expected


def test_the_plane_of_more_matches_is_found_whichever_search_meets_it():
  # Samples of three find the first, those of two the second.
  query, index, plane = two_planes((40, 20, 45))
  assert planes_of(verify(query, index, Options(max_residual=2)), plane) == [40, 0, 0]
  # The nearest are of the first, so that samples of three end there.
  query, index, plane = two_planes((15, 22, 250))
  order = np.argsort(plane != 0, kind='stable')
  found = verify(query[order], index[order], Options(max_residual=2))
  assert planes_of(found, plane[order]) == [0, 22, 0]


def test_samples_of_two_find_what_those_of_three_miss():
  """One of 4,600 samples of three matches is free of outliers, and one of 280 of two; 1,000 are drawn."""
  query, index = problem(Model.SIMILARITY, inliers=12, outliers=188, noise=0)
  found = verify(query[::-1], index[::-1], Options(max_residual=3))
  assert (found.inliers >= 188).sum() == 12


def test_samples_of_four_find_what_is_in_strong_perspective():
  """One corner of the plane is six times as far away as another: no similarity is near enough."""
  rng = np.random.default_rng(0)
  index = rng.uniform(0, 1000, (160, 2))
  matrix = np.array([[1, 0, 0], [0, 1, 0], [2e-3, -5e-4, 1]])
  query = transforms.apply(matrix, index)
  query[40:] = rng.uniform(0, 500, (120, 2))
  options = Options(model=Model.HOMOGRAPHY, max_residual=1)
  # At the nearest and the farthest places it is implausible.
  assert (verify(query, index, options).inliers < 40).sum() >= 20


def test_nothing_has_no_inliers_and_no_transform():
  nothing = Verification.nothing()
  assert len(nothing) == 0
  np.testing.assert_array_equal(nothing.matrix, np.zeros((3, 3)))


def test_defaults_are_those_of_the_configuration():
  config, options = configs.default('verification').verification, Options()
  for name in ('max_residual', 'trials', 'min_inliers', 'max_false_alarms', 'seed'):
    assert getattr(options, name) == pytest.approx(getattr(config, name))
  for name in ('max_scale', 'max_anisotropy', 'min_spread'):
    assert getattr(options.limits, name) == getattr(config, name)


def test_without_enough_credible_inliers_no_others_count():
  query, index = problem(Model.AFFINE, inliers=100, outliers=0)
  credible = np.arange(100) < 9
  assert len(verify(query, index, Options(min_inliers=9), credible=credible)) > 90
  assert len(verify(query, index, Options(min_inliers=10), credible=credible)) == 0


def test_more_matches_ask_for_more_inliers():
  """Six are enough among seven matches, and may be chance among 200."""
  query, index = problem(Model.AFFINE, inliers=6, outliers=194, noise=0.1)
  assert len(verify(query[:7], index[:7], Options())) == 6
  assert len(verify(query, index, Options())) == 0
  assert 6 <= len(verify(query, index, Options(max_false_alarms=1e30))) < 10


def test_chance_agreement_is_rare():
  counts = [
    len(verify(*problem(Model.AFFINE, inliers=0, outliers=200, seed=s), Options())) for s in range(20)
  ]
  assert max(counts) == 0


@pytest.mark.parametrize('model', MODELS)
@pytest.mark.parametrize('count', [0, 1, 2, 3, 4])
def test_too_few_matches_verify_nothing(model, count):
  found = verify(*(part[:count] for part in problem(model)), Options(model=model))
  assert len(found) == 0
  np.testing.assert_array_equal(found.matrix, np.zeros((3, 3)))


def test_least_number_of_inliers_is_the_options():
  query, index = problem(Model.AFFINE, inliers=20, outliers=0, noise=0.1)
  assert len(verify(query, index, Options(min_inliers=20))) == 20
  assert len(verify(query, index, Options(min_inliers=21))) == 0


DEGENERATE = {
  'one place in the index image': lambda query, index: (query, np.repeat(index[:1], len(index), axis=0)),
  'one place in the query': lambda query, index: (np.repeat(query[:1], len(query), axis=0), index),
  'one place in both': lambda query, index: (query[[0] * len(query)], index[[0] * len(index)]),
  'a line in both': lambda query, index: (np.outer(np.arange(50), [3, 2]), np.outer(np.arange(50), [1, 4])),
  'a line in the query': lambda query, index: (query * [1, 0], index),
  'mirrored': lambda query, index: (index * [1, -1], index),
  'twelve times smaller': lambda query, index: (index / 12 + 100, index),
  'twelve times larger': lambda query, index: (index * 12, index),
  'five times narrower': lambda query, index: (index * [1, 0.2], index),
  'nowhere': lambda query, index: (query * np.nan, index),
}


@pytest.mark.parametrize('what', DEGENERATE)
@pytest.mark.parametrize('model', MODELS)
def test_what_two_photos_cannot_do_is_refused(model, what):
  query, index = DEGENERATE[what](*problem(Model.AFFINE, inliers=50, outliers=0, noise=0))
  # A narrow residual, so that noise in a small image is no agreement.
  found = verify(query.astype(np.float32), index.astype(np.float32), Options(model=model, max_residual=1.0))
  assert len(found) == 0


def test_limits_are_the_options():
  _, index = problem(Model.AFFINE, inliers=50, outliers=0)
  assert len(verify(index * 12, index, Options(limits=Limits(max_scale=13)))) == 50
  assert len(verify(index * [1, 0.2], index, Options(limits=Limits(max_anisotropy=6)))) == 50


def test_a_match_that_is_not_finite_agrees_with_nothing():
  query, index = problem(Model.AFFINE, inliers=50, outliers=10)
  expected = verify(np.delete(query, [3, 7], axis=0), np.delete(index, [3, 7], axis=0), Options())
  query[3, 0], index[7, 1] = np.nan, np.inf
  found = verify(query, index, Options())
  np.testing.assert_array_equal(found.matrix, expected.matrix)
  assert not {3, 7} & set(found.inliers.tolist())


def test_matches_between_the_same_pixels_count_once():
  query, index = problem(Model.AFFINE, inliers=50, outliers=0, noise=0)
  query, index = (np.floor(part) + 0.5 for part in (query, index))
  once = verify(query, index, Options())
  twice = verify(np.tile(query, (2, 1)), np.tile(index, (2, 1)), Options())
  assert len(twice) == len(once) == 50


@pytest.mark.parametrize('model', MODELS)
def test_same_result_in_any_thread(model):
  problems = [problem(model, inliers=40, outliers=200, seed=seed) for seed in range(12)]
  options = Options(model=model)
  expected = [verify(*one, options) for one in problems]
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    for _ in range(3):
      found = pool.map(lambda one: verify(*one, options), problems)
      for a, b in zip(found, expected, strict=True):
        assert a.matrix.tobytes() == b.matrix.tobytes()
        np.testing.assert_array_equal(a.inliers, b.inliers)


def test_seed_decides_on_hard_problems():
  hard = problem(Model.AFFINE, inliers=150, outliers=200, noise=3)
  options = [Options(max_residual=4, seed=seed, trials=5) for seed in range(8)]
  found = [verify(*hard, one) for one in options]
  assert len({tuple(one.inliers) for one in found}) > 1


def test_inputs_are_not_changed():
  query, index = problem(Model.AFFINE)
  before = query.copy(), index.copy()
  verify(query, index, Options())
  np.testing.assert_array_equal((query, index), before)


def test_degensac_knows_homographies_only():
  with pytest.raises(ValueError, match='expected HOMOGRAPHY, found AFFINE'):
    verify(*problem(Model.AFFINE), Options(estimator=Estimator.DEGENSAC))


def test_degensac_that_is_not_installed(monkeypatch):
  monkeypatch.setitem(sys.modules, 'pydegensac', None)
  with pytest.raises(UserError, match='pip install pydegensac'):
    verify(*problem(Model.HOMOGRAPHY), Options(model=Model.HOMOGRAPHY, estimator=Estimator.DEGENSAC))


def test_degensac_finds_what_is_there():
  pytest.importorskip('pydegensac')
  options = Options(model=Model.HOMOGRAPHY, estimator=Estimator.DEGENSAC)
  assert (verify(*problem(Model.HOMOGRAPHY), options).inliers < 400).sum() >= 399


@pytest.mark.parametrize('model', MODELS)
def test_any_places_are_legal(model):
  rng = np.random.default_rng(0)
  for size in (1, 2, 5, 40, 1e6):
    for count in (4, 5, 8, 30):
      places = rng.integers(0, size, (10, 2, count, 2)) * 1.0
      for query, index in places:
        found = verify(query, index, Options(model=model, min_inliers=3))
        assert np.isfinite(found.matrix).all()
        assert len(np.unique(found.inliers)) == len(found)


@pytest.mark.parametrize('model', MODELS)
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


CORNERS = np.array([[0, 0], [0, 100], [100, 0], [100, 100]], float)
SHIFTED = np.array([[1, 0, 0], [0, 1, 0.5], [0, 0, 1]])


def test_a_fit_gathers_what_lies_exactly_at_the_residual():
  source = np.concatenate([CORNERS, [[50, 0], [50, 100]]])
  target = source + np.array([[0, 0]] * 4 + [[1, 0], [-1, 0]])
  _, agree = polish(SHIFTED, source, target, Model.SIMILARITY, 1.0)
  assert transforms.residuals(SHIFTED, source, target)[4:].min() > 1
  assert agree.all()


def test_a_transform_without_enough_matches_stays():
  matrix, agree = polish(SHIFTED, CORNERS, CORNERS + np.array([20, 0]), Model.AFFINE, 1.0)
  np.testing.assert_array_equal(matrix, SHIFTED)
  assert not agree.any()


def test_each_pixel_of_either_image_counts_once():
  source = np.array([[1.2, -0.5], [2.5, -0.5], [1.7, -0.1], [1.2, 40.9], [7, 8], [1e6, 1e6]])
  target = np.array([[1.2, -0.5], [2.5, -0.5], [9.5, 9.5], [1.5, 40.1], [1.9, 40.8], [1e6, 1e6]])
  agree = np.ones(6, bool)
  assert inliers(np.eye(3), source, target, agree, Limits()).tolist() == [0, 1, 3, 5]
  agree[0] = False
  assert inliers(np.eye(3), source, target, agree, Limits()).tolist() == [1, 2, 3, 5]


def test_inliers_are_where_the_transform_is_plausible():
  matrix = np.array([[1, 0, 0], [0, 1, 0], [-0.012, 0, 1]])
  found = inliers(matrix, CORNERS, CORNERS, np.ones(4, bool), Limits())
  assert found.tolist() == [0, 1]
