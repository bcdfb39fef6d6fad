"""RootSIFT: where features are, how many, in what order, and what they are described by."""

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from support.synthetic_photos import blobs, texture

from delf_d2r.extractors.keypoints import KeypointDetector
from delf_d2r.extractors.root_sift import RootSift, root_normalize
from delf_d2r.protos import extraction_pb2
from delf_d2r.structures import FEATURE_ARRAYS


def extractor(max_features=1000, min_attention=0.0, **options):
  return RootSift(
    extraction_pb2.RootSiftConfig(**options), max_features=max_features, min_attention=min_attention
  )


@pytest.mark.parametrize('sigma', [2, 4, 8])
def test_blobs_are_found_where_they_are(sigma):
  places = np.array([(60.5, 70.5), (61.2, 160.8), (150.0, 90.0)])
  found = extractor(max_features=3, upright=True)(blobs(220, 240, places, sigma))
  assert len(found) == 3
  distances = np.linalg.norm(found.locations[:, None] - places[None], axis=2)
  assert distances.min(axis=0).max() < 0.1  # Within a tenth of a pixel, without any bias.
  assert_allclose(found.scales, found.scales[0], rtol=0.1)
  assert found.scales[0] == pytest.approx(2 * sigma * 0.885, rel=0.05)


@pytest.mark.parametrize('image', [np.full((100, 120, 3), 255, np.uint8), np.zeros((10, 10, 3), np.uint8)])
def test_image_without_texture_has_no_features(image):
  found = extractor()(image)
  assert found.descriptors.shape == (0, 128)
  assert found.locations.shape == (0, 2)


def test_descriptors_have_unit_norm_and_no_negative_parts():
  found = extractor()(texture())
  assert len(found) > 100
  assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1, atol=1e-5)
  assert found.descriptors.min() >= 0
  for field in FEATURE_ARRAYS:
    assert getattr(found, field).dtype == np.float32


@pytest.mark.parametrize('upright', [False, True])
def test_most_attention_first_and_no_more_than_wanted(upright):
  everything = extractor(max_features=10**6, upright=upright)(texture())
  assert np.all(np.diff(everything.attention) <= 0)
  for count in (1, 50, len(everything)):
    found = extractor(max_features=count, upright=upright)(texture())
    assert len(found) == count
    for field in FEATURE_ARRAYS:
      assert_array_equal(getattr(found, field), getattr(everything, field)[:count])


def test_ties_stand_in_the_order_of_their_places():
  # Every 128 pixels the same: a whole number of steps in each octave that matters.
  places = [(y, x) for y in (64.5, 192.5) for x in (64.5, 192.5, 320.5)]
  found = extractor(upright=True)(blobs(256, 384, places))
  ties = found.take(found.attention == found.attention[0])
  assert len(ties) == 6
  assert_allclose(ties.locations, places, atol=0.1)


def test_least_attention_is_inclusive():
  everything = extractor()(texture())
  limit = float(everything.attention[20])
  assert len(extractor(min_attention=limit)(texture())) == np.sum(everything.attention >= limit)
  assert len(extractor(min_attention=1e9)(texture())) == 0


@pytest.mark.parametrize('count', [3, 100, 10**6])
@pytest.mark.parametrize('coarse', [False, True])
@pytest.mark.parametrize('upright', [False, True])
def test_one_scale_space_gives_the_bytes_of_two(count, coarse, upright):
  # Large blobs have their keypoints in coarse octaves alone.
  image = blobs(220, 240, [(60.5, 70.5), (61.2, 160.8)], 16) if coarse else texture()
  grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
  config = extraction_pb2.RootSiftConfig(upright=upright)
  detector = KeypointDetector(config, max_features=count, min_attention=0.02)
  unlimited = KeypointDetector(config, max_features=10**6, min_attention=0.02)
  keypoints, descriptors = detector.describe(grey)
  expected_keypoints, expected = unlimited.sift.compute(grey, unlimited(grey)[:count])
  assert len(keypoints) == len(expected_keypoints) > 0
  assert_array_equal([k.pt for k in keypoints], [k.pt for k in expected_keypoints])
  assert_array_equal([k.angle for k in keypoints], [k.angle for k in expected_keypoints])
  assert_array_equal(descriptors, expected)


def test_upright_features_stand_once_at_a_place():
  found = extractor(upright=True)(texture())
  places = np.column_stack([found.locations, found.scales])
  assert len(np.unique(places, axis=0)) == len(found)
  turned = extractor()(texture())
  assert len(np.unique(np.column_stack([turned.locations, turned.scales]), axis=0)) < len(turned)


def test_same_image_gives_same_bytes_on_any_number_of_threads():
  threads = cv2.getNumThreads()
  results = []
  try:
    for number in (1, 2, 2):
      cv2.setNumThreads(number)
      results.append(extractor()(texture(300, 400)))
  finally:
    cv2.setNumThreads(threads)
  for other in results[1:]:
    for field in FEATURE_ARRAYS:
      assert getattr(other, field).tobytes() == getattr(results[0], field).tobytes()


def test_image_need_not_be_writable_nor_have_texture_in_every_channel():
  image = texture()
  image[:, :, 0] = 0
  image.flags.writeable = False
  assert len(extractor()(image))


def test_thresholds_and_layers_reach_opencv():
  count = len(extractor(max_features=10**6)(texture()))
  assert len(extractor(max_features=10**6, contrast_threshold=0.2)(texture())) < count
  assert len(extractor(max_features=10**6, edge_threshold=1.5)(texture())) < count
  assert len(extractor(max_features=10**6, octave_layers=5)(texture())) != count


def test_root_normalize():
  found = root_normalize(np.array([[1, 0, 3], [0, 0, 0]], np.float32))
  assert_allclose(found, [[0.5, 0, np.sqrt(3) / 2], [0, 0, 0]])
  assert root_normalize(np.zeros((0, 128), np.float32)).shape == (0, 128)
  assert found.dtype == np.float32
