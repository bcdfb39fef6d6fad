"""Patches around keypoints: where their pixels lie, and the features that a network makes of them."""

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from support.synthetic_photos import texture

from delf_d2r.extractors import patch_features
from delf_d2r.extractors.patch_features import PatchFeatures
from delf_d2r.extractors.root_sift import RootSift
from delf_d2r.protos import extraction_pb2

SIZE = 32


class Describer:
  """The patch itself, seen by the naked eye: 8 x 8 means."""

  patch_size, dimensions = SIZE, 64

  def __init__(self):
    self.seen = np.zeros((0, SIZE, SIZE))

  def __call__(self, patches):
    self.seen = patches
    return patches.reshape(len(patches), 8, 4, 8, 4).mean(axis=(2, 4)).reshape(len(patches), 64)


def make(describe=None, *, max_features=200, **fields):
  config = extraction_pb2.PatchConfig(**fields)
  return PatchFeatures(
    describe or Describer(),
    config,
    extraction_pb2.RootSiftConfig(),
    max_features=max_features,
    min_attention=0,
  )


def ramp(height=400, width=500):
  """Grey values that tell the place: y / 2 + x / 5, and where they are."""
  return (np.arange(height)[:, None] / 2 + np.arange(width) / 10).astype(np.float32)


@pytest.mark.parametrize('diameter', [2.0, 6.0, 14.0, 30.0])
@pytest.mark.parametrize('angle', [0.0, 30.0, 90.0, 200.0])
def test_pixels_lie_where_the_formula_says(diameter, angle):
  keypoint = cv2.KeyPoint(x=250.3, y=180.7, size=diameter, angle=angle)
  (patch,) = patch_features.cut(ramp(), [keypoint], magnification=6, patch_size=SIZE)
  step = 6 * diameter / SIZE
  for i, j in [(0, 0), (0, 31), (16, 5), (31, 31)]:
    right, down = (j - 15.5) * step, (i - 15.5) * step
    turn = np.radians(angle)
    x = 250.3 + np.cos(turn) * right - np.sin(turn) * down
    y = 180.7 + np.sin(turn) * right + np.cos(turn) * down
    # OpenCV interpolates at 32nds of a pixel of the pyramid's level.
    assert_allclose(patch[i, j], y / 2 + x / 10, atol=0.02 * max(step, 1))


def test_large_patches_are_averaged_not_sampled():
  stripes = np.zeros((300, 300), np.uint8)
  stripes[:, ::2] = 200
  keypoint = cv2.KeyPoint(x=150, y=150, size=40, angle=0)
  (patch,) = patch_features.cut(stripes, [keypoint], magnification=6, patch_size=SIZE)
  assert_allclose(patch, 100, atol=3)


def test_beyond_the_image_lies_its_edge():
  image = np.full((60, 60), 77, np.uint8)
  keypoint = cv2.KeyPoint(x=1, y=58, size=50, angle=77)
  assert_allclose(patch_features.cut(image, [keypoint], magnification=6, patch_size=SIZE), 77, atol=1e-3)
  assert patch_features.cut(image, [], magnification=6, patch_size=SIZE).shape == (0, SIZE, SIZE)


def test_keypoints_are_those_of_sift():
  image = texture(200, 260)
  found = make()(image)
  expected = RootSift(extraction_pb2.RootSiftConfig(), max_features=200, min_attention=0)(image)
  for name in ('locations', 'scales', 'attention'):
    assert_array_equal(getattr(found, name), getattr(expected, name))
  assert found.dimensions == 64
  assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1, rtol=1e-5)


def test_a_turned_photo_has_the_same_patches():
  image = texture(200, 200)
  one, other = Describer(), Describer()
  first = make(one)(image)
  second = make(other)(np.ascontiguousarray(np.rot90(image)))
  # (y, x) of what was at (y, x) is (W - x, y) after a quarter turn to the left.
  places = np.stack([200 - first.locations[:, 1], first.locations[:, 0]], axis=1)
  apart = np.linalg.norm(places[:, None] - second.locations, axis=2)
  differences = np.abs(one.seen[:, None] - other.seen[None]).mean(axis=(2, 3))
  matched = np.where(apart < 1, differences, np.inf).min(axis=1)
  usual = np.median(differences)
  assert (matched < usual / 4).mean() > 0.8


def test_intensities():
  image = texture(160, 160)
  unit, standard = Describer(), Describer()
  make(unit)(image)
  assert 0 <= unit.seen.min() < unit.seen.max() <= 1
  make(standard, intensities=extraction_pb2.PatchConfig.STANDARDIZED)(image)
  assert_allclose(standard.seen.mean(axis=(1, 2)), 0, atol=1e-4)
  assert_allclose(standard.seen.std(axis=(1, 2)), 1, rtol=1e-3)


def test_nothing_to_see():
  found = make()(np.full((80, 90, 3), 128, np.uint8))
  assert found.descriptors.shape == (0, 64)
