"""VLAD, ASMK, ASMK* and their regional forms: reference vectors, checklist, oracle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import kernels_oracle as oracle
from oracles.kernels_oracle import to_dense

from delf_d2r.kernels import aggregation, compiled
from delf_d2r.kernels.aggregation import (
  Kernel,
  aggregate,
  aggregate_each_region,
  aggregate_regions,
  binarize,
)
from delf_d2r.kernels.assignment import assign

# docs/reference.md 2.9
CENTROIDS = np.array([(0.5, 0.5), (0, 0), (1, 0), (-0.5, -0.5), (0, 1)], np.float32)
FEATURES_A = np.array([(1, 0), (-1, 0), (1, 2)], np.float32)
FEATURES_B = np.array([(1, 0), (-1, 0), (1, 2), (0, 2)], np.float32)


@pytest.fixture(params=['numba', 'numpy'], autouse=True)
def path(request, monkeypatch):
  """Runs every test of this file on both paths."""
  if request.param == 'numba' and not compiled.HAVE_NUMBA:
    pytest.skip('numba is not installed')
  monkeypatch.setattr(aggregation, 'HAVE_NUMBA', request.param == 'numba')
  return request.param


def words_of(features, num_assignments=1):
  return assign(features, CENTROIDS, num_assignments=num_assignments)


@pytest.mark.parametrize(
  'num_assignments, normalize, expected',
  [
    (1, False, [0, 0, 0, 0, 0, 0, -0.5, 0.5, 1, 1]),
    (1, True, [0, 0, 0, 0, 0, 0, -0.316228, 0.316228, 0.632456, 0.632456]),
    (3, False, [1, 1, 0, 0, 0, 2, -0.5, 0.5, 0, 0]),
  ],
)
def test_vlad_reference_vectors(num_assignments, normalize, expected):
  words = words_of(FEATURES_A, num_assignments)
  descriptor = aggregate(FEATURES_A, words, CENTROIDS, kernel=Kernel.VLAD, normalize=normalize)
  np.testing.assert_allclose(to_dense(descriptor, 5), expected, atol=1e-6)


@pytest.mark.parametrize(
  'offsets, normalize, expected',
  [
    ([0, 3, 4], False, [-0.158114, 0.158114, 0.316228, 0.816228]),
    ([0, 3, 4], True, [-0.175011, 0.175011, 0.350021, 0.903453]),
    ([0, 0, 3, 3, 4], False, [-0.079057, 0.079057, 0.158114, 0.408114]),
    ([0, 0, 3, 3, 4], True, [-0.175011, 0.175011, 0.350021, 0.903453]),
  ],
)
def test_regional_vlad_reference_vectors(offsets, normalize, expected):
  descriptor = aggregate_regions(
    FEATURES_B, words_of(FEATURES_B), offsets, CENTROIDS, kernel=Kernel.VLAD, normalize=normalize
  )
  np.testing.assert_allclose(to_dense(descriptor, 5), [0] * 6 + expected, atol=1e-6)


@pytest.mark.parametrize(
  'num_assignments, words, values',
  [
    (1, [3, 4], [[-0.707107, 0.707107], [0.707107, 0.707107]]),
    (3, [0, 2, 3], [[0.707107, 0.707107], [0, 1], [-0.707107, 0.707107]]),
  ],
)
def test_asmk_reference_vectors(num_assignments, words, values):
  descriptor = aggregate(FEATURES_A, words_of(FEATURES_A, num_assignments), CENTROIDS, kernel=Kernel.ASMK)
  assert descriptor.visual_words.tolist() == words
  np.testing.assert_allclose(descriptor.values, values, atol=1e-6)


def test_asmk_star_reference_vectors():
  descriptor = aggregate(FEATURES_A, words_of(FEATURES_A), CENTROIDS, kernel=Kernel.ASMK_STAR)
  assert descriptor.visual_words.tolist() == [3, 4]
  assert descriptor.values.tolist() == [[64], [192]]


def test_regional_asmk_reference_vectors():
  arguments = (FEATURES_B, words_of(FEATURES_B), [0, 3, 4], CENTROIDS)
  descriptor = aggregate_regions(*arguments, kernel=Kernel.ASMK)
  assert descriptor.visual_words.tolist() == [3, 4]
  np.testing.assert_allclose(descriptor.values, [[-0.707107, 0.707107], [0.361261, 0.932465]], atol=1e-6)
  assert aggregate_regions(*arguments, kernel=Kernel.ASMK_STAR).values.tolist() == [[64], [192]]


def test_checklist_2_every_region_is_normalised_before_the_sum():
  # Region 0 has a residual ten times that of region 1, yet both weigh the same.
  centroids = np.zeros((1, 2), np.float32)
  features = np.array([(10, 0), (0, 1)], np.float32)
  descriptor = aggregate_regions(features, [[0], [0]], [0, 1, 2], centroids, kernel=Kernel.ASMK)
  np.testing.assert_allclose(descriptor.values, [[0.5**0.5, 0.5**0.5]], rtol=1e-6)


@pytest.mark.parametrize('residual, present', [(2.0**-20, False), (1e-6, False), (2.0**-19, True)])
@pytest.mark.parametrize('kernel', [Kernel.ASMK, Kernel.ASMK_STAR])
def test_checklist_3_presence_is_strictly_above_1e_6(residual, present, kernel):
  features = np.array([[residual]], np.float32)
  assert np.sqrt(np.square(np.float32(1e-6))) == np.float32(1e-6)  # the middle case sits on the cut
  descriptor = aggregate(features, [[0]], np.zeros((1, 1), np.float32), kernel=kernel)
  assert len(descriptor) == present


@pytest.mark.parametrize('offsets, words', [([0, 2], [0, 1]), ([0, 2, 2], [0])])
def test_checklist_3_presence_is_judged_after_division_by_the_number_of_regions(offsets, words):
  centroids = np.zeros((2, 1), np.float32)
  features = np.array([[1.0], [1.5e-6]], np.float32)
  descriptor = aggregate_regions(features, [[0], [1]], offsets, centroids, kernel=Kernel.ASMK_STAR)
  assert descriptor.visual_words.tolist() == words


def test_checklist_4_and_5_zero_gives_bit_zero_and_the_first_dimension_the_highest_bit():
  values = np.array([[1, 0, -1, -0.0, 0.5, 0, 0, 0, 0, 1e-30]], np.float32)
  assert binarize(values).tolist() == [[0b10001000, 0b01000000]]
  assert oracle.unpack_signs(binarize(values), 10).tolist() == [[1, -1, -1, -1, 1, -1, -1, -1, -1, 1]]


@pytest.mark.parametrize('kernel', Kernel)
def test_checklist_8_words_ascend_as_uint32(kernel):
  features = np.array([(3, 3), (-3, -3), (0, 3), (3, -3)], np.float32)
  descriptor = aggregate(features, words_of(features), CENTROIDS, kernel=kernel)
  assert descriptor.visual_words.dtype == np.uint32
  assert np.all(np.diff(descriptor.visual_words.astype(int)) > 0)


@pytest.mark.parametrize('kernel', Kernel)
@pytest.mark.parametrize('offsets', [[0], [0, 0], [0, 0, 0]])
def test_checklist_11_no_features_give_an_empty_descriptor(kernel, offsets):
  features, words = np.zeros((0, 9), np.float32), np.zeros((0, 2), np.int32)
  centroids = np.ones((3, 9), np.float32)
  columns = 2 if kernel.is_binary else 9
  for descriptor in (
    aggregate(features, words, centroids, kernel=kernel),
    aggregate_regions(features, words, offsets, centroids, kernel=kernel),
    *aggregate_each_region(features, words, offsets, centroids, kernel=kernel),
  ):
    assert descriptor.values.shape == (0, columns)
    assert descriptor.dimensions == 9


@pytest.mark.parametrize('repeats', [1, 20])
@pytest.mark.parametrize('order, expected', [((1e8, -1e8, 1), 1), ((1e8, 1, -1e8), 0)])
def test_checklist_12_features_are_added_in_file_order(order, expected, repeats):
  features = np.array(order * repeats, np.float32)[:, None]
  descriptor = aggregate(
    features,
    np.zeros((len(features), 1), int),
    np.zeros((1, 1), np.float32),
    kernel=Kernel.VLAD,
    normalize=False,
  )
  if repeats == 1:
    assert to_dense(descriptor, 1).tolist() == [expected]
  running = np.float32(0)
  for value in features[:, 0]:
    running = running + value
  assert to_dense(descriptor, 1).tolist() == [running]


@st.composite
def images(draw, exact):
  """Features, words, offsets, centroids; values are multiples of 1/4 where sums must be exact."""
  dimensions = draw(st.integers(1, 19))
  num_words = draw(st.integers(1, 6))
  lengths = draw(st.lists(st.integers(0, 7), min_size=1, max_size=5))
  num_assignments = draw(st.integers(1, min(3, num_words)))
  rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
  shape = (sum(lengths), dimensions)

  def values(shape):
    return (rng.integers(-4, 5, shape) / 4 if exact else rng.normal(size=shape)).astype(np.float32)

  descriptors, centroids = values(shape), values((num_words, dimensions))
  words = np.argsort(rng.random((shape[0], num_words)), axis=1)[:, :num_assignments].astype(np.int32)
  if draw(st.booleans()) and shape[0] >= 2 and num_assignments == 1:
    words[1] = words[0]  # residuals that cancel
    descriptors[1] = 2 * centroids[words[0, 0]] - descriptors[0]
  return descriptors, words, np.r_[0, np.cumsum(lengths)], centroids


def expected_descriptor(dense, kernel):
  if not kernel.is_selective:
    words = np.flatnonzero(dense.any(axis=1))
    return words, dense[words]
  return (oracle.asmk_star if kernel.is_binary else oracle.asmk)(dense)


@pytest.mark.parametrize('kernel', Kernel)
@given(image=images(exact=True))
@settings(max_examples=60, deadline=None)
def test_descriptors_equal_the_oracle(kernel, image):
  descriptors, words, offsets, centroids = image
  dense = oracle.vlad(descriptors, words, centroids)
  regional_dense = oracle.regional_vlad(descriptors, words, offsets, centroids)
  whole = aggregate(descriptors, words, centroids, kernel=kernel, normalize=False)
  regional_whole = aggregate_regions(descriptors, words, offsets, centroids, kernel=kernel)
  for found, expected in ((whole, dense), (regional_whole, regional_dense)):
    expected_words, expected_values = expected_descriptor(expected, kernel)
    assert found.visual_words.tolist() == list(expected_words)
    if kernel.is_binary:
      assert found.values.tolist() == expected_values.tolist()
    else:
      np.testing.assert_allclose(found.values, expected_values, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize('kernel', Kernel)
@given(image=images(exact=True))
@settings(max_examples=20, deadline=None)
def test_each_region_is_aggregated_as_if_it_stood_alone(kernel, image):
  descriptors, words, offsets, centroids = image
  each = aggregate_each_region(descriptors, words, offsets, centroids, kernel=kernel)
  assert len(each) == len(offsets) - 1
  for r, found in enumerate(each):
    part = slice(offsets[r], offsets[r + 1])
    alone = aggregate(descriptors[part], words[part], centroids, kernel=kernel)
    assert found.visual_words.tolist() == alone.visual_words.tolist()
    assert found.values.tobytes() == alone.values.tobytes()


@pytest.mark.parametrize('kernel', [Kernel.ASMK, Kernel.ASMK_STAR])
@given(image=images(exact=True))
@settings(max_examples=40, deadline=None)
def test_masks_name_the_regions_that_have_each_word(kernel, image):
  descriptors, words, offsets, centroids = image
  offsets = [*offsets[:8], offsets[-1]]  # at most 8 regions
  plain = aggregate_regions(descriptors, words, offsets, centroids, kernel=kernel)
  masked = aggregate_regions(descriptors, words, offsets, centroids, kernel=kernel, masks=True)
  each = aggregate_each_region(descriptors, words, offsets, centroids, kernel=kernel)
  assert plain.region_masks is None
  assert masked.region_masks.dtype == np.uint8
  masks = {}
  for r, region in enumerate(each):
    for word in region.visual_words.tolist():
      masks[word] = masks.get(word, 0) | 1 << r
  pooled = dict(zip(plain.visual_words.tolist(), plain.values, strict=True))
  expected = [word for word in pooled if word in masks]
  assert masked.visual_words.tolist() == expected
  assert masked.region_masks.tolist() == [masks[word] for word in expected]
  for word, value in zip(expected, masked.values, strict=True):
    assert value.tobytes() == pooled[word].tobytes()


def test_masks_of_the_whole_image_and_a_box():
  words = np.array([2, 3, 4, 4])
  descriptor = aggregate_regions(FEATURES_B, words, [0, 3, 4], CENTROIDS, kernel=Kernel.ASMK_STAR, masks=True)
  # The first feature equals the centroid of its word, which is therefore not present.
  assert descriptor.visual_words.tolist() == [3, 4]
  assert descriptor.region_masks.tolist() == [0b01, 0b11]


def test_masks_are_for_asmk_and_eight_regions():
  arguments = (FEATURES_A, words_of(FEATURES_A))
  with pytest.raises(ValueError, match='masks: expected ASMK or ASMK_STAR, found VLAD'):
    aggregate_regions(*arguments, [0, 3], CENTROIDS, kernel=Kernel.VLAD, masks=True)
  eight = [0] * 8 + [3]
  assert (
    aggregate_regions(*arguments, eight, CENTROIDS, kernel=Kernel.ASMK, masks=True).region_masks.max() == 128
  )
  with pytest.raises(ValueError, match='at most 8 regions, found 9'):
    aggregate_regions(*arguments, [0, *eight], CENTROIDS, kernel=Kernel.ASMK, masks=True)


@given(image=images(exact=False))
@settings(max_examples=40, deadline=None)
def test_arbitrary_values_agree_with_the_oracle_within_rounding(image):
  descriptors, words, offsets, centroids = image
  expected = oracle.regional_vlad(descriptors, words, offsets, centroids)
  found = aggregate_regions(descriptors, words, offsets, centroids, kernel=Kernel.VLAD)
  np.testing.assert_allclose(to_dense(found, len(centroids)), expected.ravel(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('kernel', Kernel)
def test_both_paths_give_the_same_bytes(kernel, monkeypatch):
  rng = np.random.default_rng(3)
  features = rng.normal(size=(600, 40)).astype(np.float32)
  centroids = rng.normal(size=(50, 40)).astype(np.float32)
  words = rng.integers(0, 50, (600, 1))
  results = []
  for have_numba in (compiled.HAVE_NUMBA, False):
    monkeypatch.setattr(aggregation, 'HAVE_NUMBA', have_numba)
    found = aggregate_regions(features, words, [0, 300, 310, 310, 600], centroids, kernel=kernel)
    results.append((found.visual_words.tobytes(), found.values.tobytes()))
  assert results[0] == results[1]


@pytest.mark.parametrize(
  'change, message',
  [
    ({'words': np.zeros((3, 1))}, r'words: expected integers in \[0, 5\), found float64'),
    ({'words': np.full((3, 1), 5)}, r'words: expected integers in \[0, 5\).*\[5, 5\]'),
    ({'words': np.full((3, 1), -1)}, r'words: expected integers in \[0, 5\).*\[-1, -1\]'),
    ({'words': np.zeros((2, 1), int)}, r'words: expected shape \(3, m\).*found \(2, 1\)'),
    ({'words': np.zeros((4, 1), int)}, r'words: expected shape \(3, m\).*found \(4, 1\)'),
    ({'words': np.zeros((3, 0), int)}, r'words: expected shape \(3, m\), m >= 1, found \(3, 0\)'),
    ({'centroids': np.zeros((5, 3), np.float32)}, r'descriptors \(3, 2\) and centroids \(5, 3\)'),
    ({'centroids': np.zeros(2, np.float32)}, r'descriptors \(3, 2\) and centroids \(2,\)'),
    ({'descriptors': np.zeros(2, np.float32)}, r'descriptors \(2,\) and centroids \(5, 2\)'),
    ({'region_offsets': [0, 2]}, r'number of features \(3\), found \[0, 2\]'),
    ({'region_offsets': [0, 2, 1, 3]}, r'must rise'),
    ({'region_offsets': []}, r'must rise'),
    ({'kernel': 'asmk'}, r"expected a Kernel.*found 'asmk'"),
  ],
)
def test_wrong_arguments_are_named(change, message):
  arguments = {
    'descriptors': FEATURES_A, 'words': words_of(FEATURES_A), 'region_offsets': [0, 1, 3],
    'centroids': CENTROIDS, 'kernel': Kernel.ASMK,
  }  # fmt: skip
  with pytest.raises(ValueError, match=message):
    aggregate_regions(**(arguments | change))


def test_one_word_a_feature_needs_no_second_axis():
  words = words_of(FEATURES_A)
  plain, nested = (aggregate(FEATURES_A, w, CENTROIDS, kernel=Kernel.ASMK) for w in (words[:, 0], words))
  np.testing.assert_array_equal(plain.visual_words, nested.visual_words)
  np.testing.assert_array_equal(plain.values, nested.values)


def test_a_region_of_weight_w_counts_as_w_regions_alike():
  rng = np.random.default_rng(0)
  descriptors, centroids = rng.normal(size=(12, 5)), rng.normal(size=(4, 5))
  descriptors, centroids = descriptors.astype(np.float32), centroids.astype(np.float32)
  words = assign(descriptors, centroids)
  weighted = aggregate_regions(
    descriptors, words, (0, 7, 12), centroids, kernel=Kernel.ASMK, weights=np.array([1, 3])
  )
  repeated = np.r_[np.arange(7), np.tile(np.arange(7, 12), 3)]
  expected = aggregate_regions(
    descriptors[repeated], words[repeated], (0, 7, 12, 17, 22), centroids, kernel=Kernel.ASMK
  )
  np.testing.assert_array_equal(weighted.visual_words, expected.visual_words)
  np.testing.assert_allclose(weighted.values, expected.values, atol=1e-6)


def test_weights_of_one_change_no_byte():
  rng = np.random.default_rng(1)
  descriptors, centroids = rng.normal(size=(12, 5)).astype(np.float32), np.eye(5, dtype=np.float32)
  arguments = descriptors, assign(descriptors, centroids), (0, 7, 7, 12), centroids
  plain = aggregate_regions(*arguments, kernel=Kernel.VLAD)
  weighted = aggregate_regions(*arguments, kernel=Kernel.VLAD, weights=np.ones(3))
  assert plain.values.tobytes() == weighted.values.tobytes()


@pytest.mark.parametrize('kernel', list(Kernel))
def test_nan_is_refused(kernel):
  with pytest.raises(ValueError, match='row 1 of 2'):
    aggregate(
      np.array([[1, 0], [np.nan, 1]], np.float32), [0, 0], np.zeros((1, 2), np.float32), kernel=kernel
    )
