"""SavedModels of global descriptors: of the tensorflow/models DELF code, DELG among them, and plain ones.

The former have the two forms of local_features.py, with or without local features beside the global
descriptor, and `input_global_scales_ind` only if they were made late enough (docs/reference.md 3.4). A plain
model has the signature `serving_default` with one image as input and one descriptor as output.
"""

import contextlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from delf_d2r.errors import UserError
from delf_d2r.models.delf.export import GLOBAL_SIGNATURE
from delf_d2r.models.saved_models import inspect

_REQUIRED_INPUTS = ('input_image', 'input_scales')
_INPUTS = (*_REQUIRED_INPUTS, 'input_abs_thres', 'input_max_feature_num', 'input_global_scales_ind')
# A row for each scale, or one row where the export pools over scales itself.
_OUTPUTS = ('global_descriptors', 'global_descriptor')


class GlobalModel:
  """A loaded SavedModel.

  Attributes:
    path: the directory or handle that it was loaded from.
    dimensions: D of its descriptors.
  """

  def __init__(self, path: str, function: Callable[[dict], tf.Tensor], *, owner: object):
    """Takes the function from inputs by name, and the loaded object that keeps its variables alive."""
    self.path = path
    self._function = function
    self._owner = owner
    # No form of SavedModel states D, so a grey image is described.
    self.dimensions = self(np.full((256, 256, 3), 128, np.uint8), np.ones(1, np.float32)).shape[1]

  def __call__(self, image: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Returns the descriptors of uint8 [H, W, 3] at scales float32 [S]: float32 [S, D], not normalised."""
    inputs = {
      'input_image': tf.constant(image),
      'input_scales': tf.constant(scales, tf.float32),
      'input_global_scales_ind': tf.range(len(scales)),
      # Local features, if there are any, are not used.
      'input_max_feature_num': tf.constant(1),
      'input_abs_thres': tf.constant(0.0),
    }
    descriptors = np.asarray(self._function(inputs), np.float32)
    return descriptors.reshape(-1, descriptors.shape[-1])


def load(path: str) -> GlobalModel:
  """Loads a SavedModel of global descriptors.

  Args:
    path: a directory, or a handle of TensorFlow Hub.

  Raises:
    UserError: nothing is there, or it is a SavedModel of another kind; the message names its signatures.
  """
  directory = inspect.directory_of(path)
  graph = inspect.read_graph(directory)
  tensors: dict[str, str] = {}
  if inspect.is_tf1(graph):
    tensors = _tf1_tensors(graph)
    inputs = outputs = set(tensors)
  else:
    signature = graph.signature_def.get('serving_default')
    inputs, outputs = (set(signature.inputs), set(signature.outputs)) if signature else (set(), set())
  found = [name for name in _OUTPUTS if name in outputs]
  if not found and _is_plain(graph):
    return _load_plain(path, directory)
  if not found or not inputs.issuperset(_REQUIRED_INPUTS):
    raise UserError(
      f'{path}: no model of global descriptors: it needs the inputs {", ".join(_REQUIRED_INPUTS)} and the'
      f' output {" or ".join(_OUTPUTS)}, or one input and one output.'
      f' {inspect.signatures_text(graph)}.'
      ' Give a DELG model, or name a backbone in its place'
    )
  loaded = inspect.load(directory)
  feeds = [name for name in _INPUTS if name in inputs]
  if inspect.is_tf1(graph):
    # Feeds are positional, in the order given.
    pruned = inspect.prune(loaded, [tensors[name] for name in feeds], tensors[found[0]])

    def function(values: dict) -> tf.Tensor:
      return pruned(*(values[name] for name in feeds))
  else:
    served = loaded.signatures['serving_default']
    if GLOBAL_SIGNATURE in loaded.signatures:
      # Without the local features, which take as long again.
      served, feeds, found = loaded.signatures[GLOBAL_SIGNATURE], list(_REQUIRED_INPUTS), [_OUTPUTS[0]]

    def function(values: dict) -> tf.Tensor:
      return served(**{name: values[name] for name in feeds})[found[0]]

  return GlobalModel(path, function, owner=loaded)


def _tf1_tensors(graph) -> dict[str, str]:
  """Returns the tensors of a DELG model of TensorFlow 1 by their meaning; none if it is something else."""
  for output in _OUTPUTS:
    with contextlib.suppress(inspect.MissingTensorsError):
      return inspect.find_tensors(graph, [output, *_REQUIRED_INPUTS], _INPUTS)
  return {}


def _is_plain(graph) -> bool:
  signature = graph.signature_def.get('serving_default')
  return bool(signature) and len(signature.inputs) == len(signature.outputs) == 1


def _load_plain(path: str, directory: str) -> GlobalModel:
  """Loads a model of one input and one output, which describes each scale; of a fixed size, one scale alone.

  Models of uint8 get pixels from 0 to 255, others from 0 to 1, as TensorFlow Hub's image models expect.
  """
  loaded = inspect.load(directory)
  served = loaded.signatures['serving_default']
  ((name, image_spec),) = served.structured_input_signature[1].items()
  ((output, output_spec),) = served.structured_outputs.items()
  shape = image_spec.shape
  if shape.rank not in (3, 4) or shape[-1] != 3 or output_spec.shape.rank not in (1, 2):
    raise UserError(
      f'{path}: expected one image [H, W, 3] or [1, H, W, 3] to one descriptor [D] or [1, D], found {name} of'
      f' shape {shape} to {output} of shape {output_spec.shape}'
    )
  size = shape[-3:-1]

  def at(image: tf.Tensor, scale) -> tf.Tensor:
    wanted = size
    if not size.is_fully_defined():
      wanted = tf.maximum(tf.cast(tf.round(tf.cast(tf.shape(image)[:2], tf.float32) * scale), tf.int32), 1)
    pixels = tf.image.resize(tf.cast(image, tf.float32), wanted, antialias=True)
    pixels = tf.round(pixels) if image_spec.dtype == tf.uint8 else pixels / 255
    pixels = tf.cast(pixels, image_spec.dtype)
    return tf.reshape(served(**{name: pixels[None] if shape.rank == 4 else pixels})[output], [-1])

  def function(values: dict) -> tf.Tensor:
    scales = [1.0] if size.is_fully_defined() else values['input_scales']
    return tf.stack([at(values['input_image'], scale) for scale in scales])

  return GlobalModel(path, function, owner=loaded)
