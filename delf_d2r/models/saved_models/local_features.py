"""SavedModels of local features behind one interface: of export_delf and of the tensorflow/models DELF code.

Two forms exist (docs/reference.md 3.4). That of TensorFlow 1 has placeholders and outputs with fixed names in
its graph, or a signature that says which tensors they are; that of TensorFlow 2 has a signature
`serving_default` with the same names. The form of a directory is read from its `saved_model.pb`, not from a
config.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from delf_d2r.errors import UserError
from delf_d2r.models.delf.export import BATCH_SIGNATURE, LocalFeatureModule
from delf_d2r.models.delf.network import Delf
from delf_d2r.models.saved_models import inspect
from delf_d2r.models.saved_models.raw_features import RawFeatures
from delf_d2r.protos import delf_model_pb2

_INPUTS = ('input_image', 'input_scales', 'input_max_feature_num', 'input_abs_thres')
_GLOBAL_INPUT = 'input_global_scales_ind'
_OUTPUTS = ('boxes', 'features', 'scales', 'scores')


class LocalFeatureModel:
  """A loaded SavedModel.

  Attributes:
    path: the directory or handle that it was loaded from.
    kind: 'TensorFlow 1' or 'TensorFlow 2'.
    dimensions: D of its features.
    stride: pixels between neighbouring features at scale 1.
  """

  def __init__(
    self,
    path: str,
    kind: str,
    function: Callable[..., dict],
    batch_function: Callable[..., dict] | None = None,
    *,
    owner: object = None,
  ):
    """Takes functions of inputs by name, and the loaded object that keeps their variables alive.

    Raises:
      UserError: it finds no features in an image, so it is no model of local features.
    """
    self.path, self.kind = path, kind
    self._function, self._batch_function = function, batch_function
    self._owner = owner
    # No form of SavedModel states these two, so a grey image is extracted.
    probe = self.extract(np.full((256, 256, 3), 128, np.uint8), np.ones(1, np.float32), max_features=2**16)
    rows = np.unique(probe.boxes[:, 0])
    if len(rows) < 2:
      raise UserError(f'{path}: a model of local features finds some in any image, but this one finds none')
    self.dimensions = probe.features.shape[1]
    self.stride = float(np.min(np.diff(rows)))

  @property
  def has_batches(self) -> bool:
    """Whether `extract_batch` may be called."""
    return self._batch_function is not None

  def extract(self, image: np.ndarray, scales: np.ndarray, *, max_features: int) -> RawFeatures:
    """Returns the features of most attention of uint8 [H, W, 3] at scales float32 [S]; no threshold."""
    outputs = self._function(
      input_image=tf.constant(image),
      input_scales=tf.constant(scales, tf.float32),
      input_max_feature_num=tf.constant(max_features, tf.int32),
      input_abs_thres=tf.constant(0, tf.float32),
    )
    return RawFeatures.from_outputs(outputs)

  def extract_batch(self, images: np.ndarray, scales: np.ndarray, *, max_features: int) -> list[RawFeatures]:
    """Returns those of each of uint8 [B, H, W, 3], from one pass; only if `has_batches`."""
    if self._batch_function is None:
      raise ValueError(f'{self.path}: this model has no function of batches; use extract')
    outputs = self._batch_function(
      input_images=tf.constant(images),
      input_scales=tf.constant(scales, tf.float32),
      input_max_feature_num=tf.constant(max_features, tf.int32),
    )
    arrays = {name: np.asarray(value) for name, value in outputs.items()}
    return [
      RawFeatures.from_outputs({name: arrays[name][b] for name in _OUTPUTS}) for b in range(len(images))
    ]


def of_network(config: delf_model_pb2.DelfModelConfig) -> LocalFeatureModel:
  """Returns a network that needs no training, of a backbone and its weights, without a SavedModel.

  Raises:
    UserError: its weights are missing or of another network.
  """
  module = LocalFeatureModule(Delf(config))
  name = delf_model_pb2.DelfModelConfig.Backbone.Name(config.backbone)
  return LocalFeatureModel(name, 'in memory', module.serving_default, module.extract_batch)


def enable_mixed_precision() -> None:
  """Lets TensorFlow compute in half precision where the GPU is faster with it, in this whole process."""
  tf.config.optimizer.set_experimental_options({'auto_mixed_precision': True})


def load(path: str) -> LocalFeatureModel:
  """Loads a SavedModel of local features of either form.

  Args:
    path: a directory, or a handle of TensorFlow Hub.

  Raises:
    UserError: nothing is there, or it is a SavedModel of another kind; the message names its signatures.
  """
  return inspect.load_by_form(path, _load_tf1, _load_tf2)


def _load_tf1(path: str, directory: str, graph) -> LocalFeatureModel:
  try:
    tensors = inspect.find_tensors(graph, [*_INPUTS, *_OUTPUTS], [_GLOBAL_INPUT])
  except inspect.MissingTensorsError as error:
    raise _no_local_features(path, f'its graph lacks {error}', graph) from None
  loaded = inspect.load(directory)
  feeds = [name for name in (*_INPUTS, _GLOBAL_INPUT) if name in tensors]
  # Feeds are positional, in the order given.
  pruned = inspect.prune(loaded, [tensors[name] for name in feeds], [tensors[name] for name in _OUTPUTS])

  def function(**inputs) -> dict:
    inputs[_GLOBAL_INPUT] = tf.zeros(1, tf.int32)
    outputs = pruned(*(inputs[name] for name in feeds))
    return dict(zip(_OUTPUTS, outputs, strict=True))

  return LocalFeatureModel(path, 'TensorFlow 1', function, owner=loaded)


def _load_tf2(path: str, directory: str, graph) -> LocalFeatureModel:
  signature = graph.signature_def.get('serving_default')
  inputs, outputs = (set(signature.inputs), set(signature.outputs)) if signature else (set(), set())
  missing = [name for name in (*_INPUTS, *_OUTPUTS) if name not in inputs | outputs]
  if missing:
    raise _no_local_features(path, f'its signature serving_default lacks {", ".join(missing)}', graph)
  loaded = inspect.load(directory)
  served = loaded.signatures['serving_default']

  def function(**arguments) -> dict:
    if _GLOBAL_INPUT in inputs:
      arguments[_GLOBAL_INPUT] = tf.zeros(1, tf.int32)
    return served(**arguments)

  batch_function = loaded.signatures.get(BATCH_SIGNATURE)
  return LocalFeatureModel(path, 'TensorFlow 2', function, batch_function, owner=loaded)


def _no_local_features(path: str, why: str, graph) -> UserError:
  return UserError(
    f'{path}: no model of local features: {why}. {inspect.signatures_text(graph)}. Give a DELF or DELG model'
    ' with local features'
  )
