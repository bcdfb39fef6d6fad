"""SavedModels of detectors in every form, and those that are none: boxes by hand, batches, classes."""

import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose, assert_array_equal
from support.detection_models import OUTPUTS, photo, stand_in, write_tf1, write_tf2
from support.published_files import PUBLISHED, needs_published

from delf_d2r.errors import UserError
from delf_d2r.models.saved_models import detections

FORMS = {
  'tensorflow/models': (write_tf1, {'feed': 'input_images'}, 'TensorFlow 1', True),
  'three outputs': (write_tf1, {'outputs': OUTPUTS[:3]}, 'TensorFlow 1', True),
  'frozen': (write_tf1, {'feed': 'image_tensor', 'shape': (1, None, None, 3)}, 'TensorFlow 1', False),
  'signature': (write_tf2, {}, 'TensorFlow 2', False),
  'another placeholder': (write_tf1, {'feed': 'ToFloat/images'}, 'TensorFlow 1', True),
  'files of photos': (
    write_tf1,
    {
      'feed': 'encoded_image_string_tensor',
      'dtype': 'string',
      'shape': (None,),
      'signature': 'serving_default',
    },
    'TensorFlow 1',
    True,
  ),
  'files of photos, TensorFlow 2': (write_tf2, {'dtype': 'string', 'shape': (1,)}, 'TensorFlow 2', False),
  'prefixed nodes': (write_tf1, {'feed': 'net/image_tensor', 'prefix': ('net/',)}, 'TensorFlow 1', True),
  'signature of other nodes': (
    write_tf1,
    {'feed': 'x', 'prefix': ('a/', 'b/'), 'signature': 'detect'},
    'TensorFlow 1',
    True,
  ),
  'one of two inputs in the signature': (
    write_tf1,
    {'second': True, 'signature': 'serving_default'},
    'TensorFlow 1',
    True,
  ),
  'another input': (write_tf2, {'feed': 'images', 'shape': (None, None, None, 3)}, 'TensorFlow 2', True),
  'callable': (write_tf2, {'is_callable': True}, 'TensorFlow 2', False),
}
RED, GREEN = (10, 5, 30, 20, 255), (0, 20, 20, 40, 102)


@pytest.mark.parametrize('form', FORMS)
def test_every_form_is_told_apart_and_asked_right(tmp_path, form):
  write, options, kind, takes_batches = FORMS[form]
  model = detections.load(write(tmp_path / 'model', **options))
  assert (model.kind, model.takes_batches) == (kind, takes_batches)
  (found,) = model.detect(photo(40, 50, red=RED, green=GREEN)[None])
  assert_allclose(found.boxes[:2], [[0.25, 0.1, 0.75, 0.4], [0, 0.4, 0.5, 0.8]], rtol=1e-6)
  assert_allclose(found.scores[:2], [1, 0.4], rtol=1e-6)
  assert_array_equal(found.classes[:2], [1, 2])
  # Without num_detections the padding stays: of no score and no area.
  assert len(found.scores) == (4 if form == 'three outputs' else 2)
  assert not np.any(found.boxes[2:])
  assert (found.boxes.dtype, found.scores.dtype, found.classes.dtype) == (np.float32, np.float32, np.int64)


@pytest.mark.parametrize('write', [write_tf1, write_tf2])
@pytest.mark.parametrize('shape', [(1, 80, 25, 3), (None, 80, 25, 3), (1, 80, None, 3)])
def test_photos_are_resized_for_a_model_of_one_size(tmp_path, write, shape):
  seen = []

  def compute(images):
    seen.append(images.shape.as_list()[1:])
    return stand_in(images)

  model = detections.load(write(tmp_path / 'model', shape=shape, compute=compute))
  assert seen[0] == list(shape[1:])
  assert model.takes_batches == (shape[0] is None)
  (found,) = model.detect(photo(40, 50, red=RED, green=GREEN)[None])
  # The edges of the rectangles lie between pixels of the smaller image.
  assert_allclose(found.boxes[:2], [[0.25, 0.1, 0.75, 0.4], [0, 0.4, 0.5, 0.8]], atol=0.041)


@pytest.mark.parametrize('write', [write_tf1, write_tf2])
def test_boxes_in_pixels_of_a_model_of_one_size(tmp_path, write):
  model = detections.load(write(tmp_path / 'model', shape=(1, 80, 100, 3), compute=in_pixels_of_80_by_100))
  (found,) = model.detect(photo(40, 50, red=RED, green=GREEN)[None])
  assert_allclose(found.boxes[:2], [[0.25, 0.1, 0.75, 0.4], [0, 0.4, 0.5, 0.8]], atol=0.021)


def in_pixels_of_80_by_100(images):
  found = stand_in(images)
  return {**found, 'detection_boxes': found['detection_boxes'] * [80.0, 100.0, 80.0, 100.0]}


