"""Which matches the verifier searches: of pyramids, of keypoints, of the published features of DELF v1."""

import numpy as np
import pytest
from support import published_features
from support.published_files import needs_published

from delf_d2r import config as configs
from delf_d2r.evaluation.average_precision import average_precision
from delf_d2r.geometry.matching import match
from delf_d2r.structures import LocalFeatures
from delf_d2r.verifier import Verifier

MATRIX, SHIFT = np.array([[1.1, 0.1], [-0.1, 1.2]]), np.array([20, -10])


def verifier(*overrides: str) -> Verifier:
  return Verifier(configs.load_or_default(None, ['verification'], overrides=overrides).verification)


def two_photos(
  *, is_pyramid: bool, related: bool = True, seed: int = 0
) -> tuple[LocalFeatures, LocalFeatures]:
  """Returns 80 features of a query and an index image, in which each has a neighbour that looks the same."""
  rng = np.random.default_rng(seed)
  places = rng.uniform(0, 300, (80, 2))
  places[40:] = places[:40] + 3
  looks = rng.normal(size=(80, 32))
  looks[40:] = looks[:40] + rng.normal(0, 0.02, (40, 32))
  other = looks if related else rng.permutation(looks)
  scales = rng.choice([0.5, 1, 2], 80) if is_pyramid else rng.uniform(1, 9, 80)

  def features(where: np.ndarray, descriptors: np.ndarray, noise: float) -> LocalFeatures:
    noisy = descriptors + rng.normal(0, noise, descriptors.shape)
    noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
    ones = np.ones(len(where), np.float32)
    return LocalFeatures(where.astype(np.float32), scales.astype(np.float32), ones, noisy.astype(np.float32))

  return features(places @ MATRIX.T + SHIFT, looks, 0.15), features(places, other, 0)


def test_mutual_matches_of_a_pyramid_are_verified_though_the_ratio_test_rejects_them():
  query, index = two_photos(is_pyramid=True)
  matches, found = verifier()(query, index)
  assert matches.credible.sum() < 10 < matches.mutual.sum()
  assert len(found) > 30
  np.testing.assert_allclose(found.matrix[:2, :2], MATRIX, atol=0.1)
  # The same result as without a ratio test.
  without = verifier('verification.ratio: 1')(query, index)[1]
  np.testing.assert_array_equal(found.matrix, without.matrix)
  np.testing.assert_array_equal(found.inliers, without.inliers)


def test_matches_of_keypoints_must_pass_the_ratio_test():
  query, index = two_photos(is_pyramid=False)
  matches, found = verifier()(query, index)
  # Few as they are, they are all compared; mutual pairs that are not credible are not asked for.
  assert matches.mutual is None
  assert match(query.descriptors, index.descriptors, max_distance=0.9).mutual.sum() > 10
  assert not len(found)


def test_without_the_test_of_both_ways_there_is_one_search():
  query, index = two_photos(is_pyramid=True)
  matches, found = verifier('verification.mutual: false')(query, index)
  assert matches.mutual is None
  assert not len(found)


@pytest.mark.parametrize('seed', range(20))
def test_pyramids_of_other_places_are_not_verified(seed):
  query, index = two_photos(is_pyramid=True, related=False, seed=seed)
  matches, found = verifier()(query, index)
  assert matches.mutual.sum() > 10
  assert not len(found)


def test_no_features_are_legal():
  query, _ = two_photos(is_pyramid=True)
  nothing = query.take(slice(0))
  for pair in ((query, nothing), (nothing, query), (nothing, nothing)):
    assert not len(verifier()(*pair)[1])


@needs_published
def test_published_features_of_delf_v1():
  """With one search the default rule verifies 2 of these 14 pairs of one landmark."""
  queries, index = published_features.load('query'), published_features.load('train')
  verify, precisions, verified = verifier(), {'ranked': [], 'verified': []}, {True: 0, False: 0}
  for name, query in queries.items():
    order = published_features.ranked(query, index)
    inliers = {other: len(verify(query, index[other])[1]) for other in order}
    for other in order:
      verified[other[0] == name] += inliers[other] > 0
    for key, found in {'ranked': order, 'verified': sorted(order, key=lambda x: -inliers[x])}.items():
      precisions[key].append(average_precision([k for k, x in enumerate(found) if x[0] == name]))
  assert 100 * np.mean(precisions['ranked']) == pytest.approx(69.6, abs=0.1)
  assert 100 * np.mean(precisions['verified']) > 86
  assert verified[True] >= 9
  assert verified[False] == 0
