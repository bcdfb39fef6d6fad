"""Codebooks of the tensorflow/models DELF code: TensorFlow checkpoints of one variable [K, D]
(docs/reference.md 2.1).

Two forms exist. The name-based one of TensorFlow 1 and its Estimators has the words as `clusters`; the
object-based one of TensorFlow 2 as attribute `codebook` of a tf.train.Checkpoint.
"""

import pathlib

import numpy as np
import tensorflow as tf

from delf_d2r.data import files, temporary_files
from delf_d2r.errors import UserError
from delf_d2r.models.saved_models import log_suppression

_OBJECT_KEY = 'codebook/.ATTRIBUTES/VARIABLE_VALUE'
_NAME = 'clusters'
_INDEX = '.index'


def find(path: str | pathlib.Path) -> pathlib.Path:
  """Returns the prefix of the checkpoint at `path`: a prefix, an `.index` file, or a folder with one of them.

  Raises:
    UserError: there is none, or a folder has several and does not say which is the latest.
  """
  path = pathlib.Path(path)
  if path.suffix == _INDEX:
    path = path.with_suffix('')
  if path.is_dir():
    latest = tf.train.latest_checkpoint(str(path))
    found = [latest] if latest else sorted(str(file.with_suffix('')) for file in path.glob(f'*{_INDEX}'))
    if len(found) != 1:
      raise UserError(
        f'{path}: expected one checkpoint, found {len(found)}'
        f' ({", ".join(found[:5]) or f"no *{_INDEX} file"}). Give its prefix, the name without {_INDEX}'
      )
    return pathlib.Path(found[0])
  if not _with_suffix(path, _INDEX).is_file():
    raise UserError(f'{path}: no checkpoint of that prefix ({_with_suffix(path, _INDEX)} is missing)')
  return path


def read(path: str | pathlib.Path) -> np.ndarray:
  """Returns the visual words float32 [K, D] of a checkpoint of either form.

  Args:
    path: as `find` takes it.

  Raises:
    UserError: it is damaged, has no codebook, or its words are no K vectors, not finite or all zero.
  """
  prefix = find(path)
  try:
    reader = tf.train.load_checkpoint(str(prefix))
    shapes = reader.get_variable_to_shape_map()
    key = next((key for key in (_OBJECT_KEY, _NAME) if key in shapes), '')
    words = np.asarray(reader.get_tensor(key) if key else ())
  except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
    raise UserError(f'{prefix}: not readable as a checkpoint ({str(error).splitlines()[0]})') from None
  if not key:
    raise UserError(
      f'{prefix}: no codebook in it: expected {_NAME!r} (TensorFlow 1) or {_OBJECT_KEY!r} (TensorFlow 2),'
      f' found {", ".join(sorted(shapes)[:8]) or "no variables"}'
    )
  if words.ndim != 2 or not words.size or words.dtype.kind != 'f':
    raise UserError(f'{prefix}: expected floats [K, D] as {key!r}, found {words.dtype} {list(words.shape)}')
  if not np.isfinite(words).all() or not words.any():
    what = 'all zero' if not words.any() else 'not finite'
    raise UserError(f'{prefix}: the codebook {key!r} {list(words.shape)} is {what}; it was never trained')
  return words.astype(np.float32)


def is_name_based(path: str | pathlib.Path) -> bool:
  """Returns whether a checkpoint has the form of TensorFlow 1; raises UserError if it is damaged."""
  prefix = find(path)
  try:
    return _OBJECT_KEY not in tf.train.load_checkpoint(str(prefix)).get_variable_to_shape_map()
  except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
    raise UserError(f'{prefix}: not readable as a checkpoint ({str(error).splitlines()[0]})') from None


def write(prefix: str | pathlib.Path, words: np.ndarray, *, name_based: bool) -> None:
  """Writes `<prefix>.data-00000-of-00001` and then `<prefix>.index`.

  Args:
    prefix: of the files; files of that name are replaced.
    words: float32 [K, D].
    name_based: the form of TensorFlow 1, instead of that of TensorFlow 2.
  """
  prefix = pathlib.Path(prefix)
  words = np.ascontiguousarray(words, np.float32)
  # Beside the target, so that a kill leaves no half of a checkpoint under its name.
  with temporary_files.temporary_folder(prefix.parent, f'.{prefix.name}.') as folder:
    temporary = str(pathlib.Path(folder, prefix.name))
    if name_based:
      tf.raw_ops.SaveV2(prefix=temporary, tensor_names=[_NAME], shape_and_slices=[''], tensors=[words])
    else:
      with log_suppression.warnings_only():
        tf.train.Checkpoint(codebook=tf.Variable(words, name=_NAME)).write(temporary)
    for suffix in ('.data-00000-of-00001', _INDEX):
      pathlib.Path(temporary + suffix).replace(_with_suffix(prefix, suffix))
  files.sync_directory(prefix.parent)


def _with_suffix(prefix: pathlib.Path, suffix: str) -> pathlib.Path:
  return prefix.with_name(prefix.name + suffix)
