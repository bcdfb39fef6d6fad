"""TensorFlow without Keras, until something uses Keras.

TensorFlow imports Keras at the end of its own import, to register optimizers, and Keras imports
scikit-learn and matplotlib where they are installed, for wrappers of the one and pictures of the other. To
run a SavedModel takes none of them: without, the import takes 0.55 of the time and 180 MB less. TensorFlow
passes over a Keras that cannot be imported; `tf.keras` and `import keras` load it later, where a network is
built or trained.
"""

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Sequence

_KERAS = ('keras', 'tf_keras')


def defer() -> None:
  """Lets TensorFlow, if it is not imported yet, do without Keras while it is imported."""
  if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
    sys.meta_path.insert(0, _Finder())


class _Finder:
  """Finds Keras as a package that cannot be imported, while TensorFlow is being imported.

  It is found, since TensorFlow asks where it lies. Keras that was imported first is none of its business.
  """

  def find_spec(
    self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
  ) -> importlib.machinery.ModuleSpec | None:
    """Returns the spec of a package that is not to be imported now; None for all others."""
    if name not in _KERAS or not _is_being_imported('tensorflow'):
      return None
    spec = importlib.machinery.PathFinder.find_spec(name, path, target)
    if spec is not None:
      spec.loader = _Refusal()
    return spec


class _Refusal(importlib.abc.Loader):
  """A loader that loads nothing."""

  def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
    """Raises ImportError, which TensorFlow expects where there is no Keras."""
    raise ImportError(f'{spec.name} is not imported together with TensorFlow', name=spec.name)

  def exec_module(self, module: types.ModuleType) -> None:
    """Is never called, since no module is made."""


def _is_being_imported(name: str) -> bool:
  spec = getattr(sys.modules.get(name), '__spec__', None)
  # The mark by which Python itself tells a module that is imported twice in a circle.
  return bool(getattr(spec, '_initializing', False))
