"""Checks of the files of an artefact against its manifest, and of unfinished artefacts."""

import fcntl
import os
import pathlib
from collections.abc import Iterator

import numpy as np

from delf_d2r.data import files
from delf_d2r.data.artefacts import side_files, tfrecord
from delf_d2r.data.artefacts.artefact import MANIFEST, Artefact, Plan, read_manifest
from delf_d2r.data.artefacts.artefact_writer import ERRORS, PARTIAL_MANIFEST
from delf_d2r.data.artefacts.shard_ledger import ShardLedger
from delf_d2r.doctor.findings import Finding, FindingCounter, error, note, stopped, warning
from delf_d2r.errors import ArtefactError

_BLOCK = 1 << 20


def forbidden(path: pathlib.Path) -> Iterator[Finding]:
  """Yields a finding on files that this user may not read, which readers would report as damaged."""
  files_there = FindingCounter()
  for folder, _, names in os.walk(path, onerror=lambda problem: files_there.add(problem.filename)):
    for name in names:
      try:
        open(os.path.join(folder, name), 'rb').close()
      except PermissionError as problem:
        files_there.add(problem.filename)
      except OSError:
        pass  # Other checks read the file and report what is wrong.
  if files_there:
    yield error(
      path,
      f'files without read permission: {files_there}',
      'Correct the permissions, or run as another user; nothing else is known to be wrong',
    )


def unfinished(path: pathlib.Path) -> Iterator[Finding]:
  """Yields a finding on a directory that has no manifest yet."""
  kind = read_manifest(path / PARTIAL_MANIFEST).kind
  shards = len(list(path.glob(f'{kind}-*.tfrecord')))
  done = f' ({shards} shards are finished)' if shards else ''
  if _is_locked(path):
    yield note(path, f'unfinished {kind}: another process is writing it now{done}', 'Wait for it')
    return
  yield warning(
    path,
    f'unfinished {kind}: the work was stopped{done}',
    'Run the same command again: it continues where it was stopped',
  )


def finished(artefact: Artefact) -> Iterator[Finding]:
  """Yields findings on an artefact that `Artefact.open` accepts, so that shards exist with the right size."""
  path, manifest = artefact.path, artefact.manifest
  again = f'Delete {path} and run its stage again'
  if manifest.fingerprint != planned_fingerprint(artefact):
    if manifest.kind == 'index':
      yield note(path, 'images were added or removed since it was built', 'Nothing, if that was intended')
    else:
      yield error(path / MANIFEST, 'edited: its fingerprint is not that of its config and inputs', again)
  for shard in manifest.shards:
    yield from _shard(path / shard.file, shard, again)
  damaged = []
  for side_file in manifest.side_files:
    try:
      side_files.check(path, side_file)
    except ArtefactError as problem:
      damaged.append(side_file.file)
      yield stopped(path / side_file.file, problem, remedy=again)
  named = {shard.file for shard in manifest.shards}
  strangers = sorted(file.name for file in path.glob('*.tfrecord') if file.name not in named)
  if strangers:
    yield warning(path, f'{len(strangers)} shards that the manifest does not name: {strangers[0]}', again)
  leftovers = sorted(file.name for file in path.glob('.*.tmp'))
  if leftovers:
    yield note(
      path, f'{len(leftovers)} temporary files of a run that was stopped', f'Delete {leftovers[0]}, ...'
    )
  found = _size(artefact)
  if found < manifest.bytes and not damaged:
    yield error(
      path,
      f'the manifest says {manifest.bytes} bytes, its files have {found}: some are missing or truncated',
      again,
    )
  if ERRORS not in damaged:
    yield from _failures(artefact)
  yield from _truncated(artefact)
  for file in sorted(path.glob('*.npy')):
    if file.name not in damaged:
      yield from _array(file, again)


def planned_fingerprint(artefact: Artefact) -> str:
  """Returns the fingerprint of an artefact's config and inputs.

  It differs from that in the manifest if the artefact was changed since.
  """
  return Plan(artefact.manifest.kind, artefact.config, artefact.inputs).fingerprint


def _shard(path: pathlib.Path, shard, again: str) -> Iterator[Finding]:
  found = files.crc32c(path)
  if found != shard.crc32c:
    yield error(path, f'corrupt: expected checksum {shard.crc32c:08x}, found {found:08x}', again)
    return
  records = len(tfrecord.record_offsets(path))
  if records != shard.records:
    yield error(path, f'expected {shard.records} records, found {records}', again)


def _truncated(artefact: Artefact) -> Iterator[Finding]:
  truncated = artefact.counts.get('truncated', 0)
  if truncated:
    yield warning(
      artefact.path,
      f'{truncated} photos lack the end of their file; what is missing was taken as grey',
      'Replace them by whole copies and run the same command again with --redo',
    )


def _failures(artefact: Artefact) -> Iterator[Finding]:
  failed = artefact.counts.get('failed', 0)
  place = artefact.path / ERRORS
  if not failed:
    return
  try:
    names = [str(failure['name']) for failure in files.parse_json_lines(place.read_bytes().decode())]
  except (OSError, ValueError, KeyError, TypeError) as problem:
    yield error(place, f'missing or damaged ({problem})', f'Delete {artefact.path} and run its stage again')
    return
  if len(names) != failed:
    yield error(
      place,
      f'expected {failed} lines, found {len(names)}',
      f'Delete {artefact.path} and run its stage again',
    )
  yield warning(
    artefact.path,
    f'{failed} photos could not be read, for example {", ".join(names[:3])}',
    f'{place} says why; repair or replace them, or correct their permissions, and run the same command again:'
    ' every run tries them again',
  )


def _array(path: pathlib.Path, again: str) -> Iterator[Finding]:
  try:
    array = files.load_array(path)
  except ArtefactError as problem:
    yield stopped(path, problem, remedy=again)
    return
  if array.dtype.kind == 'f' and not all(np.isfinite(block).all() for block in blocks(array)):
    yield error(path, 'has numbers that are not finite', again)


def blocks(array: np.ndarray) -> Iterator[np.ndarray]:
  """Yields the rows of an array in blocks, so that a memory-mapped one need not fit into memory."""
  rows = max(1, _BLOCK // max(1, int(np.prod(array.shape[1:]))))
  for start in range(0, len(array) if array.ndim else 0, rows):
    yield array[start : start + rows]


def _size(artefact: Artefact) -> int:
  ledger = ShardLedger(artefact.path, artefact.manifest.kind)
  return sum(
    file.stat().st_size
    for file in artefact.path.rglob('*')
    if file.is_file() and file.name != MANIFEST and not ledger.owns(file)
  )


def _is_locked(path: pathlib.Path) -> bool:
  handle = os.open(path, os.O_RDONLY)
  try:
    fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
  except BlockingIOError:
    return True
  finally:
    os.close(handle)
  return False
