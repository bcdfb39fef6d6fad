"""The generalised mean of a backbone's endpoint over an image pyramid."""

import numpy as np
import tensorflow as tf

from delf_d2r.models.backbones.activations import Activations
from delf_d2r.models.delf.heads import GeneralizedMean


class PooledBackbone:
  """Descriptors (mean over cells of x^p)^(1/p) (Radenovic, Tolias and Chum, TPAMI 2019, section 3.1).

  Attributes:
    path: the name of the backbone, for messages.
    dimensions: D, the channels of the endpoint.
  """

  def __init__(self, activations: Activations, *, gem_power: float):
    """Takes the activations and p."""
    pool = GeneralizedMean(gem_power)
    self.path = activations.name
    self.dimensions = activations.channels

    # One trace for images of all sizes; scales one after the other, which bounds memory by the largest.
    @tf.function(
      input_signature=[tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([None], tf.float32)]
    )
    def run(image, scales):
      def at(scale):
        return pool(activations.at(image, activations.scaled_size(tf.shape(image)[:2], scale))[None])[0]

      descriptor = tf.TensorSpec([self.dimensions], tf.float32)
      return tf.map_fn(at, scales, fn_output_signature=descriptor, parallel_iterations=1)

    self._run = run

  def __call__(self, image: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Returns the descriptors of uint8 [H, W, 3] at scales float32 [S]: float32 [S, D], not normalised."""
    return self._run(image, scales).numpy()
