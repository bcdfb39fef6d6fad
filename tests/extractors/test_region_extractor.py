"""Regions: whichever way a feature is found, its location is that of the original photo."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from support.synthetic_photos import blobs, texture

from delf_d2r import config as configs
from delf_d2r.errors import ImageError
from delf_d2r.extractors import region_extractor
from delf_d2r.extractors.region_extractor import RegionExtractor
from delf_d2r.protos import extraction_pb2
from delf_d2r.structures import FEATURE_ARRAYS, WHOLE_IMAGE, Boxes, LocalFeatures

HEIGHT, WIDTH = 300, 420


def options(**fields):
  config = configs.default('extraction').extraction
  for name, value in fields.items():
    setattr(config, name, value)
  return config


class BrightPixels:
  """A local extractor that is easy to check: a feature at the centre of every white pixel."""

  dimensions = 3

  def __init__(self):
    self.seen = []

  def __call__(self, image):
    self.seen.append(image.copy())
    places = np.argwhere(np.all(image == 255, axis=2)).astype(np.float32) + 0.5
    n = len(places)
    return LocalFeatures(places, np.ones(n, np.float32), np.ones(n, np.float32), np.ones((n, 3), np.float32))


def dots(*places):
  image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
  for y, x in places:
    image[y, x] = 255
  return image


def extract(image, boxes, **fields):
  return RegionExtractor(BrightPixels(), options(**fields)).extract('x', image, Boxes.from_coordinates(boxes))


def assert_same_features(a, b):
  for field in FEATURE_ARRAYS:
    assert_array_equal(getattr(a, field), getattr(b, field))


# With the simple extractor: exact


@pytest.mark.parametrize('region_features', ['CROP', 'INSIDE'])
def test_regions_in_the_frame_of_the_photo(region_features):
  mode = extraction_pb2.ExtractionConfig.RegionFeatures.Value(region_features)
  image = dots((10, 10), (100, 200), (299, 419))
  boxes = [[0, 0, 0.5, 0.5], [0.3, 0.4, 1, 1], [0.5, 0, 1, 0.5]]
  found = extract(image, boxes, region_features=mode)
  assert (found.name, found.height, found.width) == ('x', HEIGHT, WIDTH)
  assert_allclose(found.boxes, [WHOLE_IMAGE, *boxes])
  assert [found.region(r).locations.tolist() for r in range(4)] == [
    [[10.5, 10.5], [100.5, 200.5], [299.5, 419.5]],
    [[10.5, 10.5], [100.5, 200.5]],
    [[100.5, 200.5], [299.5, 419.5]],
    [],
  ]


def test_photo_without_boxes_has_the_whole_as_its_only_region():
  found = extract(dots((5, 6)), [])
  assert_array_equal(found.boxes, [WHOLE_IMAGE])
  assert_array_equal(found.region_offsets, [0, 1])


def test_photo_without_features():
  found = extract(dots(), [[0, 0, 1, 1], [0, 0, 0.5, 0.5]])
  assert_array_equal(found.region_offsets, [0, 0, 0, 0])
  assert found.features.descriptors.shape == (0, 3)


@pytest.mark.parametrize(
  ('limits', 'sizes'),
  [
    ({}, [(300, 420), (150, 210)]),
    ({'max_image_size': 210}, [(150, 210), (150, 210)]),
    ({'max_crop_size': 105}, [(300, 420), (75, 105)]),
    ({'min_image_size': 840, 'max_image_size': 0}, [(600, 840), (150, 210)]),
    ({'min_crop_size': 420}, [(300, 420), (300, 420)]),
  ],
)
def test_sizes_at_which_photo_and_crops_are_seen(limits, sizes):
  local = BrightPixels()
  RegionExtractor(local, options(**limits)).extract('x', dots(), Boxes.from_coordinates([[0, 0, 0.5, 0.5]]))
  assert [seen.shape[:2] for seen in local.seen] == sizes
  assert all(seen.flags.c_contiguous for seen in local.seen)


@pytest.mark.parametrize('size', [(9, 100), (100, 9), (1, 1)])
def test_tiny_photos_have_no_features(size):
  found = RegionExtractor(BrightPixels(), options(min_image_size=200)).extract(
    'x', np.full((*size, 3), 255, np.uint8), Boxes.from_coordinates([[0, 0, 1, 1]])
  )
  assert_array_equal(found.region_offsets, [0, 0, 0])
  assert (found.height, found.width) == size


def test_tiny_crops_and_crops_that_resizing_makes_tiny_have_no_features():
  image = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
  boxes = [[0, 0, 9 / HEIGHT, 1], [0, 0, 10 / HEIGHT, 1], [0, 0, 1e-4, 1e-4]]
  found = extract(image, boxes)
  assert np.diff(found.region_offsets).tolist() == [HEIGHT * WIDTH, 0, 10 * WIDTH, 0]
  found = extract(image, boxes, max_crop_size=380)
  assert np.diff(found.region_offsets).tolist() == [HEIGHT * WIDTH, 0, 0, 0]


@pytest.mark.parametrize('min_crop_size', [0, 500])
def test_query_crop_sees_no_pixel_outside_its_box(min_crop_size):
  generator = np.random.default_rng(0)
  box = (0.2, 0.3, 0.71, 0.77)
  inside = np.s_[60:213, 126:324]
  image = generator.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
  other = generator.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
  other[inside] = image[inside]
  local = BrightPixels()
  extractor = RegionExtractor(local, options(min_crop_size=min_crop_size))
  for photo in (image, other):
    assert extractor.extract_query('q', photo, box).num_regions == 1
  assert_array_equal(local.seen[0], local.seen[1])
  if not min_crop_size:
    assert_array_equal(local.seen[0], image[inside])


def test_query_without_a_box_is_the_whole_photo():
  extractor = RegionExtractor(BrightPixels(), options())
  found = extractor.extract_query('q', dots((5, 6)), None)
  assert_array_equal(found.boxes, [WHOLE_IMAGE])
  assert len(found.features) == 1


def test_query_box_outside_the_photo_has_no_features():
  found = RegionExtractor(BrightPixels(), options()).extract_query('q', dots((5, 6)), (1.5, 1.5, 2, 2))
  assert len(found.features) == 0


# With RootSIFT: blobs at known places

PLACES = np.mgrid[90:220:40, 130:340:45].reshape(2, -1).T + np.random.default_rng(0).uniform(0, 1, (20, 2))
BOX = [0.2, 0.2, 0.8, 0.9]


@pytest.mark.parametrize(
  'limits',
  [
    {},
    {'max_image_size': 330, 'max_crop_size': 211},
    {'min_image_size': 700, 'min_crop_size': 500},
    {'max_image_size': 257, 'min_crop_size': 777},
  ],
)
def test_blobs_are_where_they_are_in_whole_and_crop(limits):
  photo = blobs(HEIGHT, WIDTH, PLACES, sigma=5)
  config = options(**limits)
  config.root_sift.upright = True
  extractor = region_extractor.build(config)
  found = extractor.extract('x', photo, Boxes.from_coordinates([BOX]))
  for features in (found.region(0), found.region(1), extractor.extract_query('q', photo, BOX).features):
    distances = np.linalg.norm(features.locations[:, None] - PLACES[None], axis=2)
    nearest = distances.argmin(axis=0)
    found_blobs = distances.min(axis=0) < 3  # SIFT misses a blob now and then.
    assert found_blobs.mean() > 0.8
    assert distances.min(axis=0)[found_blobs].max() < 0.3
    bias = np.mean((features.locations[nearest] - PLACES)[found_blobs], axis=0)
    assert np.abs(bias).max() < 0.05
    assert_allclose(features.scales[nearest][found_blobs], 2 * 5 * 0.885, rtol=0.1)


def test_same_keypoints_in_whole_and_crop_agree():
  photo = texture(HEIGHT, WIDTH)
  extractor = region_extractor.build(options(max_features=10_000))
  # An even origin, so that the pyramids of whole and crop sample the same pixels.
  found = extractor.extract('x', photo, Boxes.from_coordinates([[96 / HEIGHT, 64 / WIDTH, 1, 1]]))
  whole, crop = found.region(0), found.region(1)
  small = crop.take((crop.scales < 5) & np.all(crop.locations > (96 + 40, 64 + 40), axis=1))
  small = small.take(np.all(small.locations < (HEIGHT - 40, WIDTH - 40), axis=1))
  assert len(small) > 20
  distances = np.linalg.norm(small.locations[:, None] - whole.locations[None], axis=2)
  nearest = distances.argmin(axis=1)
  assert np.quantile(distances.min(axis=1), 0.9) < 0.05
  similarity = np.sum(small.descriptors * whole.descriptors[nearest], axis=1)
  assert np.median(similarity) > 0.99


def test_inside_takes_the_features_of_the_whole_photo():
  photo = texture(HEIGHT, WIDTH)
  extractor = region_extractor.build(options(region_features=extraction_pb2.ExtractionConfig.INSIDE))
  found = extractor.extract('x', photo, Boxes.from_coordinates([BOX, list(WHOLE_IMAGE)]))
  assert_same_features(found.region(2), found.region(0))
  inside = found.region(1)
  assert 0 < len(inside) < len(found.region(0))
  low, high = np.array(BOX).reshape(2, 2) * (HEIGHT, WIDTH)
  everything = found.region(0).locations
  assert len(inside) == np.sum(np.all((everything >= low) & (everything <= high), axis=1))


def test_limit_on_features_is_for_each_region():
  extractor = region_extractor.build(options(max_features=7))
  found = extractor.extract('x', texture(HEIGHT, WIDTH), Boxes.from_coordinates([BOX, BOX]))
  assert np.diff(found.region_offsets).tolist() == [7, 7, 7]
  assert_same_features(found.region(1), found.region(2))


def test_query_features_are_those_of_the_crop_alone():
  photo = texture(HEIGHT, WIDTH)
  extractor = region_extractor.build(options())
  features = extractor.extract_query('q', photo, BOX).features
  other = texture(HEIGHT, WIDTH, seed=1)
  other[60:240, 84:378] = photo[60:240, 84:378]
  assert_same_features(extractor.extract_query('q', other, BOX).features, features)
  assert len(features) > 10


def test_two_runs_give_the_same_bytes():
  photo = texture(HEIGHT, WIDTH)
  first, second = (
    region_extractor.build(options()).extract('x', photo, Boxes.from_coordinates([BOX])) for _ in range(2)
  )
  assert_same_features(first.features, second.features)


def test_unknown_extractors_are_refused():
  class Unknown:
    extractor = 99

  with pytest.raises(ValueError, match='extractor 99 has no implementation'):
    region_extractor.build(Unknown)


@pytest.mark.parametrize('field', FEATURE_ARRAYS)
@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf, 1e25])
def test_values_that_cannot_be_used_are_named_with_the_photo(field, value):
  class Broken(BrightPixels):
    def __call__(self, image):
      found = super().__call__(image)
      getattr(found, field)[-1] = value
      return found

  extractor = RegionExtractor(Broken(), options())
  with pytest.raises(ImageError, match=f'sub/x.jpg: .*{field}.*row 1 of 2'):
    extractor.extract('sub/x.jpg', dots((5, 5), (20, 30)), Boxes.empty())
  with pytest.raises(ImageError, match=r'the query: .*row 1 of 2'):
    extractor.extract_query('the query', dots((5, 5), (20, 30)), (0, 0, 1, 1))
