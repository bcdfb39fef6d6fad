"""Reads the tensors of a PyTorch checkpoint into NumPy, without PyTorch and without executing its pickle.

The format is that of `torch.save` before version 1.6: three small pickles (magic number, protocol, integer
  sizes
of the writer), the pickled state dict in which tensors are views of storages named by keys, the pickled list
of those keys, and for each key an int64 count and that many little-endian items.
"""

import dataclasses
import io
import math
import os
import pathlib
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np

from delf_d2r.data.foreign import restricted_pickle
from delf_d2r.errors import UserError

_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES = {
  'DoubleStorage': '<f8',
  'FloatStorage': '<f4',
  'HalfStorage': '<f2',
  'LongStorage': '<i8',
  'IntStorage': '<i4',
  'ShortStorage': '<i2',
  'CharStorage': 'i1',
  'ByteStorage': 'u1',
}


def load(path: str | pathlib.Path) -> dict[str, np.ndarray]:
  """Reads the state dict of a checkpoint: arrays by name, in the layouts of PyTorch (convolutions: OIHW).

  Raises:
    UserError: the file cannot be read, is in another format, or its pickle contains anything but tensors.
  """
  try:
    with open(path, 'rb') as file:
      return _read(file, path)
  except UserError:
    raise
  except Exception as error:  # A damaged pickle raises nearly any exception.
    raise UserError(
      f'{path}: no PyTorch checkpoint of tensors in the format before version 1.6 ({type(error).__name__}:'
      f' {error}). Save it with torch.save(..., _use_new_zipfile_serialization=False)'
    ) from None


def _read(file, path) -> dict[str, np.ndarray]:
  magic = _load(file)
  if magic != _MAGIC:
    raise ValueError(f'expected the magic number {_MAGIC:#x}, found {magic!r}')
  _load(file)  # Version of the protocol.
  writer = _load(file)
  if not writer.get('little_endian', False):
    raise ValueError('expected little-endian tensors')
  state = _load(file)
  keys = _load(file)
  if not isinstance(state, Mapping):
    raise ValueError(f'expected a state dict, found {type(state).__name__}')
  tensors = {name: value for name, value in state.items() if isinstance(value, _Tensor)}
  dtypes = {tensor.storage.key: tensor.storage.dtype for tensor in tensors.values()}
  storages = {key: _read_storage(file, dtypes[key]) for key in keys}
  return {name: tensor.of(storages[tensor.storage.key]) for name, tensor in tensors.items()}


def _load(file: io.BufferedReader) -> Any:
  """Loads the next pickle of a file."""
  start = file.tell()
  restricted_pickle.check_opcodes(file, os.fstat(file.fileno()).st_size)
  file.seek(start)
  return _Unpickler(file).load()


def _read_storage(file: io.BufferedReader, dtype: np.dtype) -> np.ndarray:
  count = int.from_bytes(file.read(8), 'little')
  data = file.read(count * dtype.itemsize)
  if len(data) != count * dtype.itemsize:
    raise ValueError(f'cut short: a storage of {count} items of {dtype} has {len(data)} bytes')
  return np.frombuffer(data, dtype)


@dataclasses.dataclass(frozen=True)
class _Storage:
  key: str
  dtype: np.dtype


@dataclasses.dataclass(frozen=True)
class _Tensor:
  """A view of a storage that is read later."""

  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]

  def of(self, items: np.ndarray) -> np.ndarray:
    """Returns a copy of the tensor, given the items of its storage."""
    last = self.offset + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))
    size = math.prod(self.shape)
    # With strides of 0, a tensor could have any size in a small storage.
    if (
      min((self.offset, *self.shape, *self.strides)) < 0 or size > len(items) or (size and last >= len(items))
    ):
      raise ValueError(f'a tensor of shape {self.shape} reaches beyond its storage of {len(items)} items')
    strides = tuple(stride * items.itemsize for stride in self.strides)
    return np.lib.stride_tricks.as_strided(items[self.offset :], self.shape, strides).copy()


class _Attributes(dict):
  """The substitute of an OrderedDict; it ignores the attributes that BUILD sets."""

  def __setstate__(self, state):
    pass


class _Unpickler(pickle.Unpickler):
  def find_class(self, module: str, name: str):
    if (module, name) == ('collections', 'OrderedDict'):
      return _Attributes
    if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
      return _rebuild_tensor
    if module == 'torch' and name in _STORAGES:
      return np.dtype(_STORAGES[name])
    raise UserError(
      f'refused the global {module}.{name} in a checkpoint: only tensors are admitted, and nothing was'
      ' executed. Get the file from a source you trust'
    )

  def persistent_load(self, identity) -> _Storage:
    kind, dtype, key, _device, _count, view = identity
    if kind != 'storage' or not isinstance(dtype, np.dtype) or view is not None:
      raise ValueError(f'refused the storage {key!r}: only plain ones are admitted')
    return _Storage(key, dtype)


def _rebuild_tensor(storage, offset, shape, strides, _requires_grad=False, _hooks=None) -> _Tensor:
  return _Tensor(storage, offset, tuple(shape), tuple(strides))
