"""A fake detector in all forms of SavedModels: it detects red (class 1) and green (class 2) rectangles."""

import numpy as np
import tensorflow as tf

from support import tf1_models

OUTPUTS = ('detection_boxes', 'detection_scores', 'detection_classes', 'num_detections')
ROWS = 4


def photo(height: int, width: int, **colours: tuple[int, int, int, int, int]) -> np.ndarray:
  """Draws rectangles red=, green= or blue=(y0, x0, y1, x1, brightness) on black: uint8 [height, width, 3]."""
  image = np.zeros((height, width, 3), np.uint8)
  for colour, (y0, x0, y1, x1, brightness) in colours.items():
    image[y0:y1, x0:x1, ('red', 'green', 'blue').index(colour)] = brightness
  return image


def stand_in(images) -> dict:
  """Boxes around the red and the green of uint8 [B, H, W, 3], their brightness as score, best first."""
  lit = images[..., :2] > 20
  brightness = tf.cast(tf.reduce_max(images[..., :2], axis=(1, 2)), tf.float32) / 255
  sides = [_range(tf.reduce_any(lit, axis=axis)) for axis in (2, 1)]
  boxes = tf.stack([sides[0][0], sides[1][0], sides[0][1], sides[1][1]], axis=-1)
  scores = tf.where(brightness > 20 / 255, brightness, 0)
  order = tf.argsort(scores, direction='DESCENDING', stable=True)
  padding = [[0, 0], [0, ROWS - 2]]
  return {
    'detection_boxes': tf.pad(tf.gather(boxes, order, batch_dims=1), [*padding, [0, 0]]),
    'detection_scores': tf.pad(tf.gather(scores, order, batch_dims=1), padding),
    'detection_classes': tf.pad(tf.cast(order + 1, tf.float32), padding),
    'num_detections': tf.reduce_sum(tf.cast(scores > 0, tf.float32), axis=1),
  }


def _range(lit):
  """Returns the first and last true position along S of bool [B, S, 2], as shares: float32 [B, 2] each."""
  size = tf.cast(tf.shape(lit)[1], tf.float32)
  lit = tf.cast(lit, tf.int32)
  first, last = tf.argmax(lit, axis=1), tf.argmax(lit[:, ::-1], axis=1)
  return tf.cast(first, tf.float32) / size, 1 - tf.cast(last, tf.float32) / size


def write_tf1(
  path,
  *,
  feed='input_images',
  outputs=OUTPUTS,
  dtype='uint8',
  shape=(None, None, None, 3),
  compute=stand_in,
  prefix=('',),
  signature='',
  second=False,
  parse=False,
) -> str:
  """Writes the form of TensorFlow 1: a placeholder and named outputs, no functions.

  Args:
    path: of the model.
    feed, dtype, shape: the placeholder.
    outputs: those to write.
    compute: the detector.
    prefix: of the outputs' names; with several, all but the last have other values.
    signature: the key of a signature of the last of them; '': no signature.
    second: whether there is another placeholder, which only a signature tells from the images.
    parse: whether strings are records with images in them instead of images.
  """
  v1 = tf.compat.v1
  with tf.Graph().as_default(), v1.Session() as session:
    images = v1.placeholder(dtype, shape, name='images' if second else feed)
    found = compute(_pixels(images, parse=parse))
    if second:
      found['detection_scores'] += v1.placeholder_with_default(0.0, [], name='optional')
      if not signature:
        found['detection_scores'] += v1.placeholder(tf.float32, [], name='threshold')
    for wrong in prefix[:-1]:
      for name in outputs:
        tf.zeros_like(found[name], name=wrong + name)
    named = {prefix[-1] + name: found[name] for name in found}
    signatures = None
    if signature:
      signatures = lambda graph: {  # noqa: E731
        signature: v1.saved_model.predict_signature_def(
          {'inputs': images}, {name: graph.get_tensor_by_name(f'{prefix[-1]}{name}:0') for name in outputs}
        )
      }
    return tf1_models.save(
      session,
      path,
      named,
      outputs=[prefix[-1] + name for name in outputs],
      moved=f'{prefix[-1]}detection_scores',
      signatures=signatures,
    )


def write_tf2(
  path,
  *,
  feed='input_tensor',
  outputs=OUTPUTS,
  dtype='uint8',
  shape=(1, None, None, 3),
  compute=stand_in,
  is_callable=False,
  parse=False,
) -> str:
  """Writes the form of the TF2 Object Detection API: `serving_default`, or a callable object."""

  def run(images, offset):
    found = compute(_pixels(images, parse=parse))
    found['detection_scores'] += offset
    return {name: found[name] for name in outputs}

  module = _Detector(run)
  function = module.__call__.get_concrete_function(tf.TensorSpec(shape, dtype, name=feed))
  # With any signature of its own, none is added by TensorFlow.
  signatures = {'another': _another()} if is_callable else {'serving_default': function}
  if not is_callable:
    module = _Owner(module.offset)
  tf.saved_model.save(module, str(path), signatures=signatures)
  return str(path)


def _pixels(images, *, parse):
  """Returns uint8 [B, H, W, 3] of an input: of pixels of any type, of files, or of records of files."""
  if images.dtype != tf.string:
    return tf.cast(images, tf.uint8)
  if parse:
    images = tf.io.parse_example(images, {'image': tf.io.FixedLenFeature([], tf.string)})['image']
  return tf.map_fn(lambda one: tf.io.decode_png(one, channels=3), images, fn_output_signature=tf.uint8)


class _Detector(tf.Module):
  def __init__(self, run):
    super().__init__()
    self.offset = tf.Variable(0.0)
    self._run = run

  @tf.function(autograph=False)
  def __call__(self, images):
    return self._run(images, self.offset)


class _Owner(tf.Module):
  """Keeps a variable alive and cannot be called."""

  def __init__(self, variable):
    super().__init__()
    self.variable = variable


def _another():
  return tf.function(lambda x: {'y': x}, autograph=False).get_concrete_function(tf.TensorSpec([], tf.float32))
