"""Arrays of an index on the disk: `.npy` files of which size, header and checksum are known beforehand.

Arrays are little-endian, in C order; headers are compared with the only one expected, so nothing of a damaged
file is ever interpreted.
"""

import os
from collections.abc import Iterable, Iterator

import google_crc32c
import numpy as np

CHUNK = 1 << 24  # bytes read or written at once
REMEDY = 'build the index again or restore it from a copy'


class IndexFormatError(ValueError):
  """A file of an index is missing, damaged or of another version; the message says which and what to do."""


def array_header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
  """The header of an `.npy` file, version 1.0, padded to a multiple of 64 bytes."""
  text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': {shape!r}, }}".encode('latin1')
  padding = -(10 + len(text) + 1) % 64
  size = (len(text) + padding + 1).to_bytes(2, 'little')
  return b'\x93NUMPY\x01\x00' + size + text + b' ' * padding + b'\n'


def file_bytes(dtype: np.dtype, shape: tuple[int, ...]) -> int:
  """Size of the file of an array."""
  return len(array_header(dtype, shape)) + dtype.itemsize * int(np.prod(shape, dtype=object))


def check_size(path: str, dtype: np.dtype, shape: tuple[int, ...]) -> None:
  """Raises IndexFormatError unless the file is there and as long as the array needs."""
  expected = file_bytes(dtype, shape)
  try:
    found = os.stat(path).st_size
  except OSError as error:
    raise IndexFormatError(
      f'{path}: {error.strerror}. If another process has updated the index, load it again; else {REMEDY}'
    ) from error
  if found != expected:
    raise IndexFormatError(f'{path}: expected {expected} bytes, found {found}; {REMEDY}')


def map_array(path: str, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
  """Memory-maps an array, read-only, if the file is exactly what `dtype` and `shape` promise."""
  check_size(path, dtype, shape)
  header = array_header(dtype, shape)
  with open(path, 'rb') as file:
    if file.read(len(header)) != header:
      raise IndexFormatError(f'{path}: the header is not that of {dtype.str} {shape}; {REMEDY}')
    if 0 in shape:
      array = np.zeros(shape, dtype)
      array.flags.writeable = False
      return array
    return np.memmap(file, dtype, 'r', len(header), shape).view(np.ndarray)


def check_offsets(offsets: np.ndarray, end: int, path: str) -> None:
  """Raises IndexFormatError unless `offsets`, the content of `path`, rise from 0 to `end`."""
  if offsets[0] != 0 or offsets[-1] != end or not (offsets[1:] >= offsets[:-1]).all():
    raise IndexFormatError(
      f'{path}: expected offsets that rise from 0 to {end}, found {offsets[0]} to {offsets[-1]}'
      f' with {int((offsets[1:] < offsets[:-1]).sum())} descents; {REMEDY}'
    )


def check_checksum(path: str, expected: int) -> None:
  """Reads a whole file and raises IndexFormatError unless it has the CRC-32C that is expected."""
  crc = google_crc32c.Checksum()
  try:
    with open(path, 'rb') as file:
      while chunk := file.read(CHUNK):
        crc.update(chunk)
  except OSError as error:
    raise IndexFormatError(f'{path}: {error.strerror}; {REMEDY}') from error
  found = int.from_bytes(crc.digest(), 'big')
  if found != expected:
    raise IndexFormatError(f'{path}: expected checksum {expected:08x}, found {found:08x}; {REMEDY}')


def read_through(paths: Iterable[str]) -> Iterator[int]:
  """Reads files from beginning to end and yields the bytes of each piece: they then are in the page cache.

  The lists of a query lie all over the index. A disk that has to seek them takes many times longer than one
  that reads everything in a row.

  Raises:
    IndexFormatError: a file is missing or cannot be read.
  """
  buffer = bytearray(CHUNK)
  for path in paths:
    try:
      with open(path, 'rb', buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while count := file.readinto(buffer):
          yield count
    except OSError as error:
      raise IndexFormatError(f'{path}: {error.strerror}; {REMEDY}') from error


def array_path(directory: str, stem: str, checksum: int) -> str:
  """Where an array of a given content lies."""
  return os.path.join(directory, f'{stem}-{checksum:08x}.npy')
