"""The files of an artefact beside its shards, with checksums: arrays, lists, reports, weights.

They are in the artefact's own folder. Folders below it hold files with checksums of their own (the inverted
index, features of added images) or files that no later stage reads (checkpoints of a training).
"""

import pathlib
from collections.abc import Collection, Iterator

from delf_d2r.data import files
from delf_d2r.errors import ArtefactError
from delf_d2r.protos import manifest_pb2


def listed(folder: pathlib.Path, *, others: Collection[str]) -> Iterator[manifest_pb2.SideFile]:
  """Yields name, size and CRC-32C of each side file, by name.

  Args:
    folder: the artefact.
    others: the names of files that are no side files: manifests and shards.
  """
  for path in sorted(folder.iterdir()):
    if path.is_file() and path.name not in others:
      yield manifest_pb2.SideFile(file=path.name, bytes=path.stat().st_size, crc32c=files.crc32c(path))


def require_length(folder: pathlib.Path, file: manifest_pb2.SideFile) -> None:
  """Raises ArtefactError if a side file is missing or shorter than it was; its content is not read."""
  path = files.safe_join(folder, file.file)
  size = path.stat().st_size if path.is_file() else -1
  if size < file.bytes:
    found = 'it is missing' if size < 0 else f'it has {size}'
    raise ArtefactError(
      f'{path}: the manifest says {file.bytes} bytes, {found}. Delete {folder} and run its stage again'
    )


def check(folder: pathlib.Path, file: manifest_pb2.SideFile) -> None:
  """Reads one side file and compares it with the manifest.

  Raises:
    ArtefactError: it is missing, cannot be read, or has changed.
  """
  path = files.safe_join(folder, file.file)
  remedy = f'Delete {folder} and run its stage again'
  try:
    size, checksum = path.stat().st_size, files.crc32c(path)
  except OSError as error:
    raise ArtefactError(f'{path}: {error.strerror}. {remedy}') from None
  if size != file.bytes:
    raise ArtefactError(f'{path}: expected {file.bytes} bytes, found {size}. {remedy}')
  if checksum != file.crc32c:
    raise ArtefactError(f'{path}: expected checksum {file.crc32c:08x}, found {checksum:08x}. {remedy}')
