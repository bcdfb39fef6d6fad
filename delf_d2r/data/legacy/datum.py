"""`.datum` files of the research code: one tensor of float32 or uint32, or a pair (docs/reference.md 1.1)."""

import math
import pathlib

import numpy as np

from delf_d2r.data import files
from delf_d2r.protos import delf_datum_pb2

_FLOATS = ('float16', 'float32', 'float64')
_UNSIGNED = ('uint8', 'uint16', 'uint32', 'uint64')


def encode(array: np.ndarray) -> delf_datum_pb2.DatumProto:
  """A tensor of any rank: floats become float32, unsigned integers uint32.

  Raises:
    ValueError: another dtype, or an integer of more than 32 bits.
  """
  datum = delf_datum_pb2.DatumProto()
  datum.shape.dim.extend(array.shape)
  if array.dtype.name in _FLOATS:
    datum.float_list.SetInParent()
    # Lists: three times as fast as arrays here.
    datum.float_list.value.extend(array.astype(np.float32).ravel().tolist())
  elif array.dtype.name in _UNSIGNED:
    if array.size and array.max() >= 2**32:
      raise ValueError(f'a datum holds integers of 32 bits, found {array.max()}')
    datum.uint32_list.SetInParent()
    datum.uint32_list.value.extend(array.ravel().tolist())
  else:
    raise ValueError(f'a datum holds {", ".join(_FLOATS + _UNSIGNED)}, found {array.dtype.name}')
  return datum


def decode(datum: delf_datum_pb2.DatumProto) -> np.ndarray:
  """The inverse of `encode`: float32 or uint32.

  Raises:
    ValueError: it has no values, or not as many as its shape says.
  """
  kind = datum.WhichOneof('kind_oneof')
  if kind is None:
    raise ValueError('a datum without values')
  values = np.array(getattr(datum, kind).value, np.float32 if kind == 'float_list' else np.uint32)
  shape = tuple(datum.shape.dim)
  if math.prod(shape) != len(values) or min(shape, default=0) < 0:
    raise ValueError(f'a datum of shape {shape} has {len(values)} values')
  return values.reshape(shape)


def encode_pair(first: np.ndarray, second: np.ndarray) -> delf_datum_pb2.DatumPairProto:
  """Two tensors."""
  return delf_datum_pb2.DatumPairProto(first=encode(first), second=encode(second))


def decode_pair(pair: delf_datum_pb2.DatumPairProto) -> tuple[np.ndarray, np.ndarray]:
  """The inverse of `encode_pair`."""
  return decode(pair.first), decode(pair.second)


def write(path: str | pathlib.Path, array: np.ndarray) -> None:
  """Writes a tensor to a file."""
  files.write_atomically(pathlib.Path(path), encode(array).SerializeToString())


def read(path: str | pathlib.Path) -> np.ndarray:
  """The tensor of a file: float32 or uint32.

  Raises:
    UserError: it is missing or damaged.
  """
  with files.readable(path, 'a .datum file'):
    return decode(delf_datum_pb2.DatumProto.FromString(pathlib.Path(path).read_bytes()))
