"""A detector in training as a source of boxes."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from delf_d2r.models.detector.network import Detector
from delf_d2r.structures import Boxes


def finder(detector: Detector) -> Callable[[np.ndarray], Boxes]:
  """A function of images uint8 [H, W, 3] to their boxes, by the weights that the detector has at its call."""
  graph = tf.function(detector.detect, input_signature=[tf.TensorSpec([1, None, None, 3], tf.uint8)])

  def find(image: np.ndarray) -> Boxes:
    found = {name: value[0].numpy() for name, value in graph(image[None]).items()}
    count = found['counts']
    return Boxes(found['boxes'][:count], found['scores'][:count])

  return find
