"""SavedModels of detectors in every form, and those that are none: boxes by hand, batches, classes."""

import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose, assert_array_equal
from support.detection_models import OUTPUTS, photo, stand_in, write_tf1, write_tf2

from delf_d2r.errors import UserError
from delf_d2r.models.saved_models import detections

FORMS = {
  'tensorflow/models': (write_tf1, {'feed': 'input_images'}, 'TensorFlow 1', True),
  'three outputs': (write_tf1, {'outputs': OUTPUTS[:3]}, 'TensorFlow 1', True),
  'frozen': (write_tf1, {'feed': 'image_tensor', 'shape': (1, None, None, 3)}, 'TensorFlow 1', False),
  'signature': (write_tf2, {}, 'TensorFlow 2', False),
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


# What is refused


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
    ({'shape': (1, 300, 300, 3)}, r'uint8 \[1, 300, 300, 3\]'),
    ({'shape': (8, None, None, 3)}, r'uint8 \[8, None, None, 3\]'),
  ],
)
def test_input_of_another_kind(tmp_path, write, options, found):
  path = write(tmp_path / 'model', **options)
  with pytest.raises(UserError, match=rf'is {found}.*expected uint8 \[1, None, None, 3\]'):
    detections.load(path)


def test_placeholder_of_another_name(tmp_path):
  path = write_tf1(tmp_path / 'model', feed='encoded_image_string_tensor')
  with pytest.raises(UserError, match='no tensor input_images or image_tensor'):
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
