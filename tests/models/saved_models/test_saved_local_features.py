"""SavedModels of the two forms of tensorflow/models, and those that are neither.

A stand-in network of one convolution, written in both forms by local_feature_support.py, is computed once
more in NumPy.
"""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose, assert_array_equal
from support.delf_models import noise
from support.local_feature_models import CELL, DIMENSIONS, KERNEL, SCALES, write_tf1, write_tf2

from delf_d2r.errors import UserError
from delf_d2r.models.saved_models import local_features

# The stand-in in NumPy


def resize(image, size, *, half_pixel):
  """Bilinear, written out: TensorFlow 1's legacy sampling or the half-pixel one of TensorFlow 2."""
  for axis, wanted in enumerate(size):
    have = image.shape[axis]
    at = (
      (np.arange(wanted) + 0.5) * have / wanted - 0.5 if half_pixel else np.arange(wanted) * (have / wanted)
    )
    low = np.floor(at)
    share = (at - low).reshape([-1 if a == axis else 1 for a in range(3)])
    low, high = np.clip(low, 0, have - 1).astype(int), np.clip(low + 1, 0, have - 1).astype(int)
    image = image.take(low, axis) * (1 - share) + image.take(high, axis) * share
  return image


def expected(image, *, half_pixel, max_features=10_000):
  pixels = (image.astype(float) - 128) / 128
  boxes, scales, features = [], [], []
  for scale in SCALES.astype(float):
    size = [int(np.round(side * scale)) for side in image.shape[:2]]
    resized = resize(pixels, size, half_pixel=half_pixel)
    rows, columns = (side // CELL for side in size)
    blocks = resized[: rows * CELL, : columns * CELL].reshape(rows, CELL, columns, CELL, 3)
    features.append(np.einsum('iajbc,abcd->ijd', blocks, KERNEL.astype(float)).reshape(-1, DIMENSIONS))
    corners = np.argwhere(np.ones((rows, columns))) * CELL
    boxes.append(np.concatenate([corners, corners + CELL], axis=1) / scale)
    scales.append(np.full(rows * columns, 1 / scale))
  boxes, scales, features = (np.concatenate(parts) for parts in (boxes, scales, features))
  scores = np.log1p(np.exp(features[:, 0] / 10))
  best = np.argsort(-scores, kind='stable')[:max_features]
  return boxes[best], scales[best], scores[best], features[best]


FORMS = {'TensorFlow 1': (write_tf1, False), 'TensorFlow 2': (write_tf2, True)}


@pytest.mark.slow
@pytest.mark.parametrize('with_global', [False, True])
@pytest.mark.parametrize('kind', FORMS)
def test_both_forms_are_told_apart_and_computed_right(tmp_path, kind, with_global):
  write, half_pixel = FORMS[kind]
  model = local_features.load(write(tmp_path / 'model', with_global=with_global))
  assert (model.kind, model.dimensions, model.stride) == (kind, DIMENSIONS, CELL)
  assert not model.has_batches
  image = noise(70, 99)
  for most in (10_000, 7):
    found = model.extract(image, SCALES, max_features=most)
    boxes, scales, scores, features = expected(image, half_pixel=half_pixel, max_features=most)
    assert_allclose(found.scores, scores, rtol=1e-4, atol=1e-5)
    assert_allclose(found.features, features, rtol=1e-3, atol=1e-3)
    assert_allclose(found.boxes, boxes, rtol=1e-4)
    assert_allclose(found.scales, scales, rtol=1e-5)


def test_the_two_ways_of_resizing_differ():
  # Else the test above could not tell whether each form was given its own.
  image = noise(70, 99)
  legacy, half_pixel = (expected(image, half_pixel=flag)[2] for flag in (False, True))
  assert np.max(np.abs(legacy - half_pixel)) > 0.1


def test_no_features_are_no_error(tmp_path):
  model = local_features.load(write_tf2(tmp_path / 'model'))
  found = model.extract(noise(40, 40), SCALES, max_features=0)
  assert (found.boxes.shape, found.features.shape) == ((0, 4), (0, DIMENSIONS))


@pytest.mark.parametrize('with_global', [False, True])
@pytest.mark.parametrize(
  'options', [{'prefix': 'tower/'}, {'signature': 'serving_default'}, {'signature': 'x'}]
)
def test_tensors_of_tensorflow_1_under_other_names(tmp_path, options, with_global):
  usual, other = (
    local_features.load(write_tf1(tmp_path / name, with_global=with_global, **fields))
    for name, fields in {'usual': {}, 'other': options}.items()
  )
  image = noise(70, 99)
  wanted, found = (model.extract(image, SCALES, max_features=50) for model in (usual, other))
  for name, value in vars(wanted).items():
    assert_array_equal(getattr(found, name), value)


@pytest.mark.slow
def test_loading_tensorflow_1_logs_nothing_of_its_variables(tmp_path):
  # In a process of its own: TensorFlow writes such a message a few times only, whoever loads a model.
  path = write_tf1(tmp_path / 'model')
  script = f"""
    import sys
    import tensorflow as tf
    from delf_d2r.models.saved_models import local_features
    local_features.load({str(path)!r})
    print('by itself', file=sys.stderr, flush=True)
    tf.saved_model.load({str(path)!r}, tags=['serve'])
  """
  done = subprocess.run(
    [sys.executable, '-c', textwrap.dedent(script)], capture_output=True, text=True, check=True
  )
  ours, _, theirs = done.stderr.partition('by itself')
  message = 'Unable to create a python object for variable'
  assert message in theirs
  assert message not in ours


# What is refused


@pytest.mark.parametrize('write', [write_tf1, write_tf2])
def test_model_of_another_kind_is_named(tmp_path, write):
  path = write(tmp_path / 'model', outputs=('boxes', 'scores'))
  with pytest.raises(UserError, match=r'no model of local features: .* lacks features, scales'):
    local_features.load(path)


def test_detector_is_told_from_its_signature(tmp_path):
  module = tf.Module()
  function = tf.function(
    lambda input_tensor: {'detection_boxes': tf.zeros((1, 0, 4))}, autograph=False
  ).get_concrete_function(tf.TensorSpec([1, None, None, 3], tf.uint8, name='input_tensor'))
  tf.saved_model.save(module, str(tmp_path / 'model'), signatures={'serving_default': function})
  with pytest.raises(UserError, match=r"\['input_tensor'\] -> \['detection_boxes'\]"):
    local_features.load(str(tmp_path / 'model'))


def test_no_saved_model_at_all(tmp_path):
  with pytest.raises(UserError, match=r'no such directory|neither a directory nor a handle'):
    local_features.load(str(tmp_path / 'nowhere'))
  with pytest.raises(UserError, match=r'no file saved_model\.pb'):
    local_features.load(str(tmp_path))
  (tmp_path / 'saved_model.pb').write_bytes(b'\xff\xff not a protocol buffer')
  with pytest.raises(UserError, match='damaged'):
    local_features.load(str(tmp_path))


def test_wrong_tag(tmp_path):
  with pytest.raises(
    UserError, match=r"expected a SavedModel with the tag serve, found tags \[\['train'\]\]"
  ):
    local_features.load(write_tf1(tmp_path / 'model', tag='train'))
