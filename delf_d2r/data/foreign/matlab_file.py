"""Reads untrusted MATLAB files of versions 5 to 7.2: numbers, text, cells and structs.

This reader exists because that of SciPy trusts the lengths in a damaged file and reads beyond its buffers,
which kills the process (found by fuzzing, SciPy 1.17). A test compares the two on files written by SciPy.

A file is a header of 128 bytes and a sequence of elements: a tag (kind, bytes), then data, padded to 8 bytes.
  An
element of kind MATRIX is an array that consists of elements itself: flags, dimensions, name, and the content
  of
its class.
"""

import dataclasses
import math
import pathlib
import struct
import zlib
from typing import Literal

import numpy as np

# Limit of the unpacked size. It also bounds the memory of cells: 100 bytes for each 8 bytes of a file.
MAX_BYTES = 16 * 2**20
_HEADER = 128
_VERSION, _VERSION_HDF5 = 0x0100, 0x0200
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {
  1: 'i1', 2: 'u1', 3: 'i2', 4: 'u2', 5: 'i4', 6: 'u4', 7: 'f4', 9: 'f8', 12: 'i8', 13: 'u8',
}  # fmt: skip
_TEXTS = {1: 'latin-1', 2: 'latin-1', 4: 'utf-16', 16: 'utf-8', 17: 'utf-16', 18: 'utf-32'}
_CELL, _STRUCT, _CHAR, _NUMERIC = 1, 2, 4, range(6, 16)
_COMPLEX = 0x800
_MAX_DEPTH = 16
_EMPTY = np.zeros((0, 0))

