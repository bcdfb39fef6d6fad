"""Temporary files and folders beside their targets; the next run removes those of runs that were killed.

Whoever writes one keeps it locked, and the operating system drops the lock with the process, however that
ends. So a temporary file without a lock is of a run that was killed.
"""

import contextlib
import errno
import fcntl
import os
import pathlib
import re
import shutil
import stat
import struct
import tempfile
from collections.abc import Iterator

_FILE_SUFFIX = '.tmp'
# What tempfile adds to a prefix.
_RANDOM = r'[a-z0-9_]{8}'
_FILE = re.compile(rf'\.(?P<name>.+)\.{_RANDOM}\{_FILE_SUFFIX}', re.DOTALL)
# The temporary files in a folder by the name of their target, as they were when this process wrote the first
# file there. Folders with a million files are listed once.
_FOUND: dict[pathlib.Path, dict[str, list[pathlib.Path]]] = {}


@contextlib.contextmanager
def temporary_file(target: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a new file in the folder of `target`, which is removed at the end unless it was renamed.

  Removes what runs that were killed have left of earlier ones.
  """
  remove_leftovers(target)
  handle, path = _new_file(target)
  try:
    yield path
  finally:
    path.unlink(missing_ok=True)
    os.close(handle)


def remove_leftovers(target: pathlib.Path) -> None:
  """Removes the temporary files of `target` that runs have left which were killed."""
  for leftover in _files_in(target.parent).pop(target.name, ()):
    _remove(leftover)


def remove_all_leftovers(folder: pathlib.Path) -> None:
  """Removes the temporary files of any target in a folder that belongs to this package alone."""
  found = _files_in(folder)
  while found:
    for leftover in found.popitem()[1]:
      _remove(leftover)


@contextlib.contextmanager
def temporary_folder(parent: pathlib.Path, prefix: str) -> Iterator[pathlib.Path]:
  """Yields a new folder in `parent`, which is removed at the end unless it was renamed.

  Removes folders of the same prefix that runs have left which were killed.

  Args:
    parent: an existing folder.
    prefix: begins the name of the folder.
  """
  pattern = re.compile(re.escape(prefix) + _RANDOM, re.DOTALL)
  for entry in _entries(parent):
    if pattern.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
      _remove(pathlib.Path(entry.path))
  while True:
    path = pathlib.Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
    handle = _locked(path)
    if handle is not None:
      break
  try:
    yield path
  finally:
    shutil.rmtree(path, ignore_errors=True)
    os.close(handle)


def _new_file(target: pathlib.Path) -> tuple[int, pathlib.Path]:
  """Returns a new locked file: its descriptor, which keeps the lock, and its path."""
  while True:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f'.{target.name}.', suffix=_FILE_SUFFIX)
    os.close(handle)
    path = pathlib.Path(name)
    locked = _locked(path)
    if locked is not None:
      return locked, path


def _locked(path: pathlib.Path) -> int | None:
  """Locks a file or folder that was just made; returns None if another process removes it."""
  try:
    handle = _opened(path)
  except FileNotFoundError:
    return None
  try:
    _lock(handle)
  except OSError as error:
    # A process that looks for leftovers has the lock, and will remove the file. Any other error means that
    # the file system has no locks: nothing is taken for a leftover then.
    if error.errno in (errno.EAGAIN, errno.EACCES):
      os.close(handle)
      return None
  if os.fstat(handle).st_nlink and path.exists():
    return handle
  os.close(handle)
  return None


def _opened(path: pathlib.Path) -> int:
  access = os.O_RDONLY if path.is_dir() else os.O_RDWR
  return os.open(path, access | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _lock(handle: int) -> None:
  """Locks an open file or folder; raises OSError if it is locked, or cannot be."""
  if stat.S_ISDIR(os.fstat(handle).st_mode) or not hasattr(fcntl, 'F_OFD_SETLK'):
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
  else:
    # HDF5 takes the other kind of lock, flock, on the files that it writes. The fields are those of a struct
    # flock: the type, and the whole file from its beginning.
    fcntl.fcntl(handle, fcntl.F_OFD_SETLK, struct.pack('hhqqi', fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))


def _files_in(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
  folder = folder.absolute()
  if folder not in _FOUND:
    found: dict[str, list[pathlib.Path]] = {}
    for entry in _entries(folder):
      match = _FILE.fullmatch(entry.name)
      if match and entry.is_file(follow_symlinks=False):
        found.setdefault(match['name'], []).append(pathlib.Path(entry.path))
    _FOUND[folder] = found
  return _FOUND[folder]


def _entries(folder: pathlib.Path) -> list[os.DirEntry[str]]:
  with contextlib.suppress(OSError), os.scandir(folder) as entries:
    return [entry for entry in entries if entry.name.startswith('.') or entry.is_dir(follow_symlinks=False)]
  return []


def _remove(path: pathlib.Path) -> None:
  """Removes a file or folder of this user that no process has locked."""
  # A folder that cannot be changed, or a file system without locks, is no reason to stop.
  with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
    handle = _opened(path)
    stack.callback(os.close, handle)
    if os.fstat(handle).st_uid != os.geteuid():
      return
    _lock(handle)
    if path.is_dir():
      shutil.rmtree(path, ignore_errors=True)
    else:
      path.unlink()
