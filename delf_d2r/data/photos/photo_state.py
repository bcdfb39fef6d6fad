"""The identity of a photo: a digest of all of its bytes, taken from the bytes that are decoded.

Size and modification time belong to no fingerprint. They only tell whether a file may have changed since it
was read, so that it has to be read again to be sure.
"""

import dataclasses
import hashlib
import os
import pathlib
import time
from typing import BinaryIO

from delf_d2r.errors import PhotoUnavailableError

_DIGITS = 32
_ATTEMPTS = 5

# Two changes of a file within one tick of the clock of its file system have the same modification time. A
# photo that was changed this short a time ago is read again after it. File systems with ticks of seconds give
# whole seconds.
_TICK_NS = 50_000_000
_LONG_TICK_NS = 2_000_000_000


@dataclasses.dataclass(frozen=True)
class PhotoState:
  """A photo as it was when it was read.

  Attributes:
    digest: of all of its bytes, 32 hexadecimal digits; '' if they could not be read.
    size: in bytes.
    modified: the modification time in nanoseconds since 1970.
  """

  digest: str
  size: int = -1
  modified: int = -1

  def is_unchanged(self, path: str | pathlib.Path, *, always_read: bool = False) -> bool:
    """Returns whether a file still has these bytes.

    Args:
      path: the file. It is read only where its size is the same and its modification time is another one.
      always_read: read it even if both are the same.
    """
    try:
      found = os.stat(path)
      if found.st_size != self.size:
        return False
      if found.st_mtime_ns == self.modified and not always_read:
        return True
      return digest(path) == self.digest
    except OSError:
      return False


def digest(path: str | pathlib.Path) -> str:
  """Returns the digest of the bytes of a file; raises OSError if it cannot be read."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()[:_DIGITS]


def of_bytes(data: bytes) -> PhotoState:
  """Returns the state of a photo that is not in a file."""
  return PhotoState(hashlib.sha256(data).hexdigest()[:_DIGITS], len(data))


def read(path: str | pathlib.Path) -> tuple[bytes, PhotoState]:
  """Reads a photo at one moment: its bytes and the state that belongs to them.

  Raises:
    PhotoUnavailableError: the file changes all the time.
    OSError: it cannot be read.
  """
  for _ in range(_ATTEMPTS):
    with open(path, 'rb') as file:
      before = os.fstat(file.fileno())
      data = file.read()
      if _is_settled(file, before) and len(data) == before.st_size:
        return data, dataclasses.replace(of_bytes(data), modified=before.st_mtime_ns)
  raise _changing(path)


def _is_settled(file: BinaryIO, before: os.stat_result) -> bool:
  """Returns whether a file that has just been read is the one that was there before.

  Waits until the tick of the clock is over where the file was changed right before.
  """
  tick = _TICK_NS if before.st_mtime_ns % 1_000_000_000 else _LONG_TICK_NS
  age = time.time_ns() - before.st_mtime_ns
  if 0 <= age < tick:
    time.sleep((tick - age) / 1e9)
    return False
  after = os.fstat(file.fileno())
  return (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def _changing(path: str | pathlib.Path) -> PhotoUnavailableError:
  """Returns the error of a photo that changes whenever it is read."""
  return PhotoUnavailableError(
    f'{path}: changes while it is read. Wait until it is written, then run the same command again'
  )
