"""SavedModels of detectors of any origin behind one interface.

Three forms exist, distinguished by the content of `saved_model.pb`. TensorFlow 1 (d2r_frcnn_20190411 and
others of the tensorflow/models DELF code, frozen models of the TensorFlow Object Detection API): a signature
of one input and of outputs under fixed names, or nodes of these names, which may have a prefix, and the one
placeholder that they depend on. TensorFlow 2: a signature `serving_default` of one input, or a callable
object, with outputs of the same names.

The names of inputs do not matter. A model may want images of one size: photos are resized to it, whatever
their aspect ratio, and boxes refer to the photo again. Or it may want files of images, and gets PNG.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from delf_d2r.errors import UserError
from delf_d2r.models.saved_models import inspect

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


@dataclasses.dataclass(frozen=True)
class _Input:
  """The images that a model takes.

  Attributes:
    takes_batches: whether there may be several at once.
    height, width: their size in pixels; None: any.
    is_encoded: whether it takes files of images, as strings, instead of pixels.
  """

  takes_batches: bool
  height: int | None
  width: int | None
  is_encoded: bool = False

  def size_of(self, height: int, width: int) -> tuple[int, int]:
    """Returns the size at which the model takes an image of a size."""
    return self.height or height, self.width or width

  def tensor(self, images: np.ndarray) -> tf.Tensor:
    """Returns uint8 [B, H, W, 3] in the form that the model takes."""
    resized = _resized(images, self.size_of(*images.shape[1:3]))
    if self.is_encoded:
      return tf.stack([tf.io.encode_png(image) for image in resized])
    return resized


class DetectionModel:
  """A loaded SavedModel.

  Attributes:
    path: the directory or handle that it was loaded from.
    kind: 'TensorFlow 1' or 'TensorFlow 2'.
    takes_batches: whether it takes several images of one size at once.
  """

  def __init__(self, path: str, kind: str, function: Callable[..., dict], images: _Input, *, owner: object):
    self.path, self.kind, self.takes_batches = path, kind, images.takes_batches
    self._function, self._input = function, images
    # The function reads variables that only the loaded object keeps alive.
    self._owner = owner

  def detect(self, images: np.ndarray) -> list[Detections]:
    """Returns the detections in each of uint8 [B, H, W, 3]; B is 1 unless `takes_batches`.

    Raises:
      UserError: the model fails, or its outputs are not what their names promise.
    """
    size = self._input.size_of(*images.shape[1:3])
    try:
      outputs = self._function(self._input.tensor(images))
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
    return [dataclasses.replace(one, boxes=self._normalised(one.boxes, size)) for one in found]

  def _checked(self, name: str, value, batch: int) -> np.ndarray:
    shape = tuple(value.shape)
    wrong_type = name != 'detection_classes' and not value.dtype.is_floating
    if wrong_type or len(shape) != _RANKS[name] or shape[0] != batch or (len(shape) == 3 and shape[2] != 4):
      wanted = [batch, 'R', 4][: _RANKS[name]]
      raise UserError(
        f'{self.path}: no detector: its {name} is {value.dtype.name} {list(shape)}, expected float32 {wanted}'
      )
    return np.asarray(value, np.float32)

  def _normalised(self, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns the boxes of an image of a size as shares of it, as most models have them.

    Those of a model of one size may be in its pixels.

    Raises:
      UserError: they are neither.
    """
    largest = np.max(boxes, initial=0)
    if largest <= _LARGEST_COORDINATE:
      return boxes
    shares = boxes / np.array([*size, *size], np.float32)
    if self._input.height and self._input.width and np.max(shares) <= _LARGEST_COORDINATE:
      return shares
    raise UserError(
      f'{self.path}: has a box with a coordinate of {largest:g}, expected shares of height and width in'
      ' [0, 1]. Export the detector with normalised boxes, as the TensorFlow Object Detection API has them'
    )


def _resized(images: np.ndarray, size: tuple[int, int]) -> tf.Tensor:
  """Returns uint8 [B, H, W, 3] at another size."""
  if images.shape[1:3] == size:
    return tf.constant(images)
  resized = tf.image.resize(tf.constant(images), size, antialias=True)
  return tf.cast(tf.round(resized), tf.uint8)


