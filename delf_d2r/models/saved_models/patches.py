"""Networks that describe patches: a file of ONNX, or a SavedModel.

Either has one input, [N, 1, S, S] or [N, S, S, 1] float32, and one output [N, D] float32: HardNet and
similar networks.
"""

import pathlib
from collections.abc import Callable

import numpy as np

from delf_d2r.errors import UserError

# Patches in one pass through the network.
_BATCH = 256


class PatchNetwork:
  """A loaded network.

  Attributes:
    patch_size: S, pixels.
    dimensions: D of its descriptors.
  """

  def __init__(
    self,
    path: str,
    run: Callable[[np.ndarray], np.ndarray],
    shape: tuple[int | None, ...],
    *,
    patch_size: int,
    owner: object = None,
  ):
    """Takes the function that runs a batch, and the shape of its input, None where it admits any.

    `patch_size` is S where the network admits any; `owner` keeps the function's variables alive.

    Raises:
      UserError: it is not a network of grey patches.
    """
    if len(shape) != 4 or 1 not in (shape[1], shape[3]):
      raise UserError(
        f'{path}: expected an input [N, 1, S, S] or [N, S, S, 1] of grey patches, found {list(shape)}'
      )
    self._run, self._owner = run, owner
    self._channel_axis = 1 if shape[1] == 1 else 3
    height, width = (size for axis, size in enumerate(shape) if axis not in (0, self._channel_axis))
    if height != width:
      raise UserError(f'{path}: expected square patches, found {height} x {width}')
    self.patch_size = height or patch_size
    # No form states D for certain, so a grey patch is described.
    probe = run(np.full((1, self.patch_size, self.patch_size), 0.5, np.float32)[self._channel])
    if probe.ndim != 2 or len(probe) != 1:
      raise UserError(f'{path}: expected an output [N, D], found {list(probe.shape)} for one patch')
    self.dimensions = probe.shape[1]

  def __call__(self, patches: np.ndarray) -> np.ndarray:
    """Returns descriptors float32 [N, D] of patches float32 [N, S, S]."""
    inputs = patches[self._channel]
    parts = [self._run(inputs[start : start + _BATCH]) for start in range(0, len(inputs), _BATCH)]
    return np.concatenate([np.zeros((0, self.dimensions), np.float32), *parts]).astype(np.float32)

  @property
  def _channel(self):
    return np.s_[:, None] if self._channel_axis == 1 else np.s_[..., None]


def load(path: str, *, patch_size: int) -> PatchNetwork:
  """Loads a network; `patch_size` is S where it admits any.

  Raises:
    UserError: nothing is there, it is of another kind, or the library that runs it is not installed.
  """
  if path.lower().endswith('.onnx'):
    return _load_onnx(path, patch_size)
  return _load_saved_model(path, patch_size)


def _load_onnx(path: str, patch_size: int) -> PatchNetwork:
  try:
    import onnxruntime
  except ImportError:
    raise UserError(
      f'{path}: a file of ONNX needs the package onnxruntime. Install it (pip install onnxruntime), or give a'
      ' SavedModel'
    ) from None
  if not pathlib.Path(path).is_file():
    raise UserError(f'{path}: no such file of ONNX')
  try:
    session = onnxruntime.InferenceSession(path, providers=onnxruntime.get_available_providers())
  except Exception as error:  # It raises another class for each kind of damage.
    raise UserError(f'{path}: cannot be read as ONNX ({error})') from None
  inputs, outputs = session.get_inputs(), session.get_outputs()
  if len(inputs) != 1 or inputs[0].type != 'tensor(float)':
    found = [f'{item.name}: {item.type}' for item in inputs]
    raise UserError(f'{path}: expected one input of float32, found {found}')

  def run(batch: np.ndarray) -> np.ndarray:
    return session.run([outputs[0].name], {inputs[0].name: batch})[0]

  shape = tuple(size if isinstance(size, int) else None for size in inputs[0].shape)
  return PatchNetwork(path, run, shape, patch_size=patch_size)


def _load_saved_model(path: str, patch_size: int) -> PatchNetwork:
  # Imported here, since a file of ONNX runs without TensorFlow.
  import tensorflow as tf

  from delf_d2r.models.saved_models import inspect

  directory = inspect.directory_of(path)
  graph = inspect.read_graph(directory)
  signature = graph.signature_def.get('serving_default')
  if not signature or len(signature.inputs) != 1 or len(signature.outputs) != 1:
    raise UserError(
      f'{path}: expected the signature serving_default with one input and one output.'
      f' {inspect.signatures_text(graph)}'
    )
  loaded = inspect.load(directory)
  served = loaded.signatures['serving_default']
  ((name, spec),) = served.structured_input_signature[1].items()

  def run(batch: np.ndarray) -> np.ndarray:
    (descriptors,) = served(**{name: tf.constant(batch)}).values()
    return descriptors.numpy()

  return PatchNetwork(path, run, tuple(spec.shape), patch_size=patch_size, owner=loaded)
