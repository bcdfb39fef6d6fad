"""Compressed files of others: how much they unpack to, found out before it is unpacked into memory."""

import pathlib
import struct
import zipfile
import zlib
from typing import BinaryIO

_MAT_HEADER = 128
_MAT_VERSION = 0x0100
_MAT_COMPRESSED = 15
_CHUNK = 1 << 16


def check_zip(file: BinaryIO, most: int) -> None:
  """Raises ValueError if the members of a zip archive, as `.npz` files are, unpack to over `most` bytes."""
  with zipfile.ZipFile(file) as archive:
    _require(sum(member.file_size for member in archive.infolist()), most)
  file.seek(0)


def check_mat(path: pathlib.Path, most: int) -> None:
  """Raises ValueError if a MATLAB 5 file unpacks to over `most` bytes or its compressed data are damaged."""
  with open(path, 'rb') as file:
    header = file.read(_MAT_HEADER)
    order = {b'IM': '<', b'MI': '>'}.get(header[126:128])
    if order is None or struct.unpack(f'{order}H', header[124:126])[0] != _MAT_VERSION:
      return  # Another version, or no such file: what reads it will tell.
    total, end = 0, path.stat().st_size
    while len(tag := file.read(8)) == 8:
      kind, size = struct.unpack(f'{order}II', tag)
      if kind == _MAT_COMPRESSED:
        total = _inflate(file, size, total, most)
      else:
        total += min(size, end - file.tell())
        _require(total, most)
        file.seek(size, 1)


def _inflate(file: BinaryIO, size: int, total: int, most: int) -> int:
  """Unpacks `size` bytes piece by piece without keeping them; returns `total` and what they amount to."""
  unpacker = zlib.decompressobj()
  try:
    while size > 0 and (packed := file.read(min(size, _CHUNK))):
      size -= len(packed)
      while packed:
        total += len(unpacker.decompress(packed, _CHUNK))
        _require(total, most)
        packed = unpacker.unconsumed_tail
  except zlib.error as error:
    raise ValueError(f'its compressed data are damaged ({error})') from None
  return total


def _require(found: int, most: int) -> None:
  if found > most:
    raise ValueError(f'it unpacks to at least {found:,} bytes, at most {most:,} are taken')
