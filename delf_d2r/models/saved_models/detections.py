"""SavedModels of detectors of any origin behind one interface.

Three forms exist, distinguished by the content of `saved_model.pb`. TensorFlow 1 (d2r_frcnn_20190411 and
others of the tensorflow/models DELF code, frozen models of the TensorFlow Object Detection API): a
placeholder `input_images` or `image_tensor` and outputs of fixed names in the graph. TensorFlow 2: a
signature `serving_default` of one input, or a callable object, with outputs of the same names.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from delf_d2r.errors import UserError
from delf_d2r.models.saved_models import inspect

_TF1_INPUTS = ('input_images', 'image_tensor')
_OUTPUTS = ('detection_boxes', 'detection_scores', 'detection_classes')
# The number of valid rows of the outputs. The tensorflow/models DELF code does not ask for it
# (docs/reference.md 3.4), so those of TensorFlow 1 need not have it.
_COUNT = 'num_detections'
_RANKS = {'detection_boxes': 3, 'detection_scores': 2, 'detection_classes': 2}

# Beyond any box that merely sticks out of its image.
_LARGEST_COORDINATE = 2.0


@dataclasses.dataclass(frozen=True)
class Detections:
  """The boxes that a detector finds in one image, in its own order.

  Attributes:
    boxes: float32 [R, 4], `[ymin, xmin, ymax, xmax]` normalised; may reach beyond [0, 1].
    scores: float32 [R].
    classes: int64 [R], the ids of the model.
  """

  boxes: np.ndarray
  scores: np.ndarray
  classes: np.ndarray


class DetectionModel:
  """A loaded SavedModel.

  Attributes:
    path: the directory or handle that it was loaded from.
    kind: 'TensorFlow 1' or 'TensorFlow 2'.
    takes_batches: whether it takes several images of one size at once.
  """

  def __init__(self, path: str, kind: str, function: Callable[..., dict], *, takes_batches: bool, owner):
    self.path, self.kind, self.takes_batches = path, kind, takes_batches
    self._function = function
    # The function reads variables that only the loaded object keeps alive.
    self._owner = owner

  def detect(self, images: np.ndarray) -> list[Detections]:
    """Returns the detections in each of uint8 [B, H, W, 3]; B is 1 unless `takes_batches`.

    Raises:
      UserError: the model fails, or its outputs are not what their names promise.
    """
    try:
      outputs = self._function(tf.constant(images))
    except tf.errors.OpError as error:
      raise UserError(
        f'{self.path}: failed on images of shape {images.shape} ({type(error).__name__}:'
        f' {error.message.splitlines()[0] if error.message else ""}). If memory is short, lower'
        ' regions.detector.max_image_size or batch_size'
      ) from error
    except Exception as error:  # A damaged graph raises nearly any exception.
      raise UserError(
        f'{self.path}: failed on images of shape {images.shape} ({type(error).__name__}: {error}). The'
        ' SavedModel is damaged; fetch or export it again'
      ) from error
    boxes, scores, classes = (self._checked(name, outputs[name], len(images)) for name in _OUTPUTS)
    rows = np.full(len(images), boxes.shape[1])
    if _COUNT in outputs:
      rows = np.asarray(outputs[_COUNT]).reshape(-1).astype(np.int64)
    found = [
      Detections(boxes[b, :n], scores[b, :n], np.rint(classes[b, :n]).astype(np.int64))
      for b, n in enumerate(rows)
    ]
    for detections in found:
      self._require_normalised(detections.boxes)
    return found

  def _checked(self, name: str, value, batch: int) -> np.ndarray:
    shape = tuple(value.shape)
    wrong_type = name != 'detection_classes' and not value.dtype.is_floating
    if wrong_type or len(shape) != _RANKS[name] or shape[0] != batch or (len(shape) == 3 and shape[2] != 4):
      wanted = [batch, 'R', 4][: _RANKS[name]]
      raise UserError(
        f'{self.path}: no detector: its {name} is {value.dtype.name} {list(shape)}, expected float32 {wanted}'
      )
    return np.asarray(value, np.float32)

  def _require_normalised(self, boxes: np.ndarray) -> None:
    largest = np.max(boxes, initial=0)
    if largest > _LARGEST_COORDINATE:
      raise UserError(
        f'{self.path}: has a box with a coordinate of {largest:g}, expected shares of height and width in'
        ' [0, 1]. Export the detector with normalised boxes, as the TensorFlow Object Detection API has them'
      )


def load(path: str) -> DetectionModel:
  """Loads a SavedModel of a detector of any form.

  Args:
    path: a directory, or a handle of TensorFlow Hub.

  Raises:
    UserError: nothing is there, or it is a SavedModel of another kind; the message names its signatures.
  """
  return inspect.load_by_form(path, _load_tf1, _load_tf2)


def _load_tf1(path: str, directory: str, graph) -> DetectionModel:
  nodes = {node.name: node for node in graph.graph_def.node}
  missing = [name for name in _OUTPUTS if name not in nodes]
  if not nodes.keys() & set(_TF1_INPUTS):
    missing.append(' or '.join(_TF1_INPUTS))
  if missing:
    raise _no_detector(path, f'its graph has no tensor {", ".join(missing)}', graph)
  feed = next(name for name in _TF1_INPUTS if name in nodes)
  attributes = nodes[feed].attr
  spec = tf.TensorSpec(
    tf.TensorShape(attributes['shape'].shape), tf.dtypes.as_dtype(attributes['dtype'].type), feed
  )
  takes_batches = _require_images(path, spec, graph)
  fetches = [name for name in (*_OUTPUTS, _COUNT) if name in nodes]
  loaded = tf.saved_model.load(directory, tags=['serve'])
  pruned = loaded.prune(f'{feed}:0', [f'{name}:0' for name in fetches])
  return DetectionModel(
    path,
    'TensorFlow 1',
    lambda images: dict(zip(fetches, pruned(images), strict=True)),
    takes_batches=takes_batches,
    owner=loaded,
  )


def _load_tf2(path: str, directory: str, graph) -> DetectionModel:
  wanted = {*_OUTPUTS, _COUNT}
  signature = graph.signature_def.get('serving_default')
  loaded = tf.saved_model.load(directory, tags=['serve'])
  if signature and wanted <= set(signature.outputs):
    if len(signature.inputs) != 1:
      raise _no_detector(
        path, f'its signature serving_default has {len(signature.inputs)} inputs instead of 1', graph
      )
    ((name, tensor),) = signature.inputs.items()
    spec = tf.TensorSpec(tensor.tensor_shape, tf.dtypes.as_dtype(tensor.dtype), name)
    served = loaded.signatures['serving_default']
    function = lambda images: served(**{name: images})  # noqa: E731
  else:
    spec = _callable_input(loaded, wanted)
    if spec is None:
      missing = wanted - set(signature.outputs if signature else ())
      raise _no_detector(
        path,
        f'it is not callable with one tensor, and its signature serving_default lacks'
        f' {", ".join(sorted(missing))}',
        graph,
      )
    function = loaded
  takes_batches = _require_images(path, spec, graph)
  return DetectionModel(path, 'TensorFlow 2', function, takes_batches=takes_batches, owner=loaded)


def _callable_input(loaded, outputs: set[str]) -> tf.TensorSpec | None:
  """Returns the input of `loaded(images)`, if that has the outputs of a detector."""
  if not callable(loaded):
    return None
  for function in loaded.__call__.concrete_functions:
    arguments, options = function.structured_input_signature
    given = function.structured_outputs
    if len(arguments) == 1 and not options and isinstance(given, dict) and outputs <= given.keys():
      return arguments[0]
  return None


def _require_images(path: str, spec: tf.TensorSpec, graph) -> bool:
  """Returns whether the input takes several images; UserError unless it takes one of any size."""
  shape = spec.shape.as_list() if spec.shape.rank is not None else [1, None, None, 3]
  fits = len(shape) == 4 and shape[0] in (None, 1) and shape[1:3] == [None, None] and shape[3] in (None, 3)
  if spec.dtype != tf.uint8 or not fits:
    found = f'{spec.dtype.name} {shape}'
    raise _no_detector(
      path, f'its input {spec.name} is {found}, expected uint8 [1, None, None, 3]: photos of any size', graph
    )
  return shape[0] is None


def _no_detector(path: str, why: str, graph) -> UserError:
  return UserError(
    f'{path}: no detector that can be used: {why}. {inspect.signatures_text(graph)}. Give a model'
    ' under the signature of the TensorFlow Object Detection API; models of local features go into'
    ' extraction.delf.model_path'
  )