def load(path: str) -> DetectionModel:
  """Loads a SavedModel of a detector of any form.

  Args:
    path: a directory, or a handle of TensorFlow Hub.

  Raises:
    UserError: nothing is there, or it is a SavedModel of another kind; the message names its signatures.
  """
  return inspect.load_by_form(path, _load_tf1, _load_tf2)


def _load_tf1(path: str, directory: str, graph) -> DetectionModel:
  try:
    tensors = inspect.find_tensors(graph, _OUTPUTS, [_COUNT])
  except inspect.MissingTensorsError as error:
    raise _no_detector(path, f'its graph has no tensor {error}', graph) from None
  feed, spec = _tf1_input(path, tensors, graph)
  images = _require_images(path, spec, graph)
  loaded = inspect.load(directory)
  pruned = inspect.prune(loaded, feed, list(tensors.values()))
  return DetectionModel(
    path,
    'TensorFlow 1',
    lambda images: dict(zip(tensors, pruned(images), strict=True)),
    images,
    owner=loaded,
  )


def _tf1_input(path: str, tensors: dict[str, str], graph) -> tuple[str, tf.TensorSpec]:
  """Returns the tensor of the images, and what it takes: that of the signature, or the only placeholder."""
  for signature in inspect.signatures(graph):
    if len(signature.inputs) == 1 and all(
      name in signature.outputs and signature.outputs[name].name == tensors[name] for name in _OUTPUTS
    ):
      ((_, info),) = signature.inputs.items()
      return info.name, tf.TensorSpec(info.tensor_shape, tf.dtypes.as_dtype(info.dtype), info.name)
  found = inspect.placeholders_of(graph, tensors.values())
  if len(found) != 1:
    names = ', '.join(node.name for node in found) or 'none'
    raise _no_detector(path, f'its outputs depend on the placeholders {names} instead of one', graph)
  attributes = found[0].attr
  shape = tf.TensorShape(attributes['shape'].shape)
  # Before TensorFlow 1.0, no dimensions meant any shape.
  shape = tf.TensorShape(None) if shape.rank == 0 else shape
  return f'{found[0].name}:0', tf.TensorSpec(
    shape, tf.dtypes.as_dtype(attributes['dtype'].type), found[0].name
  )


def _load_tf2(path: str, directory: str, graph) -> DetectionModel:
  wanted = {*_OUTPUTS, _COUNT}
  signature = graph.signature_def.get('serving_default')
  loaded = inspect.load(directory)
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
  images = _require_images(path, spec, graph)
  return DetectionModel(path, 'TensorFlow 2', function, images, owner=loaded)


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


def _require_images(path: str, spec: tf.TensorSpec, graph) -> _Input:
  """Returns which images the input takes; UserError unless it takes one photo."""
  if spec.dtype == tf.string and spec.shape.rank in (None, 1) and not _parses_examples(graph):
    count = spec.shape[0] if spec.shape.rank else 1
    if count in (None, 1):
      return _Input(count is None, None, None, is_encoded=True)
  shape = spec.shape.as_list() if spec.shape.rank is not None else [1, None, None, 3]
  fits = len(shape) == 4 and shape[0] in (None, 1) and shape[3] in (None, 3)
  if spec.dtype != tf.uint8 or not fits:
    found = f'{spec.dtype.name} {shape}'
    raise _no_detector(
      path,
      f'its input {spec.name} is {found}, expected uint8 [1, None, None, 3], photos of any size, [1, H, W,'
      ' 3], photos of one size, or strings, files of photos',
      graph,
    )
  return _Input(shape[0] is None, shape[1], shape[2])


def _parses_examples(graph) -> bool:
  """Returns whether the strings that a graph takes are records of TensorFlow instead of files of photos."""
  functions = (node for function in graph.graph_def.library.function for node in function.node_def)
  return any('Parse' in node.op and 'Example' in node.op for node in (*graph.graph_def.node, *functions))


def _no_detector(path: str, why: str, graph) -> UserError:
  return UserError(
    f'{path}: no detector that can be used: {why}. {inspect.signatures_text(graph)}. Give a model'
    ' under the signature of the TensorFlow Object Detection API; models of local features go into'
    ' extraction.delf.model_path'
  )
