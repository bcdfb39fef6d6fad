"""Expanded queries: which features of other images count, and how much."""

import numpy as np
import pytest
from google.protobuf import text_format

from delf_d2r import config as configs
from delf_d2r.aggregator import Aggregator, search_options
from delf_d2r.config.rules import aggregation as aggregation_rules
from delf_d2r.kernels.assignment import ExactAssigner
from delf_d2r.protos.aggregation_pb2 import AggregationConfig
from delf_d2r.structures import ImageFeatures, LocalFeatures

CENTROIDS = np.eye(6, dtype=np.float32)


def features(*words, seed=0):
  """A feature near each of the given words."""
  rng = np.random.default_rng(seed)
  descriptors = CENTROIDS[list(words)] + rng.normal(0, 0.05, (len(words), 6))
  zeros = np.zeros(len(words), np.float32)
  return LocalFeatures(np.zeros((len(words), 2), np.float32), zeros, zeros, descriptors.astype(np.float32))


def query(*words):
  found = features(*words)
  return ImageFeatures('q', 1, 1, np.array([[0, 0, 1, 1]], np.float32), np.array([0, len(found)]), found)


@pytest.fixture
def aggregator():
  return Aggregator(configs.default('aggregation').aggregation, CENTROIDS, ExactAssigner(CENTROIDS))


@pytest.mark.parametrize(
  ('least', 'words'), [(1, [0, 1, 2, 3, 4, 5]), (2, [0, 1, 2, 3]), (3, [0, 1, 2]), (4, [0, 1])]
)
def test_a_new_word_needs_so_many_images(aggregator, least, words):
  others = [features(0, 2, 3), features(2, 3, 4, 4), features(2, 5)]
  found = aggregator.expanded_query(query(0, 1), others, [1, 1, 1], min_images_per_word=least)
  assert found.visual_words.tolist() == words


def test_without_others_it_is_the_query(aggregator):
  expected, found = aggregator.query(query(0, 1, 4)), aggregator.expanded_query(query(0, 1, 4), [], [])
  np.testing.assert_array_equal(found.visual_words, expected.visual_words)
  np.testing.assert_array_equal(found.values, expected.values)


def test_weights_decide_the_signs(aggregator):
  other = features(0, seed=1)
  alone = aggregator.query(query(0)).values
  theirs = aggregator.expanded_query(query(0), [other], [1e6]).values
  assert aggregator.expanded_query(query(0), [other], [1e-6]).values.tolist() == alone.tolist()
  assert theirs.tolist() != alone.tolist()


def test_query_and_images_without_features(aggregator):
  assert len(aggregator.expanded_query(query(), [features()], [1])) == 0
  found = aggregator.expanded_query(query(), [features(3), features()], [1, 1])
  assert found.visual_words.tolist() == [3]


def regions(count):
  """An image of several regions with one feature each."""
  found = features(*(r % 6 for r in range(count)))
  boxes = np.tile(np.array([[0, 0, 1, 1]], np.float32), (count, 1))
  return ImageFeatures('m', 1, 1, boxes, np.arange(count + 1), found)


def with_fields(text):
  config = configs.default('aggregation').aggregation
  config.MergeFrom(text_format.Parse(text, AggregationConfig()))
  return config


def aggregator_with(text):
  return Aggregator(with_fields(text), CENTROIDS, ExactAssigner(CENTROIDS))


def test_region_masks_name_the_whole_image_and_its_seven_best_boxes():
  masked = aggregator_with('regions: REGIONAL_AGGREGATION region_masks: true')
  plain = aggregator_with('regions: REGIONAL_AGGREGATION')
  assert plain.index_image(regions(9)).descriptors[0].region_masks is None
  eight, more = (masked.index_image(regions(count)) for count in (8, 11))
  assert (len(eight.boxes), len(more.boxes)) == (8, 8)
  (one,), (other,) = eight.descriptors, more.descriptors
  # Six words: regions 6 and 7 have those of regions 0 and 1 again.
  assert one.region_masks.tolist() == [0b01000001, 0b10000010, 4, 8, 16, 32]
  assert other.region_masks.tolist() == one.region_masks.tolist()
  np.testing.assert_array_equal(other.values, plain.index_image(regions(8)).descriptors[0].values)
  assert masked.query(query(0, 1)).region_masks is None


def test_region_masks_divide_by_the_number_of_words_unless_told_otherwise():
  for text, expected in (
    ('regions: REGIONAL_AGGREGATION', False),
    ('regions: REGIONAL_AGGREGATION region_masks: true', True),
    ('regions: REGIONAL_AGGREGATION region_masks: true normalize: false', False),
  ):
    assert search_options(with_fields(text))['normalize'] == expected


def test_whole_image_weight_is_the_weight_of_region_0_in_the_sum():
  # A word that the whole image and the box have: the naive weighted mean of their normalised residual sums.
  whole, box = features(0, 1, 2, seed=2), features(0, 3, seed=5)
  image = regions(2)
  image = ImageFeatures(
    image.name,
    image.height,
    image.width,
    image.boxes,
    np.array([0, 3, 5]),
    LocalFeatures.concatenate([whole, box]),
  )
  residuals = [part.descriptors - CENTROIDS[words] for part, words in ((whole, [0, 1, 2]), (box, [0, 3]))]
  shares = [part[0] / np.linalg.norm(part) for part in residuals]
  codes = {}
  for weight in (None, 0.05, 1.0, 20.0):
    text = 'regions: REGIONAL_AGGREGATION' + (f' whole_image_weight: {weight}' if weight else '')
    found = aggregator_with(text).index_image(image).descriptors[0]
    assert found.visual_words.tolist() == [0, 1, 2, 3]
    codes[weight] = np.unpackbits(found.values[0])[:6].tolist()
    assert codes[weight] == ((weight or 1) * shares[0] + shares[1] > 0).astype(int).tolist()
  assert codes[None] == codes[1.0]
  assert codes[0.05] != codes[20.0]


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('regions: REGIONAL_AGGREGATION whole_image_weight: 0', 'must be in'),
    ('regions: REGIONAL_AGGREGATION whole_image_weight: nan', 'must be in'),
    ('whole_image_weight: 0.5', 'REGIONAL_AGGREGATION'),
  ],
)
def test_whole_image_weight_is_checked(text, expected):
  config = text_format.Parse(text, AggregationConfig())
  assert expected in ' '.join(problem.text for problem in aggregation_rules.problems(config))
