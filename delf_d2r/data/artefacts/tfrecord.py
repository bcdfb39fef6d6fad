"""TFRecord files: the framing of TensorFlow's record format.

Each record is `uint64 length, uint32 masked CRC-32C of the length, data, uint32 masked CRC-32C of the data`,
little endian. There is no library for it here: TensorFlow has the only well-maintained reader of the format,
takes seconds and hundreds of megabytes to import, which searching must not cost, cannot read from a given
offset, and does not name the damaged file in its errors. The checksum comes from google-crc32c; a test reads
these files with tf.data and writes them with tf.io.
"""

import os
import pathlib
import struct
from collections.abc import Iterator
from typing import BinaryIO

import google_crc32c

from delf_d2r.errors import ArtefactError

_LENGTH = struct.Struct('<Q')
_CRC = struct.Struct('<I')
_MASK_DELTA = 0xA282EAD8


def write_record(file: BinaryIO, data: bytes) -> int:
  """Appends one record and returns the bytes written."""
  length = _LENGTH.pack(len(data))
  frame = b''.join((length, _CRC.pack(_masked_crc(length)), data, _CRC.pack(_masked_crc(data))))
  file.write(frame)
  return len(frame)


def read_file(path: pathlib.Path, *, skip: int = 0) -> Iterator[bytes]:
  """Yields the records of one file in order, after the first `skip`, whose data is not read.

  Raises:
    ArtefactError: the file ends within a record or a checksum does not match. The records before the
      damage have been yielded.
  """
  size = os.path.getsize(path)
  with open(path, 'rb') as file:
    for _ in range(skip):
      file.seek(_read_length(file, size, path) + _CRC.size, os.SEEK_CUR)
    while file.tell() < size:
      yield _read_one(file, size, path)


def read_at(path: pathlib.Path, offset: int) -> bytes:
  """Returns the record that starts at byte `offset`; raises ArtefactError if there is none."""
  size = os.path.getsize(path)
  with open(path, 'rb') as file:
    file.seek(offset)
    return _read_one(file, size, path)


def record_offsets(path: pathlib.Path) -> list[int]:
  """Returns the byte offset of every record, from the lengths alone: the data is not read."""
  size = os.path.getsize(path)
  offsets, position = [], 0
  with open(path, 'rb') as file:
    while position < size:
      offsets.append(position)
      position += _LENGTH.size + 2 * _CRC.size + _read_length(file, size, path)
      file.seek(position)
  return offsets


def _read_one(file: BinaryIO, size: int, path: pathlib.Path) -> bytes:
  start = file.tell()
  length = _read_length(file, size, path)
  data = file.read(length)
  if _masked_crc(data) != _CRC.unpack(file.read(_CRC.size))[0]:
    raise _damaged(path, start, 'the checksum of the data does not match')
  return data


def _read_length(file: BinaryIO, size: int, path: pathlib.Path) -> int:
  start = file.tell()
  head = file.read(_LENGTH.size + _CRC.size)
  if len(head) < _LENGTH.size + _CRC.size:
    raise _damaged(path, start, f'it ends within a record ({size} bytes)')
  if _masked_crc(head[: _LENGTH.size]) != _CRC.unpack(head[_LENGTH.size :])[0]:
    raise _damaged(path, start, 'the checksum of the length does not match')
  length = _LENGTH.unpack(head[: _LENGTH.size])[0]
  # Checked before reading, so that no length needs more memory than the file has bytes.
  if file.tell() + length + _CRC.size > size:
    raise _damaged(path, start, f'it ends within a record ({size} bytes)')
  return length


def _masked_crc(data: bytes) -> int:
  crc = google_crc32c.value(data)
  return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def _damaged(path: pathlib.Path, offset: int, what: str) -> ArtefactError:
  return ArtefactError(
    f'{path}: damaged at byte {offset}: {what}. Delete the artefact directory and run its stage again'
  )
