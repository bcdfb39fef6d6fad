"""Writes files atomically: whenever the process is killed, either the old or the new file is there."""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import google_crc32c
import numpy as np
from google.protobuf.message import DecodeError

from delf_d2r.data import temporary_files
from delf_d2r.errors import ArtefactError, UserError

# Folders of the descriptors of a process on Linux, which are links to what they are open on.
_DESCRIPTORS = re.compile(r'/proc/\d+(/task/\d+)?/fd')
_MOST_LINKS = 40


def write_atomically(path: pathlib.Path, data: bytes | str) -> None:
  """Writes a file atomically: under a temporary name in the same folder, synced and renamed to `path`."""
  with atomic_replace(path) as temporary:
    temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_if_changed(path: pathlib.Path, text: str) -> None:
  """Writes a text file atomically unless it holds this text already: its folder may be read-only."""
  if not path.is_file() or path.read_bytes() != text.encode():
    write_atomically(path, text)
  else:
    temporary_files.remove_leftovers(path)


@contextlib.contextmanager
def atomic_replace(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a temporary path to write to; on exit, that file is synced and replaces `path`.

  If the body raises, the temporary file is removed and `path` is unchanged. If the process is killed, the
  next one that writes `path` removes it.
  """
  with temporary_files.temporary_file(path) as temporary:
    yield temporary
    with open(temporary, 'rb') as file:
      os.fsync(file.fileno())
    # Temporary files are private; an artefact gets the usual permissions of a new file.
    os.chmod(temporary, 0o666 & ~_umask())
    os.replace(temporary, path)
    sync_directory(path.parent)


def write_output(path: pathlib.Path, data: bytes | str) -> None:
  """Writes a file that the user has named; see `output_file`."""
  with output_file(path) as temporary:
    temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_output_if_changed(path: pathlib.Path, text: str) -> None:
  """Writes a file that the user has named unless it holds this text already: its folder may be read-only."""
  if is_stream(path) or not path.is_file() or path.read_bytes() != text.encode():
    write_output(path, text)
  else:
    temporary_files.remove_leftovers(_follow(path)[0])


@contextlib.contextmanager
def output_file(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a temporary path to write a file to that the user has named.

  Unlike the files of an artefact, it may be a link, whose target is written then, or a device, a pipe or a
  descriptor such as /dev/stdout, which gets the content when the body ends. None of these is replaced.

  Raises:
    OSError: the file cannot be written, or links lead in circles.
  """
  target, descriptor = _follow(path)
  if descriptor is None and not _is_special(target):
    with atomic_replace(target) as temporary:
      yield temporary
    return
  with tempfile.TemporaryDirectory() as folder:
    temporary = pathlib.Path(folder) / 'output'
    yield temporary
    if descriptor is None:
      handle = os.open(target, os.O_WRONLY | os.O_APPEND)
    else:
      # What the process has printed so far comes first.
      sys.stdout.flush()
      handle = os.dup(descriptor)
    with open(temporary, 'rb') as source, os.fdopen(handle, 'wb') as sink:
      shutil.copyfileobj(source, sink)


def is_stream(path: pathlib.Path) -> bool:
  """Returns whether a path is, or links to, a device, a pipe or a descriptor: no file that is replaced."""
  target, descriptor = _follow(path)
  return descriptor is not None or _is_special(target)


def _follow(path: pathlib.Path) -> tuple[pathlib.Path, int | None]:
  """Returns the path that links lead to and, if it is a descriptor of this process, that.

  A link to a descriptor is not followed to its file: what is written there would be lost if it were replaced.
  """
  current = os.fspath(path)
  for _ in range(_MOST_LINKS):
    if not os.path.islink(current):
      return pathlib.Path(current), None
    folder = os.path.realpath(os.path.dirname(current) or '.')
    name = os.path.basename(current)
    if _DESCRIPTORS.fullmatch(folder) and name.isdecimal():
      own = folder.split('/')[2] == str(os.getpid())
      return pathlib.Path(folder, name), int(name) if own else None
    current = os.path.join(folder, os.readlink(current))
  raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def _is_special(path: pathlib.Path) -> bool:
  """Returns whether a path is there and neither a regular file nor a folder, or is a descriptor."""
  if _DESCRIPTORS.fullmatch(os.path.dirname(path)):
    return True
  try:
    mode = os.stat(path).st_mode
  except FileNotFoundError:
    return False
  return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def save_array(path: pathlib.Path, array: np.ndarray) -> None:
  """Writes an `.npy` file atomically."""
  with atomic_replace(path) as temporary, open(temporary, 'wb') as file:
    np.save(file, array, allow_pickle=False)


def load_array(path: pathlib.Path) -> np.ndarray:
  """Memory-maps an `.npy` file, read-only; raises ArtefactError if it is missing or damaged."""
  try:
    return np.lib.format.open_memmap(path, mode='r')
  except Exception as error:  # A damaged header raises nearly any exception.
    raise ArtefactError(
      f'{path}: missing or damaged ({error}). Delete {path.parent} and run its stage again'
    ) from None


def safe_join(folder: pathlib.Path, name: str) -> pathlib.Path:
  """Joins a folder and the name of a file in it or in one of its subfolders.

  Raises:
    ArtefactError: the name, which may come from an artefact of somebody else, leads out of the folder.
  """
  parts = pathlib.PurePosixPath(name).parts
  if not parts or name.startswith('/') or '..' in parts or '\0' in name:
    raise ArtefactError(
      f'{folder}: the name {name!r} leads out of it. Rename the photo, or get the artefact from a source you'
      ' trust'
    )
  return folder / name


def parse_json(text: str) -> Any:
  """Parses JSON; raises ValueError also if the text is nested too deeply."""
  try:
    return json.loads(text)
  except RecursionError:
    raise ValueError('JSON nested too deeply') from None


def parse_json_lines(text: str) -> list[Any]:
  """Parses JSON Lines. Other letters that end a line in Unicode, where `splitlines` cuts, may be in texts."""
  return [parse_json(line) for line in text.split('\n') if line]


def fingerprint(path: pathlib.Path) -> str:
  """Returns a digest of a file, or of the names and contents of all files below a directory.

  Returns:
    16 hexadecimal digits; '' if there is neither a file nor a directory.
  """
  if not path.exists():
    return ''
  digest = hashlib.sha256()
  members = sorted(member for member in path.rglob('*') if member.is_file()) if path.is_dir() else [path]
  for member in members:
    digest.update(str(member.relative_to(path)).encode('utf-8', 'surrogateescape') + b'\0')
    with open(member, 'rb') as file:
      digest.update(hashlib.file_digest(file, 'sha256').digest())
  return digest.hexdigest()[:16]


def content_fingerprint(path: str | pathlib.Path) -> str:
  """Returns a digest of the content of one file, 16 hexadecimal digits.

  It identifies inputs that are a single file of a user, such as boxes or ground truth. It differs from
  `fingerprint`, which includes names.

  Raises:
    UserError: it is a pipe or a device, whose content can be read only once: the digest would be that of
      nothing.
  """
  if not stat.S_ISREG(os.stat(path).st_mode):
    raise UserError(f'{path}: a pipe or a device, expected a file. Write its content to a file first')
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()[:16]


def crc32c(path: pathlib.Path) -> int:
  """Returns the CRC-32C of a file."""
  checksum = google_crc32c.Checksum()
  with open(path, 'rb') as file:
    while block := file.read(1 << 20):
      checksum.update(block)
  return int.from_bytes(checksum.digest(), 'big')


def sync_directory(path: pathlib.Path) -> None:
  """Syncs a directory, so that the renames within it survive a power failure."""
  handle = os.open(path, os.O_RDONLY)
  try:
    os.fsync(handle)
  finally:
    os.close(handle)


@contextlib.contextmanager
def user_errors(what: str, path: pathlib.Path) -> Iterator[None]:
  """Converts an OSError of the body (read-only folder, full disk, ...) to a UserError.

  Args:
    what: what fails then, for example 'cannot write'; begins the message.
    path: the file or folder concerned.
  """
  try:
    yield
  except OSError as error:
    raise UserError(
      f'{what} {path}: {error}. What was finished before is kept; make the folder writable (or'
      ' free space, or choose another --output) and run the same command again to go on'
    ) from error


@contextlib.contextmanager
def format_errors(path: str | pathlib.Path, what: str) -> Iterator[None]:
  """Converts the errors of a missing or damaged file to a UserError: `path` is not readable as `what`."""
  try:
    yield
  except (OSError, ValueError, DecodeError) as error:
    raise UserError(f'{path}: not readable as {what} ({error})') from None


def _umask() -> int:
  mask = os.umask(0)
  os.umask(mask)
  return mask