_Order = Literal['<', '>']
_ORDERS: dict[bytes, _Order] = {b'IM': '<', b'MI': '>'}


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads the variables of a file.

  Returns:
    Arrays by name. Numbers keep their dtype; text is an array of strings, one for each row of characters; a
    cell array is an object array; a struct array is an object array of dicts.

  Raises:
    ValueError: the file is damaged or of another version, holds other kinds of values, or has over MAX_BYTES
      unpacked.
  """
  data = path.read_bytes()
  order = _ORDERS.get(data[126:_HEADER])
  version = struct.unpack(f'{order}H', data[124:126])[0] if order else None
  if version == _VERSION_HDF5:
    raise ValueError('MATLAB 7.3 files are not read; save it with save(..., "-v7")')
  if order is None or version != _VERSION:
    raise ValueError('not a MATLAB file, or cut short: expected the header of versions 5 to 7.2')
  try:
    return _read_variables(_Elements(memoryview(data)[_HEADER:], order))
  except (struct.error, UnicodeDecodeError, zlib.error) as error:
    raise ValueError(f'not a MATLAB file, or cut short ({error})') from None


@dataclasses.dataclass
class _Elements:
  """A reader of a sequence of elements.

  Attributes:
    data: the bytes of the whole sequence.
    order: byte order.
    position: the beginning of the next element.
  """

  data: memoryview
  order: _Order
  position: int = 0

  def __bool__(self) -> bool:
    return self.position < len(self.data)

  def next(self) -> tuple[int, memoryview]:
    """Reads kind and data of the next element; raises ValueError if it extends beyond the end."""
    kind, size = struct.unpack_from(f'{self.order}II', self.data, self.position)
    start = self.position + 8
    if kind >> 16:  # The short form: a tag of two halves and at most four bytes of data.
      kind, size, start = kind & 0xFFFF, kind >> 16, self.position + 4
      self.position += 8
    else:
      self.position = start + size + (0 if kind == _COMPRESSED else -size % 8)
    # The last element may lack its padding.
    if start + size > len(self.data) or (start == self.position - 4 and size > 4):
      raise ValueError(f'not a MATLAB file, or cut short: an element of {size} bytes at {start}')
    return kind, self.data[start : start + size]

  def numbers(self) -> np.ndarray:
    """Reads the next element, which must be numbers."""
    kind, data = self.next()
    dtype = np.dtype(_NUMBERS.get(kind, 'V1')).newbyteorder(self.order)
    if dtype.kind == 'V' or len(data) % dtype.itemsize:
      raise ValueError(f'not a MATLAB file: expected numbers, found {len(data)} bytes of kind {kind}')
    return np.frombuffer(data, dtype).astype(dtype.newbyteorder('='))

  def text(self) -> str:
    """Reads the next element, which must be text."""
    kind, data = self.next()
    if kind not in _TEXTS:
      raise ValueError(f'not a MATLAB file: expected text, found kind {kind}')
    encoding = _TEXTS[kind]
    if encoding in ('utf-16', 'utf-32'):
      encoding += '-le' if self.order == '<' else '-be'
    return bytes(data).decode(encoding)


def _read_variables(elements: _Elements) -> dict[str, np.ndarray]:
  found: dict[str, np.ndarray] = {}
  left = MAX_BYTES - len(elements.data)
  if left < 0:
    raise _too_large()
  while elements:
    kind, data = elements.next()
    if kind == _COMPRESSED:
      unpacked = memoryview(_inflate(data, left))
      left -= len(unpacked)
      kind, data = _Elements(unpacked, elements.order).next()
    if kind != _MATRIX:
      raise ValueError(f'not a MATLAB file: expected a variable, found kind {kind}')
    name, value = _read_matrix(_Elements(data, elements.order), 0)
    found[name] = value
  return found


def _inflate(data: memoryview, limit: int) -> bytes:
  unpacker = zlib.decompressobj()
  unpacked = unpacker.decompress(data, limit + 1)
  if len(unpacked) > limit:
    raise _too_large()
  if not unpacker.eof:
    raise ValueError('not a MATLAB file, or cut short: its compressed data do not end')
  return unpacked


def _too_large() -> ValueError:
  return ValueError(f'it unpacks to over {MAX_BYTES:,} bytes; is it a ground truth?')


def _read_matrix(elements: _Elements, depth: int) -> tuple[str, np.ndarray]:
  """Reads the name and the value of an array."""
  if not elements:
    return '', _EMPTY
  if depth > _MAX_DEPTH:
    raise ValueError(f'arrays nested deeper than {_MAX_DEPTH}')
  flags, sizes = elements.numbers(), elements.numbers()
  name = elements.text()
  if len(flags) != 2 or len(sizes) < 2 or len(sizes) > 8 or min(sizes) < 0:
    raise ValueError(f'not a MATLAB file: {name!r} has flags {flags.tolist()} and shape {sizes.tolist()[:9]}')
  shape = tuple(int(size) for size in sizes)
  kind = int(flags[0]) & 0xFF
  if kind == _CELL:
    return name, _read_cells(elements, shape, depth)
  if kind == _STRUCT:
    return name, _read_structs(elements, shape, depth)
  if kind == _CHAR:
    return name, _read_text(elements, shape)
  if kind in _NUMERIC and not int(flags[0]) & _COMPLEX:
    return name, _reshape(elements.numbers(), shape)
  raise ValueError(f'{name!r} is of class {kind}; expected real numbers, text, cells or structs')


def _read_cells(elements: _Elements, shape: tuple[int, ...], depth: int) -> np.ndarray:
  values = [_read_element(elements, depth) for _ in range(_checked_count(elements, math.prod(shape)))]
  return _object_array(values, shape)


def _read_structs(elements: _Elements, shape: tuple[int, ...], depth: int) -> np.ndarray:
  (length,) = elements.numbers()
  _, data = elements.next()
  if length < 1 or len(data) % int(length):
    raise ValueError(f'not a MATLAB file: field names of {length} bytes in {len(data)}')
  size = int(length)
  fields = [
    bytes(data[start : start + size]).split(b'\0')[0].decode('latin-1') for start in range(0, len(data), size)
  ]
  _checked_count(elements, math.prod(shape) * max(len(fields), 1))
  values = [{field: _read_element(elements, depth) for field in fields} for _ in range(math.prod(shape))]
  return _object_array(values, shape)


def _read_element(elements: _Elements, depth: int) -> np.ndarray:
  kind, data = elements.next()
  if kind != _MATRIX:
    raise ValueError(f'not a MATLAB file: expected an array in an array, found kind {kind}')
  return _read_matrix(_Elements(data, elements.order), depth + 1)[1]


def _checked_count(elements: _Elements, count: int) -> int:
  """Returns `count`; raises ValueError if the rest of the sequence is too short for that many elements."""
  if count * 8 > len(elements.data) - elements.position:
    raise ValueError(f'not a MATLAB file, or cut short: {count} arrays in {len(elements.data)} bytes')
  return count


def _object_array(values: list, shape: tuple[int, ...]) -> np.ndarray:
  array = np.empty(len(values), object)
  array[:] = values
  return array.reshape(shape, order='F')


def _read_text(elements: _Elements, shape: tuple[int, ...]) -> np.ndarray:
  text = elements.text() if elements else ''
  letters = _reshape(np.array(list(text), 'U1'), shape)
  rows = [''.join(row) for row in letters.reshape(shape[0], -1).tolist()]
  return np.array(rows, np.str_)


def _reshape(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  if len(values) != math.prod(shape):
    raise ValueError(f'not a MATLAB file, or cut short: {len(values)} values for an array {shape}')
  return values.reshape(shape, order='F')
