"""Descriptors of a network between two steps of its training, without an export."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from delf_d2r.models.delf import pyramid
from delf_d2r.models.delf.network import Delf

DEFAULT_SCALES = (0.5, 0.7071, 1.0)
GLOBAL_SCALES = (2**-0.5, 1.0, 2**0.5)


def make_descriptor_fn(
  model: Delf, *, scales: Sequence[float], max_features: int
) -> Callable[[np.ndarray], np.ndarray]:
  """Returns a function from uint8 [H, W, 3] to float32 [N, D] unit descriptors, most attention first.

  Args:
    model: its weights are read at every call, so it may be trained in between.
    scales: of the image pyramid; empty: DEFAULT_SCALES.
    max_features: the greatest N.
  """
  scales = tf.constant(list(scales) or DEFAULT_SCALES, tf.float32)

  @tf.function(input_signature=[tf.TensorSpec((1, None, None, 3), tf.uint8)])
  def run(images):
    found = pyramid.select(pyramid.extract(model, images, scales), max_features, 0.0)
    return tf.math.l2_normalize(found['features'], axis=1)

  return lambda image: run(image[None]).numpy()


def make_global_descriptor_fn(model: Delf, *, scales: Sequence[float]) -> Callable[[np.ndarray], np.ndarray]:
  """Returns a function from uint8 [H, W, 3] to its global descriptor, float32 [G] of unit length.

  Args:
    model: with a global head; its weights are read at every call, so it may be trained in between.
    scales: of the image pyramid, whose unit descriptors are summed; empty: GLOBAL_SCALES.
  """
  scales = tf.constant(list(scales) or GLOBAL_SCALES, tf.float32)

  @tf.function(input_signature=[tf.TensorSpec((1, None, None, 3), tf.uint8)])
  def run(images):
    found = pyramid.extract_global(model, images, scales)
    total = tf.reduce_sum(tf.math.l2_normalize(found[0], axis=1), axis=0)
    return tf.math.l2_normalize(total, axis=0)

  return lambda image: run(image[None]).numpy()