@pytest.mark.slow
@needs_published
def test_published_model_of_the_object_detection_api_as_a_session_runs_it():
  directory = str(PUBLISHED / 'od_api_tf1_ssd/saved_model')
  model = detections.load(directory)
  assert (model.kind, model.takes_batches) == ('TensorFlow 1', True)
  image = photo(120, 160, red=(20, 30, 80, 90, 255), green=(50, 80, 110, 150, 200))
  (found,) = model.detect(image[None])
  v1 = tf.compat.v1
  with v1.Session(graph=tf.Graph()) as session:
    v1.saved_model.loader.load(session, ['serve'], directory)
    wanted = session.run([f'{name}:0' for name in OUTPUTS], {'image_tensor:0': image[None]})
  count = int(wanted[3][0])
  assert count == len(found.scores) > 0
  for value, name in zip(wanted, ('boxes', 'scores', 'classes'), strict=False):
    assert_allclose(getattr(found, name), value[0][:count], rtol=1e-5, atol=1e-6)


# What is refused


@pytest.mark.slow
@pytest.mark.parametrize('missing', OUTPUTS[:3])
@pytest.mark.parametrize('write', [write_tf1, write_tf2])
def test_output_that_is_missing_is_named(tmp_path, write, missing):
  path = write(tmp_path / 'model', outputs=[name for name in OUTPUTS if name != missing])
  with pytest.raises(UserError, match=f'no detector that can be used: .* {missing}.*Its signatures are'):
    detections.load(path)


def test_tensorflow_2_needs_the_count(tmp_path):
  path = write_tf2(tmp_path / 'model', outputs=OUTPUTS[:3])
  with pytest.raises(UserError, match='serving_default lacks num_detections'):
    detections.load(path)


@pytest.mark.parametrize('write', [write_tf1, write_tf2])
@pytest.mark.parametrize(
  ('options', 'found'),
  [
    ({'dtype': 'float32'}, r'float32 \['),
    ({'shape': (8, None, None, 3)}, r'uint8 \[8, None, None, 3\]'),
    ({'shape': (8, 300, 300, 3)}, r'uint8 \[8, 300, 300, 3\]'),
  ],
)
def test_input_of_another_kind(tmp_path, write, options, found):
  path = write(tmp_path / 'model', **options)
  with pytest.raises(UserError, match=rf'is {found}.*expected uint8 \[1, None, None, 3\]'):
    detections.load(path)


@pytest.mark.parametrize('options', [{'prefix': ('a/', 'b/')}, {'second': True}])
def test_outputs_or_inputs_that_are_ambiguous_are_named(tmp_path, options):
  path = write_tf1(tmp_path / 'model', **options)
  wanted = 'it has them under a/, b/' if 'prefix' in options else 'placeholders images, threshold instead of'
  with pytest.raises(UserError, match=wanted):
    detections.load(path)


@pytest.mark.parametrize('write', [write_tf1, write_tf2])
def test_records_as_input_are_refused(tmp_path, write):
  path = write(tmp_path / 'model', dtype='string', shape=(None,), parse=True)
  with pytest.raises(UserError, match=r'is string \[None\], expected uint8'):
    detections.load(path)


def test_model_of_local_features_is_told_from_its_signature(tmp_path):
  specs = {
    'input_image': tf.TensorSpec([None, None, 3], tf.uint8, name='input_image'),
    'input_scales': tf.TensorSpec([None], tf.float32, name='input_scales'),
  }
  function = tf.function(
    lambda input_image, input_scales: {'boxes': tf.zeros((0, 4)), 'features': tf.zeros((0, 8))},
    autograph=False,
  ).get_concrete_function(**specs)
  tf.saved_model.save(tf.Module(), str(tmp_path / 'delf'), signatures={'serving_default': function})
  message = (
    r"lacks detection_boxes, .*\['input_image', 'input_scales'\] -> \['boxes', 'features'\].*extraction\.delf"
  )
  with pytest.raises(UserError, match=message):
    detections.load(str(tmp_path / 'delf'))


def test_nothing_there(tmp_path):
  with pytest.raises(UserError, match=r'no such directory|neither a directory nor a handle'):
    detections.load(str(tmp_path / 'nowhere'))
  with pytest.raises(UserError, match=r'no file saved_model\.pb'):
    detections.load(str(tmp_path))


def pixels(images):
  found = stand_in(images)
  return {**found, 'detection_boxes': found['detection_boxes'] * 40}


def integers(images):
  found = stand_in(images)
  return {**found, 'detection_boxes': tf.cast(found['detection_boxes'] * 255, tf.int32)}


def flat(images):
  found = stand_in(images)
  return {**found, 'detection_boxes': found['detection_boxes'][0]}


def crashing(images):
  found = stand_in(images)
  return {**found, 'detection_boxes': tf.gather(found['detection_boxes'], tf.shape(images)[1:2], axis=1)}


@pytest.mark.parametrize(
  ('compute', 'message'),
  [
    (pixels, r'a coordinate of 32, expected shares of height and width in \[0, 1\]'),
    (integers, r"its detection_boxes is int32 \[1, 4, 4\], expected float32 \[1, 'R', 4\]"),
    (flat, r"its detection_boxes is float32 \[4, 4\], expected float32 \[1, 'R', 4\]"),
    (crashing, r'failed on images of shape \(1, 40, 50, 3\).*max_image_size'),
  ],
)
def test_outputs_that_are_not_what_their_names_promise(tmp_path, compute, message):
  model = detections.load(write_tf2(tmp_path / 'model', compute=compute))
  with pytest.raises(UserError, match=message):
    model.detect(photo(40, 50, green=GREEN)[None])
