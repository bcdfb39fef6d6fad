"""A detector in training as a source of boxes."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from delf_d2r.models.detector.network import Detector
from delf_d2r.structures import Boxes


def finder(detector: Detector) -> Callable[[np.ndarray], Boxes]:
  """Returns a function from uint8 [H, W, 3] to Boxes, by the weights of the detector when it is called."""
  graph = tf.function(detector.detect, input_signature=[tf.TensorSpec([1, None, None, 3], tf.uint8)])

  def find(image: np.ndarray) -> Boxes:
    found = {name: value[0].numpy() for name, value in graph(image[None]).items()}
    count = found['counts']
    return Boxes(found['boxes'][:count], found['scores'][:count])

  return find
