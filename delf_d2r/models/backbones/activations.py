"""The feature map of a backbone's endpoint on images of any size."""

import numpy as np
import tensorflow as tf

from delf_d2r.models.backbones import folding, zoo
from delf_d2r.models.backbones.receptive_field import ReceptiveField
from delf_d2r.protos import delf_model_pb2


class Activations:
  """Feature maps of one endpoint.

  Attributes:
    name: of the backbone, for messages.
    channels: C.
    receptive_field: the pixels that a cell sees, on images whose sides are multiples of its stride.
  """

  name: str
  channels: int
  receptive_field: ReceptiveField

  def __init__(self, backbone: int, weights: str, endpoint: str):
    """Takes a value of DelfModelConfig.Backbone and what backbones.build takes.

    Raises:
      UserError: no such endpoint, or weights that are missing or of another network.
    """
    self.name = delf_model_pb2.DelfModelConfig.Backbone.Name(backbone)
    self._backbone = zoo.build(self.name, endpoints=(endpoint,), weights=weights)
    self._network = folding.fold(self._backbone.model, self._backbone.outputs)
    self._endpoint = endpoint
    self.channels = self._backbone.channels[endpoint]
    self.receptive_field = self._backbone.receptive_fields[endpoint]
    # One trace for images of all sizes.
    self._run = tf.function(
      self.at, input_signature=[tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([2], tf.int32)]
    )

  def at(self, image, size):
    """Returns the map float32 [H', W', C] of tensors uint8 [H, W, 3] and int32 [2], the size to resize to."""
    pixels = self._backbone.normalize(tf.cast(image, tf.float32))[None]
    resized = tf.image.resize(pixels, size, antialias=True)
    return self._network(resized, training=False)[self._endpoint][0]

  def __call__(self, image: np.ndarray, size) -> np.ndarray:
    """Returns the map of an array uint8 [H, W, 3] resized to `size` [2] as an array float32 [H', W', C]."""
    return self._run(image, np.asarray(size, np.int32)).numpy()

  def scaled_size(self, size, scale):
    """Returns int32 [2]: `size` [2] times `scale`, rounded, at least a cell, so that there is one to pool."""
    wanted = tf.cast(tf.round(tf.cast(size, tf.float32) * scale), tf.int32)
    return tf.maximum(wanted, self.min_side)

  @property
  def min_side(self) -> int:
    """The shortest side, in pixels, that is sure to have a cell."""
    return max(self.receptive_field.stride, self._backbone.min_side)
