"""Regions matched by channel: all pairs, the best transform of a single pair, and the final inliers."""

import numpy as np
import pytest

from delf_d2r import config as configs
from delf_d2r.geometry import channels
from delf_d2r.structures import LocalFeatures
from delf_d2r.verifier import Verifier

SCALE, SHIFT = 1.5, np.array([40.0, -25.0])


def features(places, sizes, of_channels, strengths=None):
  n = len(places)
  return LocalFeatures(
    np.asarray(places, np.float32).reshape(n, 2),
    np.asarray(sizes, np.float32),
    np.ones(n, np.float32) if strengths is None else np.asarray(strengths, np.float32),
    np.asarray(of_channels, np.float32).reshape(n, 1),
  )


def scene(shared=30, others=70, seed=0):
  """Two photos whose channels respond to one object, among responses to other things."""
  generator = np.random.default_rng(seed)
  places = generator.uniform(50, 400, (shared, 2))
  sizes = generator.uniform(10, 60, shared)
  numbers = generator.integers(0, 64, shared)
  parts = []
  for scale, shift in ((SCALE, SHIFT), (1.0, 0.0)):
    noise = generator.normal(0, 1.5, (shared, 2))
    parts.append(
      features(
        np.concatenate([places * scale + shift + noise, generator.uniform(0, 700, (others, 2))]),
        np.concatenate([sizes * scale, generator.uniform(10, 90, others)]),
        np.concatenate([numbers, generator.integers(0, 64, others)]),
        generator.uniform(0.5, 1, shared + others),
      )
    )
  return parts


def test_all_pairs_of_a_channel_strongest_first():
  query = features(np.zeros((3, 2)), [1, 1, 1], [5, 2, 5], [3, 1, 2])
  index = features(np.zeros((4, 2)), [1, 1, 1, 1], [5, 9, 5, 2], [1, 9, 4, 5])
  found = channels.match(query, index)
  assert list(zip(found.query.tolist(), found.index.tolist(), strict=True)) == [
    (0, 2),
    (2, 2),
    (1, 3),
    (0, 0),
    (2, 0),
  ]
  assert found.credible.all()
  nothing = features(np.zeros((0, 2)), [], [])
  assert len(channels.match(nothing, index)) == len(channels.match(query, nothing)) == 0


def consistent(query, index, **options):
  matches = channels.match(query, index)
  options = {'max_residual': 6, 'max_scale': 10, 'trials': 10_000, **options}
  return matches, channels.consistent_matches(query, index, matches, **options)


def slow(query, index, matches, max_residual):
  """The most matches that agree with the shift and scale of one."""
  most = 0
  for a, b in zip(matches.query, matches.index, strict=True):
    scale = query.scales[a] / index.scales[b]
    moved = scale * (index.locations[matches.index] - index.locations[b]) + query.locations[a]
    apart = np.linalg.norm(moved - query.locations[matches.query], axis=1)
    most = max(most, (apart <= max_residual).sum())
  return most


def test_the_best_single_match_is_found(monkeypatch):
  query, index = scene()
  for residual, least in ((6, 15), (2, 5)):
    with monkeypatch.context() as context:
      matches, found = consistent(query, index, max_residual=residual)
      assert found.sum() == slow(query, index, matches, residual) > least
      context.setattr(channels, '_CHUNK', 300)
      np.testing.assert_array_equal(consistent(query, index, max_residual=residual)[1], found)


@pytest.mark.parametrize('chunk', [1, 1000])
def test_of_equally_good_matches_the_first_is_taken(monkeypatch, chunk):
  monkeypatch.setattr(channels, '_CHUNK', chunk)
  query = features([[0, 0], [90, 10]], [1, 1], [5, 6], [2, 1])
  index = features([[0, 0], [10, 90]], [1, 1], [5, 6], [2, 1])
  assert consistent(query, index)[1].tolist() == [True, False]


def test_matches_of_too_different_sizes_are_not_tried():
  query, index = scene()
  assert not consistent(query, index, max_scale=1.0001)[1].sum() > 3
  assert not consistent(features(np.zeros((0, 2)), [], []), index)[1].size


@pytest.fixture
def verifier():
  overrides = ['verification { matching: SAME_CHANNEL extraction { extractor: ACTIVATION_REGIONS } }']
  return Verifier(configs.load_or_default(None, ['verification'], overrides=overrides).verification)


def test_the_transform_between_two_photos(verifier):
  query, index = scene()
  _, found = verifier(query, index)
  assert len(found) >= 25
  np.testing.assert_allclose(found.matrix[:2, :2], np.eye(2) * SCALE, atol=0.05)
  np.testing.assert_allclose(found.matrix[:2, 2], SHIFT, atol=8)


def test_photos_of_other_things(verifier):
  query, index = scene()[0], scene(seed=1)[1]
  assert len(verifier(query, index)[1]) < 15
  assert len(verifier(query, features(np.zeros((0, 2)), [], []))[1]) == 0
