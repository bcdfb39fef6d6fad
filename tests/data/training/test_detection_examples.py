"""Photos with boxes as records: round trips, the format of TensorFlow, and invalid records."""

import io

import numpy as np
import pytest
from PIL import Image

from delf_d2r.data.training import detection_examples
from delf_d2r.data.training.detection_examples import DetectionExample
from delf_d2r.errors import ArtefactError, ImageError
from delf_d2r.protos import example_pb2

PIXELS = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)


def encoded_png():
  buffer = io.BytesIO()
  Image.fromarray(PIXELS).save(buffer, 'PNG')
  return buffer.getvalue()


def example(**changes):
  fields = {
    'name': 'gr\u00fc\u00dfe/1.png',
    'source_id': 12,
    'encoded': encoded_png(),
    'format': 'png',
    'height': 6,
    'width': 8,
    'boxes': np.array([[0, 0.25, 0.5, 1], [0.1, 0.2, 0.3, 0.4]], np.float32),
    'labels': np.array([1, 2]),
    'texts': ('landmark', 'door'),
    'groups': ('tower_1', ''),
  }
  return DetectionExample(**(fields | changes))


NOTHING = {'boxes': np.zeros((0, 4), np.float32), 'labels': np.zeros(0, np.int64), 'texts': (), 'groups': ()}


def assert_same(a, b):
  for field in ('boxes', 'labels'):
    np.testing.assert_array_equal(getattr(a, field), getattr(b, field))
  for field in ('name', 'source_id', 'encoded', 'format', 'height', 'width', 'texts', 'groups'):
    assert getattr(a, field) == getattr(b, field)


@pytest.mark.parametrize('changes', [{}, NOTHING], ids=['objects', 'nothing'])
def test_there_and_back(changes):
  original = example(**changes)
  data = detection_examples.encode(original)
  found = detection_examples.decode(data)
  assert_same(found, original)
  assert found.boxes.dtype == np.float32
  assert found.boxes.shape == (len(original.labels), 4)
  assert data == detection_examples.encode(found)
  np.testing.assert_array_equal(found.image(), PIXELS)


def test_records_of_others_need_no_groups_and_texts():
  proto = example_pb2.Example.FromString(detection_examples.encode(example()))
  for key in ('image/object/group', 'image/object/class/text'):
    del proto.features.feature[key]
  found = detection_examples.decode(proto.SerializeToString())
  assert (found.groups, found.texts) == (('', ''), ('', ''))


@pytest.mark.parametrize('changes', [{}, NOTHING], ids=['objects', 'nothing'])
def test_tensorflow_reads_the_form_of_the_object_detection_api(changes):
  tf = pytest.importorskip('tensorflow')
  original = example(**changes)
  strings = ('encoded', 'format', 'filename', 'source_id')
  sides = ('ymin', 'xmin', 'ymax', 'xmax')
  features = {f'image/{key}': tf.io.FixedLenFeature((), tf.string) for key in strings}
  features |= {f'image/{key}': tf.io.FixedLenFeature((), tf.int64) for key in ('height', 'width')}
  features |= {f'image/object/bbox/{side}': tf.io.VarLenFeature(tf.float32) for side in sides}
  features['image/object/class/label'] = tf.io.VarLenFeature(tf.int64)
  features |= {f'image/object/{key}': tf.io.VarLenFeature(tf.string) for key in ('class/text', 'group')}
  parsed = tf.io.parse_single_example(detection_examples.encode(original), features)

  def dense(key):
    return tf.sparse.to_dense(parsed[f'image/object/{key}']).numpy()

  np.testing.assert_array_equal(tf.io.decode_image(parsed['image/encoded']), PIXELS)
  assert parsed['image/filename'].numpy().decode() == original.name
  assert parsed['image/source_id'].numpy() == b'12'
  assert parsed['image/format'].numpy() == b'png'
  assert (int(parsed['image/height']), int(parsed['image/width'])) == (6, 8)
  boxes = np.stack([dense(f'bbox/{side}') for side in sides], axis=1)
  np.testing.assert_array_equal(boxes, original.boxes)
  np.testing.assert_array_equal(dense('class/label'), original.labels)
  assert tuple(text.decode() for text in dense('class/text')) == original.texts
  assert tuple(group.decode() for group in dense('group')) == original.groups


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'boxes': np.array([[0, 0, 0.5, 1.1]] * 2, np.float32)}, r'0 <= min < max <= 1'),
    ({'boxes': np.array([[0.5, 0, 0.5, 1]] * 2, np.float32)}, r'0 <= min < max <= 1'),
    ({'boxes': np.array([[np.nan, 0, 0.5, 1]] * 2, np.float32)}, r'0 <= min < max <= 1'),
    ({'boxes': np.zeros((1, 4), np.float32)}, r'and R of the others'),
    ({'groups': ('x',)}, r'and R of the others'),
    ({'labels': np.array([1, 0])}, r'class numbers from 1, found 0'),
    ({'format': 'bmp'}, r"format jpeg or png, found 'bmp'"),
    ({'height': 0}, r'at least 1 x 1, found 0 x 8'),
  ],
)
def test_what_contradicts_itself_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    example(**changes)


def changed(key, kind, values):
  proto = example_pb2.Example.FromString(detection_examples.encode(example()))
  feature = proto.features.feature[f'image/{key}']
  feature.Clear()
  getattr(feature, kind).value.extend(values)
  return proto.SerializeToString()


@pytest.mark.parametrize(
  'data, message',
  [
    (b'\xff\xff', 'no tf.train.Example'),
    (b'', 'image/filename: expected one value, found 0'),
    (changed('encoded', 'bytes_list', []), 'image/encoded: expected one value, found 0'),
    (changed('height', 'int64_list', [1, 2]), 'image/height: expected one value, found 2'),
    (changed('source_id', 'bytes_list', [b'x']), 'contradicts itself'),
    (changed('filename', 'bytes_list', [b'\xff']), 'contradicts itself'),
    (changed('object/bbox/ymin', 'float_list', [0]), 'contradicts itself'),
    (changed('object/bbox/ymin', 'float_list', [0, 0.9]), 'contradicts itself: .*0 <= min < max'),
    (changed('object/class/label', 'int64_list', [1]), 'contradicts itself: .*R of the others'),
  ],
)
def test_damaged_records_are_explained(data, message):
  with pytest.raises(ArtefactError, match=message):
    detection_examples.decode(data)


def test_photo_that_is_none_or_of_another_size():
  with pytest.raises(ImageError, match='its photo: not an image'):
    example(encoded=b'no photo').image()
  with pytest.raises(ImageError, match='the record says 6 x 9, the photo is 6 x 8'):
    example(width=9).image()


def test_label_map_counts_from_one_and_quotes():
  assert detection_examples.label_map(["king's gate", 'a\\b']) == (
    "item {\n  id: 1\n  name: 'king\\'s gate'\n}\nitem {\n  id: 2\n  name: 'a\\\\b'\n}\n"
  )
