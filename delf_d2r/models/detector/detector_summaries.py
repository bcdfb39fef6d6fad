"""Summaries for TensorBoard: photos of a training with their true and their found boxes."""

import numpy as np
import tensorflow as tf

from delf_d2r.models.delf.training_summaries import PICTURES, Summaries
from delf_d2r.models.detector import detector_backbones
from delf_d2r.models.detector.network import Detector

_GREEN, _RED = (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)
# Boxes of lower scores would cover the photo.
_MIN_SCORE = 0.3


def write(summaries: Summaries, detector: Detector, batch, step: int) -> None:
  """Writes the first photos of a batch (of one replica): true boxes green, found ones red."""
  part = {name: tf.convert_to_tensor(batch[name])[:PICTURES] for name in ('images', 'shapes', 'boxes')}
  found = detector.architecture.detect(part['images'], part['shapes'])
  shown = tf.where(found['scores'][..., None] >= _MIN_SCORE, found['boxes'], 0.0)
  images = detector_backbones.denormalize(detector.config, part['images'])
  summaries.images('boxes', pictures(images, part['boxes'], shown), step)


def pictures(images, true, found) -> np.ndarray:
  """Returns photos with boxes drawn into them.

  Args:
    images: float32 [B, S, S, 3], in [0, 255].
    true: float32 [B, R, 4], in pixels; boxes without area are none.
    found: the same.

  Returns:
    uint8 [B, S, S, 3].
  """
  side = tf.cast(tf.shape(images)[1], tf.float32)
  drawn = images / 255
  for boxes, colour in ((true, _GREEN), (found, _RED)):
    # A box without area would be drawn as a dot in the corner, so it is moved out of the picture.
    is_box = tf.reduce_all(boxes[..., 2:] > boxes[..., :2], axis=-1, keepdims=True)
    drawn = tf.image.draw_bounding_boxes(drawn, tf.where(is_box, boxes / side, 2.0), [colour])
  return tf.cast(tf.clip_by_value(255 * drawn, 0, 255), tf.uint8).numpy()
