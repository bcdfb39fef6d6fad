"""tf-models-official, which is large and optional: imported when a detector is built, not before."""

import importlib
import types
import warnings

from delf_d2r.errors import UserError

_MISSING = (
  'detectors are built by tf-models-official, which cannot be imported here ({}). Install it:'
  " pip install 'delf_d2r[detector]'. Finding boxes with an exported detector needs none of it"
)


def load(module: str) -> types.ModuleType:
  """Returns a module of `official.vision` by its name in there; the first one takes about 10 s.

  Raises:
    UserError: tf-models-official is not installed, or does not go with this TensorFlow.
  """
  return _import(f'official.vision.{module}')


def keras() -> types.ModuleType:
  """Returns `tf_keras`, the Keras 2 that tf-models-official is written for; errors are those of `load`."""
  return _import('tf_keras')


def _import(name: str) -> types.ModuleType:
  try:
    # Its modules warn of deprecated parts of other libraries, which the user cannot change.
    with warnings.catch_warnings(action='ignore'):
      return importlib.import_module(name)
  except ImportError as error:
    raise UserError(_MISSING.format(error)) from error
