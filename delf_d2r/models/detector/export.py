"""Export of a trained detector to a SavedModel in the form of TensorFlow 2's Object Detection API.

It loads with TensorFlow alone: weights are constants of its graph, which holds nothing of tf_keras or
tf-models-official.
"""

import pathlib
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from delf_d2r.models.detector import architectures
from delf_d2r.models.detector.network import Detector
from delf_d2r.models.saved_models import directory, log_suppression

CONFIG = 'detector_model.pbtxt'
_INPUT = 'input_tensor'
_OUTPUTS = ('boxes', 'scores', 'counts')
# Constants of fewer elements stay unchanged.
_MIN_HALVED = 256


class DetectorModule(tf.Module):
  """A detector with the signature input_tensor uint8 [1, H, W, 3], RGB, to

    detection_boxes: float32 [1, n, 4], `[ymin, xmin, ymax, xmax]` normalised to the image and within it.
    detection_scores: float32 [1, n], descending.
    detection_classes: float32 [1, n], all 1: there is one class.
    num_detections: float32 [1], n.

  The module itself can be called with the image, too.
  """

  def __init__(self, detector: Detector, *, half_weights: bool = False):
    """Takes the trained detector; `half_weights` stores weights in float16 and computes in float32."""
    super().__init__(name='detector')
    find = _frozen(detector, half_weights)

    def serving_default(input_tensor):
      boxes, scores, counts = find(input_tensor)
      count = counts[0]
      return {
        'detection_boxes': tf.reshape(boxes[0, :count], (1, -1, 4)),
        'detection_scores': tf.reshape(scores[0, :count], (1, -1)),
        'detection_classes': tf.fill((1, count), float(architectures.LANDMARK)),
        'num_detections': tf.cast(counts, tf.float32),
      }

    self._function = tf.function(serving_default)
    self.serving_default = self._function.get_concrete_function(
      tf.TensorSpec([1, None, None, 3], tf.uint8, name=_INPUT)
    )
    self.__call__ = self._function


def save(
  module: DetectorModule, detector: Detector, output: str | pathlib.Path, *, card: Mapping
) -> pathlib.Path:
  """Writes the SavedModel directory; arguments and errors are those of `directory.write`."""
  config = type(detector.config)()
  config.CopyFrom(detector.config)
  config.ClearField('backbone_weights')
  return directory.write(
    output,
    module,
    signatures={'serving_default': module.serving_default},
    config=config,
    config_name=CONFIG,
    card=card,
  )


def _frozen(detector: Detector, half_weights: bool):
  """Returns the function of images uint8 [1, H, W, 3] to boxes, scores and counts, with constant weights."""
  specification = tf.TensorSpec([1, None, None, 3], tf.uint8, name=_INPUT)

  def find(images):
    found = detector.detect(images)
    return tuple(tf.identity(found[name], name) for name in _OUTPUTS)

  traced = tf.function(find).get_concrete_function(specification)
  # TensorFlow's graph optimiser reports a missing GPU whatever its log level.
  with log_suppression.without_stderr():
    constant = convert_variables_to_constants_v2(traced, lower_control_flow=False)
  graph = constant.graph.as_graph_def()
  if half_weights:
    graph = with_half_constants(graph)
  inputs, outputs = ([tensor.name for tensor in end] for end in (constant.inputs, constant.outputs))
  imported = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph, name=''), [])
  return imported.prune(inputs, outputs)


def with_half_constants(graph: graph_pb2.GraphDef) -> graph_pb2.GraphDef:
  """Returns the graph with its larger float32 constants stored as float16, and cast where they are used.

  Constants beyond the range of float16 stay unchanged.
  """
  result = graph_pb2.GraphDef()
  result.CopyFrom(graph)
  del result.node[:]
  for node in graph.node:
    small = _half(node) if node.op == 'Const' else None
    if small is None:
      result.node.append(node)
      continue
    stored = result.node.add(op='Const', name=f'{node.name}/half', device=node.device)
    stored.attr['dtype'].type = tf.float16.as_datatype_enum
    stored.attr['value'].tensor.CopyFrom(tf.make_tensor_proto(small))
    # The old name is that of the cast value: nothing else has to change.
    cast = result.node.add(op='Cast', name=node.name, input=[stored.name], device=node.device)
    cast.attr['SrcT'].type, cast.attr['DstT'].type = (
      dtype.as_datatype_enum for dtype in (tf.float16, tf.float32)
    )
  return result


def _half(node) -> np.ndarray | None:
  if node.attr['dtype'].type != tf.float32.as_datatype_enum:
    return None
  value = tf.make_ndarray(node.attr['value'].tensor)
  if value.size < _MIN_HALVED or np.abs(value).max() > np.finfo(np.float16).max:
    return None
  return value.astype(np.float16)
