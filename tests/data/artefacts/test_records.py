"""Records: what goes in comes out, TensorFlow can parse it, and damage is one kind of error."""

import contextlib
import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from delf_d2r.data.artefacts import records
from delf_d2r.data.artefacts.records import ImageDescriptors
from delf_d2r.errors import ArtefactError
from delf_d2r.protos import example_pb2
from delf_d2r.structures import FEATURE_ARRAYS, AggregatedDescriptor, Boxes, ImageFeatures, LocalFeatures

NAME = 'S\u00e3o Paulo/caf\u00e9 \u5bfa 1.jpg'


def local_features(n, d):
  generator = np.random.default_rng(n)
  return LocalFeatures(*(generator.normal(size=size).astype(np.float32) for size in ((n, 2), n, n, (n, d))))


def image_features(offsets=(0, 3, 3, 5), d=4):
  boxes = np.linspace(0, 1, 4 * (len(offsets) - 1), dtype=np.float32).reshape(-1, 4)
  return ImageFeatures(NAME, 480, 640, boxes, np.array(offsets), local_features(offsets[-1], d))


def image_descriptors(sizes=(2, 0, 3), d=12, binary=True):
  columns, dtype = (-(-d // 8), np.uint8) if binary else (d, np.float32)
  descriptors = [
    AggregatedDescriptor(
      np.arange(w, dtype=np.uint32) * 70_000, np.arange(w * columns).reshape(w, columns).astype(dtype), d
    )
    for w in sizes
  ]
  return ImageDescriptors(NAME, np.zeros((3, 4), np.float32), descriptors)


@pytest.mark.parametrize('offsets', [(0, 3, 3, 5), (0, 0), (0, 0, 0), (0, 1)])
@pytest.mark.parametrize('d', [1, 128])
def test_features_round_trip(offsets, d):
  image = image_features(offsets, d)
  found = records.decode_features(records.encode_features(image))
  assert (found.name, found.height, found.width) == (NAME, 480, 640)
  for field in FEATURE_ARRAYS:
    expected, array = getattr(image.features, field), getattr(found.features, field)
    assert_array_equal(array, expected)
    assert (array.shape, array.dtype) == (expected.shape, np.float32)
  assert_array_equal(found.boxes, image.boxes)
  assert_array_equal(found.region_offsets, image.region_offsets)


@pytest.mark.parametrize('r', [0, 1, 3])
def test_boxes_round_trip(r):
  boxes = Boxes(np.full((r, 4), 0.25, np.float32), np.linspace(0, 1, r, dtype=np.float32))
  name, found = records.decode_boxes(records.encode_boxes(NAME, boxes))
  assert name == NAME
  assert_array_equal(found.coordinates, boxes.coordinates)
  assert_array_equal(found.scores, boxes.scores)
  assert found.coordinates.shape == (r, 4)


@pytest.mark.parametrize('sizes', [(2, 0, 3), (0,), (0, 0), (5,)])
@pytest.mark.parametrize('binary', [True, False])
def test_descriptors_round_trip(sizes, binary):
  image = image_descriptors(sizes, binary=binary)
  found = records.decode_descriptors(records.encode_descriptors(image))
  assert found.name == NAME
  assert len(found.descriptors) == len(sizes)
  for expected, descriptor in zip(image.descriptors, found.descriptors, strict=True):
    assert_array_equal(descriptor.visual_words, expected.visual_words)
    assert_array_equal(descriptor.values, expected.values)
    assert descriptor.values.dtype == expected.values.dtype
    assert descriptor.dimensions == 12


def test_region_masks_are_in_a_record_only_if_there_are_some():
  plain = image_descriptors(sizes=(3,))
  (only,) = plain.descriptors
  masked = dataclasses.replace(only, region_masks=np.array([1, 3, 128], np.uint8))
  data = records.encode_descriptors(dataclasses.replace(plain, descriptors=[masked]))
  assert b'region_masks' not in records.encode_descriptors(plain)
  assert records.decode_descriptors(records.encode_descriptors(plain)).descriptors[0].region_masks is None
  (found,) = records.decode_descriptors(data).descriptors
  assert found.region_masks.tolist() == [1, 3, 128]
  wrong = records.encode('x', {'dimensions': 12}, {
    'boxes': plain.boxes, 'descriptor_offsets': np.array([0, 3]), 'visual_words': only.visual_words,
    'values': only.values, 'region_masks': np.ones(2, np.uint8),
  })  # fmt: skip
  with pytest.raises(ArtefactError, match='2 region_masks of 3 visual words'):
    records.decode_descriptors(wrong)


def test_equal_values_give_equal_bytes_whatever_their_layout():
  image = image_features()
  swapped = ImageFeatures(
    image.name,
    image.height,
    image.width,
    np.asfortranarray(image.boxes),
    image.region_offsets.astype('>i8'),
    LocalFeatures(
      *(np.asfortranarray(getattr(image.features, name).astype('>f4')) for name in FEATURE_ARRAYS)
    ),
  )
  assert records.encode_features(swapped) == records.encode_features(image)


def test_decoded_arrays_cannot_be_written():
  found = records.decode_features(records.encode_features(image_features()))
  with pytest.raises(ValueError, match='read-only'):
    found.features.descriptors[0] = 0


def test_record_of_another_stage_is_named():
  with pytest.raises(ArtefactError, match='no field height; was it written by another kind of stage'):
    records.decode_features(records.encode_boxes('a', Boxes.empty()))
  with pytest.raises(ArtefactError, match='no field scores'):
    records.decode_boxes(records.encode_features(image_features()))


# A change to one feature of the record, which no checksum would find.


def changed(data, change):
  example = example_pb2.Example.FromString(data)
  change(example.features.feature)
  return example.SerializeToString()


def set_array(key, array):
  def change(feature):
    for suffix in ('', '/dtype', '/shape'):
      feature[key + suffix].Clear()
    feature[key].bytes_list.value.append(array.tobytes())
    feature[f'{key}/dtype'].bytes_list.value.append(array.dtype.name.encode())
    feature[f'{key}/shape'].int64_list.value.extend(array.shape)

  return change


def set_shape(key, *shape):
  def change(feature):
    feature[f'{key}/shape'].int64_list.value[:] = shape

  return change


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (set_array('boxes', np.zeros((3, 4))), "boxes: expected dtype float32, found 'float64'"),
    (set_array('boxes', np.zeros((3, 4), np.uint8)), "expected dtype float32, found 'uint8'"),
    (set_array('boxes', np.zeros((3, 5), np.float32)), 'ImageFeatures.boxes'),
    (set_array('boxes', np.zeros(12, np.float32)), r'do not fill shape \(12,\)'),
    (set_array('region_offsets', np.array([0, 5], np.int64)), 'region_offsets'),
    (set_array('region_offsets', np.array([0, 4, 2, 5], np.int64)), 'must rise'),
    (set_array('region_offsets', np.array([0, 2**63 - 1, -2, 5], np.int64)), 'must rise'),
    (set_array('region_offsets', np.array([0, 3, 3, 6], np.int64)), 'must rise'),
    (set_array('region_offsets', np.array([0, 3, 3, 5], np.uint32)), 'expected dtype int64'),
    (set_shape('descriptors', 5, -4), 'do not fill'),
    (set_shape('descriptors', -5, -4), 'do not fill'),
    (set_shape('descriptors', 2**62, 2**62), 'do not fill'),
    (set_shape('descriptors', 5, 3), 'do not fill'),
    (set_shape('descriptors'), 'do not fill'),
    (set_array('scales', np.zeros(4, np.float32)), 'LocalFeatures.scales'),
    (lambda feature: feature['height'].Clear(), 'height: expected one integer, found 0'),
    (lambda feature: feature['height'].int64_list.value.append(1), 'height: expected one integer, found 2'),
    (lambda feature: feature['name'].bytes_list.value.append(b'b'), 'name: expected one value, found 2'),
    (lambda feature: feature['name'].bytes_list.value.__setitem__(0, b'\xff'), 'UTF-8 name'),
    (lambda feature: feature.pop('scales'), 'no field scales'),
  ],
)
def test_contradictions_in_features(change, message):
  with pytest.raises(ArtefactError, match=message):
    records.decode_features(changed(records.encode_features(image_features()), change))


