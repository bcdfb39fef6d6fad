"""The identity of a photo: a digest of all of its bytes, taken from the bytes that are decoded.

Size and modification time belong to no fingerprint. They only tell whether a file may have changed since it
was read, so that it has to be read again to be sure.
"""

import dataclasses
import enum
import errno
import hashlib
import os
import pathlib
import time
from typing import BinaryIO

from delf_d2r.errors import PhotoUnavailableError

_OF_THE_FILE = frozenset((errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP))

_DIGITS = 32
_ATTEMPTS = 5

# Two changes of a file within one tick of the clock of its file system have the same modification time. A
# photo that was changed this short a time ago is read again after it. File systems with ticks of seconds give
# whole seconds.
_TICK_NS = 50_000_000
_LONG_TICK_NS = 2_000_000_000


class Trust(enum.Enum):
  """What shows that a file has not changed since it was read, beside its size."""

  MODIFIED = 'the modification time'
  CHANGED = 'the modification time and that of the last change, which a program cannot set'
  NOTHING = 'nothing: it is read'


@dataclasses.dataclass(frozen=True)
class PhotoState:
  """A photo as it was when it was read.

  Attributes:
    digest: of all of its bytes, 32 hexadecimal digits; '' if they could not be read.
    size: in bytes.
    modified: the modification time in nanoseconds since 1970.
    changed: the time of the last change of content, name or permissions, likewise.
  """

  digest: str
  size: int = -1
  modified: int = -1
  changed: int = -1

  def confirmed(self, path: str | pathlib.Path, *, trust: Trust = Trust.MODIFIED) -> 'PhotoState | None':
    """Returns the state of a file with these bytes, which may have other times; None if it has other bytes.

    Args:
      path: the file. One that cannot be read has other bytes.
      trust: when the file need not be read, provided that its size is the same.
    """
    try:
      found = os.stat(path)
      if found.st_size != self.size:
        return None
      now = dataclasses.replace(self, modified=found.st_mtime_ns, changed=found.st_ctime_ns)
      if trust is Trust.MODIFIED and now.modified == self.modified:
        return self
      if trust is Trust.CHANGED and now == self:
        return self
      return now if digest(path) == self.digest else None
    except OSError:
      return None


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
        state = of_bytes(data)
        return data, dataclasses.replace(state, modified=before.st_mtime_ns, changed=before.st_ctime_ns)
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


def is_permanent(error: OSError, path: str | pathlib.Path) -> bool:
  """Returns whether an error is about this file alone and does not go away by itself.

  A run leaves such a photo out and goes on: one that may not be read, or a link that leads nowhere.
  """
  return error.errno in _OF_THE_FILE or (error.errno == errno.ENOENT and os.path.islink(path))


def unavailable(path: object, error: OSError) -> PhotoUnavailableError:
  """Returns the error of a photo that the system cannot read now."""
  return PhotoUnavailableError(
    f'{path}: cannot be read ({error.strerror}). Check that it is there, and the disk or network share, then'
    ' run the same command again'
  )


def _changing(path: str | pathlib.Path) -> PhotoUnavailableError:
  """Returns the error of a photo that changes whenever it is read."""
  return PhotoUnavailableError(
    f'{path}: changes while it is read. Wait until it is written, then run the same command again'
  )
