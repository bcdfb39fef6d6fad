"""The values that stages exchange: shapes are checked, zero rows are legal."""

import numpy as np
import pytest

from delf_d2r.structures import AggregatedDescriptor, Boxes, ImageFeatures, LocalFeatures, Match, Ranking


def features(n, d=4):
  rows = np.arange(n, dtype=np.float32)
  return LocalFeatures(np.stack([rows, rows], 1).reshape(n, 2), rows, -rows, np.ones((n, d), np.float32))


def image_features(offsets, n, regions=None):
  offsets = np.array(offsets)
  boxes = np.zeros((len(offsets) - 1 if regions is None else regions, 4), np.float32)
  return ImageFeatures('a b/\u00fc.jpg', 10, 20, boxes, offsets, features(n))


def test_zero_rows_are_legal():
  assert len(Boxes.empty()) == 0
  assert Boxes.empty().coordinates.shape == (0, 4)
  empty = LocalFeatures.empty(7)
  assert (len(empty), empty.dimensions) == (0, 7)
  assert LocalFeatures.concatenate([empty, empty]).descriptors.shape == (0, 7)
  assert len(image_features([0, 0, 0], 0).region(1)) == 0
  assert len(AggregatedDescriptor(np.zeros(0, np.uint32), np.zeros((0, 1), np.uint8), 5)) == 0
  assert len(Ranking('q', np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.int32))) == 0


def test_boxes_have_score_one_where_the_source_has_none():
  boxes = Boxes.from_coordinates([[0, 0, 1, 1], [0, 0, 0.5, 0.5]])
  np.testing.assert_array_equal(boxes.scores, [1, 1])
  assert boxes.coordinates.dtype == boxes.scores.dtype == np.float32


@pytest.mark.parametrize('index', [[1, 2], slice(1, 3), np.array([False, True, True, False])])
def test_take_takes_the_same_rows_of_everything(index):
  taken = features(4).take(index)
  np.testing.assert_array_equal(taken.scales, [1, 2])
  np.testing.assert_array_equal(taken.attention, [-1, -2])
  np.testing.assert_array_equal(taken.locations, [[1, 1], [2, 2]])
  assert taken.descriptors.shape == (2, 4)


def test_regions_are_consecutive_slices():
  image = image_features([0, 2, 2, 5], 5)
  assert image.num_regions == 3
  assert [image.region(r).scales.tolist() for r in range(3)] == [[0, 1], [], [2, 3, 4]]


def test_regions_are_taken_with_their_features_and_boxes():
  image = image_features([0, 2, 2, 5], 5)
  image.boxes[:, 0] = [0, 0.1, 0.2]
  taken = image.take_regions([0, 2])
  assert [taken.region(r).scales.tolist() for r in range(2)] == [[0, 1], [2, 3, 4]]
  np.testing.assert_array_equal(taken.boxes, image.boxes[[0, 2]])
  assert (taken.name, taken.height, taken.width) == (image.name, 10, 20)
  assert image.take_regions([1]).features.descriptors.shape == (0, 4)


@pytest.mark.parametrize('offsets', [[1, 2, 5], [0, 3, 4], [0, 6], [0, 4, 2, 5], [0, -1, 5]])
def test_region_offsets_must_divide_the_features(offsets):
  with pytest.raises(ValueError, match=r'rise from 0 to the number of features \(5\), found \[.*\]'):
    image_features(offsets, 5)


def test_offsets_that_fall_are_found_in_unsigned_numbers_too():
  with pytest.raises(ValueError, match='must rise'):
    image_features(np.array([0, 4, 2, 5], np.uint32), 5)


def test_message_names_both_shapes():
  with pytest.raises(ValueError, match=r"Boxes\.coordinates: expected shape \('any', 4\), found \(2, 3\)"):
    Boxes(np.zeros((2, 3)), np.zeros(2))
  with pytest.raises(ValueError, match=r'ImageFeatures\.region_offsets: expected shape \(3,\), found \(2,\)'):
    image_features([0, 5], 5, regions=2)
  with pytest.raises(ValueError, match=r'Ranking\.scores'):
    Ranking('q', np.zeros(2), np.zeros(1), np.zeros(2))
  with pytest.raises(ValueError, match=r'LocalFeatures\.attention'):
    LocalFeatures(np.zeros((2, 2)), np.zeros(2), np.zeros(3), np.zeros((2, 8)))


@pytest.mark.parametrize(('dimensions', 'columns'), [(1, 1), (8, 1), (9, 2), (128, 16)])
def test_binary_descriptors_pack_eight_dimensions_a_byte(dimensions, columns):
  words = np.arange(3, dtype=np.uint32)
  assert AggregatedDescriptor(words, np.zeros((3, columns), np.uint8), dimensions).is_binary
  with pytest.raises(ValueError, match=rf'expected shape \(3, {columns}\), found \(3, {columns + 1}\)'):
    AggregatedDescriptor(words, np.zeros((3, columns + 1), np.uint8), dimensions)
  assert not AggregatedDescriptor(words, np.zeros((3, dimensions), np.float32), dimensions).is_binary


def test_matches_have_as_many_places_in_either_image():
  places = np.zeros((4, 2), np.float32)
  assert len(Match(0, np.eye(3), places, places)) == 4
  with pytest.raises(ValueError, match=r'Match.index_locations: expected shape \(4, 2\), found \(3, 2\)'):
    Match(0, np.eye(3), places, places[:3])