@pytest.mark.parametrize('shape', [(0, 2**62), (2**62, 0), (0, 2**63 - 1)])
def test_shape_of_nothing_that_is_too_large(shape):
  data = records.encode_features(image_features((0, 0)))
  with pytest.raises(ArtefactError):
    records.decode_features(changed(data, set_shape('descriptors', *shape)))


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (set_array('descriptor_offsets', np.array([0, 4, 2, 5], np.int64)), 'do not divide 5 visual words'),
    (set_array('descriptor_offsets', np.zeros(0, np.int64)), 'do not divide'),
    (set_array('visual_words', np.zeros(5, np.int64)), 'expected dtype uint32'),
    (set_array('values', np.zeros((5, 2), np.int64)), 'expected dtype float32 or uint8'),
    (set_array('values', np.zeros((5, 3), np.uint8)), r'expected shape \(2, 2\), found \(2, 3\)'),
    (set_array('values', np.zeros((4, 2), np.uint8)), r'AggregatedDescriptor.values'),
    (
      lambda feature: feature['dimensions'].int64_list.value.__setitem__(0, -1),
      'AggregatedDescriptor.values',
    ),
  ],
)
def test_contradictions_in_descriptors(change, message):
  with pytest.raises(ArtefactError, match=message):
    records.decode_descriptors(changed(records.encode_descriptors(image_descriptors()), change))


