"""Summaries for TensorBoard: losses, learning rate, validation, and maps of the attention."""

import pathlib
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from delf_d2r.models.delf.network import Delf

# Photos of a batch that are shown.
PICTURES = 4


class Summaries:
  """Writes below `path`, for `tensorboard --logdir=path`."""

  def __init__(self, path: pathlib.Path):
    self._writer = tf.summary.create_file_writer(str(path))

  def scalars(self, values: Mapping[str, float], step: int, *, group: str) -> None:
    """Adds a point to the curve `group/name` of each name."""
    with self._writer.as_default(step):
      for name, value in values.items():
        tf.summary.scalar(f'{group}/{name}', value)
    # The last values matter most when a training has died.
    self._writer.flush()

  def attention(self, model: Delf, images, step: int) -> None:
    """Writes the first photos of a batch float32 [B, H, W, 3], each beside its attention map."""
    images = tf.convert_to_tensor(images)[:PICTURES]
    outputs = model(model.normalize(images), training=False)
    self.images('attention', attention_pictures(images, outputs['attention']), step)

  def images(self, name: str, pictures: np.ndarray, step: int) -> None:
    """Writes pictures uint8 [B, H, W, 3] under one name."""
    with self._writer.as_default(step):
      tf.summary.image(name, pictures, max_outputs=PICTURES)
    self._writer.flush()


def attention_pictures(images, attention) -> np.ndarray:
  """Returns photos and attention side by side.

  Args:
    images: float32 [B, H, W, 3], in [0, 255].
    attention: float32 [B, h, w, 1], at least 0.

  Returns:
    uint8 [B, H, 2 W, 3]: the photo, and the photo darkened but where attention is high; the highest value of
    each photo is full brightness.
  """
  most = tf.reduce_max(attention, axis=(1, 2, 3), keepdims=True)
  shares = tf.image.resize(attention / tf.maximum(most, 1e-12), tf.shape(images)[1:3])
  both = tf.concat([images, images * shares], axis=2)
  return tf.cast(tf.clip_by_value(both, 0, 255), tf.uint8).numpy()
