"""Features of all regions as one set: which features are duplicates and which are not."""

import numpy as np
import pytest

from delf_d2r.geometry.merging import merge_regions
from delf_d2r.structures import ImageFeatures, LocalFeatures


def features(locations, scales, descriptors):
  locations = np.array(locations, np.float32).reshape(-1, 2)
  return LocalFeatures(
    locations,
    np.array(scales, np.float32),
    np.zeros(len(locations), np.float32),
    np.array(descriptors, np.float32),
  )


def image(*regions):
  offsets = np.cumsum([0, *map(len, regions)])
  boxes = np.tile(np.array([0, 0, 1, 1], np.float32), (len(regions), 1))
  return ImageFeatures('a.jpg', 100, 100, boxes, offsets, LocalFeatures.concatenate(list(regions)))


FIRST = features([[10, 20]], [8], [[1, 0]])


@pytest.mark.parametrize(
  ('location', 'scale', 'descriptor', 'is_new'),
  [
    ([10, 20], 8, [1, 0], False),
    ([11.5, 18.5], 9, [0.98, 0.2], False),
    ([12.5, 20], 8, [1, 0], True),
    ([10, 20], 12, [1, 0], True),
    ([10, 20], 5, [1, 0], True),
    ([10, 20], 8, [0.8, 0.6], True),
    ([10, 20], 0, [1, 0], True),
    ([np.nan, 20], 8, [1, 0], True),
    ([10, 20], 8, [np.nan, 0], True),
  ],
)
def test_what_another_region_adds(location, scale, descriptor, is_new):
  merged = merge_regions(image(FIRST, features([location], [scale], [descriptor])))
  assert len(merged) == 1 + is_new
  np.testing.assert_array_equal(merged.descriptors[0], FIRST.descriptors[0])


def test_features_of_one_region_are_all_kept():
  twice = features([[10, 20], [10, 20]], [8, 8], [[1, 0], [1, 0]])
  assert len(merge_regions(image(twice))) == 2
  assert len(merge_regions(image(features([], [], np.zeros((0, 2), np.float32)), twice))) == 2
  assert len(merge_regions(image(FIRST, twice))) == 1


def test_the_earliest_region_has_it_and_order_stays():
  rng = np.random.default_rng(0)
  whole = features(rng.uniform(0, 100, (50, 2)), rng.uniform(2, 20, 50), np.eye(50))
  box = features(whole.locations[10:30], whole.scales[10:30], np.eye(50)[10:30])
  other = features(rng.uniform(0, 100, (5, 2)), np.ones(5), np.eye(50)[:5])
  merged = merge_regions(image(whole, box, other, box))
  for name in ('locations', 'scales', 'descriptors'):
    np.testing.assert_array_equal(
      getattr(merged, name), np.concatenate([getattr(whole, name), getattr(other, name)])
    )


@pytest.mark.parametrize('seed', range(5))
def test_numba_and_numpy_keep_the_same(seed):
  """Places on a coarse grid, so that many are at the very limit."""
  rng = np.random.default_rng(seed)
  regions = [
    features(
      rng.integers(0, 20, (80, 2)) / 2, rng.choice([1, 2, 2**1.5, np.nan], 80), rng.uniform(0, 0.4, (80, 5))
    )
    for _ in range(4)
  ]
  one, other = (merge_regions(image(*regions), compiled=compiled) for compiled in (False, True))
  assert 80 < len(one) < 320
  for name in ('locations', 'scales', 'descriptors'):
    np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_no_features_at_all():
  nothing = features([], [], np.zeros((0, 2)))
  assert merge_regions(image(nothing, nothing)).descriptors.shape == (0, 2)