DECODERS = {
  records.decode_features: records.encode_features(image_features()),
  records.decode_boxes: records.encode_boxes(NAME, Boxes.from_coordinates([[0, 0, 1, 1]] * 3)),
  records.decode_descriptors: records.encode_descriptors(image_descriptors()),
}


@pytest.mark.parametrize('decode', DECODERS)
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_mutated_bytes_raise_nothing_else(decode, data):
  original = DECODERS[decode]
  mutated = bytearray(original)
  for _ in range(data.draw(st.integers(1, 3))):
    position = data.draw(st.integers(0, len(mutated) - 1))
    kind = data.draw(st.sampled_from(['change', 'remove', 'insert', 'cut']))
    if kind == 'change':
      mutated[position] = data.draw(st.integers(0, 255))
    elif kind == 'insert':
      mutated[position:position] = data.draw(st.binary(min_size=1, max_size=8))
    elif kind == 'remove' and len(mutated) > 1:
      del mutated[position]
    elif position:
      del mutated[position:]
  with contextlib.suppress(ArtefactError):
    decode(bytes(mutated))


@pytest.mark.parametrize('decode', DECODERS)
def test_every_cut_is_found(decode):
  original = DECODERS[decode]
  for size in range(len(original)):
    with pytest.raises(ArtefactError):
      decode(original[:size])


def test_tensorflow_parses_records(monkeypatch):
  monkeypatch.setenv('TF_CPP_MIN_LOG_LEVEL', '3')
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
  tf = pytest.importorskip('tensorflow')
  image = image_features()
  example = tf.io.parse_single_example(
    records.encode_features(image),
    {
      'name': tf.io.FixedLenFeature([], tf.string),
      'height': tf.io.FixedLenFeature([], tf.int64),
      'descriptors': tf.io.FixedLenFeature([], tf.string),
      'descriptors/dtype': tf.io.FixedLenFeature([], tf.string),
      'descriptors/shape': tf.io.FixedLenFeature([2], tf.int64),
      'region_offsets': tf.io.FixedLenFeature([], tf.string),
    },
  )
  descriptors = tf.io.decode_raw(example['descriptors'], tf.float32)
  assert_array_equal(tf.reshape(descriptors, example['descriptors/shape']), image.features.descriptors)
  assert_array_equal(tf.io.decode_raw(example['region_offsets'], tf.int64), image.region_offsets)
  assert example['name'].numpy().decode() == NAME
  assert example['descriptors/dtype'].numpy() == b'float32'
  assert example['height'].numpy() == 480
