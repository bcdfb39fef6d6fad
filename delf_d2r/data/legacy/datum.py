"""`.datum` files of the tensorflow/models DELF code: a float32 or uint32 tensor (docs/reference.md 1.1)."""

import math
import pathlib

import numpy as np

from delf_d2r.data import files
from delf_d2r.protos import delf_datum_pb2

_FLOATS = ('float16', 'float32', 'float64')
_UNSIGNED = ('uint8', 'uint16', 'uint32', 'uint64')


def encode(array: np.ndarray) -> delf_datum_pb2.DatumProto:
  """Encodes a tensor of any rank: floats as float32, unsigned integers as uint32.

  Raises:
    ValueError: the dtype is another one, or an integer has more than 32 bits.
  """
  datum = delf_datum_pb2.DatumProto()
  datum.shape.dim.extend(array.shape)
  if array.dtype.name in _FLOATS:
    datum.float_list.SetInParent()
    # protobuf takes lists three times as fast as arrays.
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
  """Decodes the inverse of `encode`: a float32 or uint32 tensor.

  Raises:
    ValueError: there are no values, or their number does not match the shape.
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
  """Encodes two tensors."""
  return delf_datum_pb2.DatumPairProto(first=encode(first), second=encode(second))


def decode_pair(pair: delf_datum_pb2.DatumPairProto) -> tuple[np.ndarray, np.ndarray]:
  """Decodes the inverse of `encode_pair`."""
  return decode(pair.first), decode(pair.second)


def write(path: str | pathlib.Path, array: np.ndarray) -> None:
  """Writes a tensor to a file."""
  files.write_output(pathlib.Path(path), encode(array).SerializeToString())


def read(path: str | pathlib.Path) -> np.ndarray:
  """Reads the tensor of a file: float32 or uint32.

  Raises:
    UserError: the file is missing or damaged.
  """
  with files.format_errors(path, 'a .datum file'):
    return decode(delf_datum_pb2.DatumProto.FromString(pathlib.Path(path).read_bytes()))
