"""Making an artefact directory: resumable, shard by shard, the manifest last.

While work goes on, the directory holds `manifest.partial.pbtxt` and the ledger of the finished shards
(shard_ledger.py). Two processes cannot write one directory at the same time.
"""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import shutil
import time
from collections.abc import Iterator, Mapping

from absl import logging
from google.protobuf import text_format

from delf_d2r.data import files
from delf_d2r.data.artefacts import side_files
from delf_d2r.data.artefacts.artefact import MANIFEST, Artefact, Plan, read_manifest
from delf_d2r.data.artefacts.shard_ledger import ShardLedger
from delf_d2r.errors import ArtefactError, UserError
from delf_d2r.protos import manifest_pb2
from delf_d2r.version import VERSION

PARTIAL_MANIFEST = 'manifest.partial.pbtxt'
ERRORS = 'errors.jsonl'
_NOT_OURS_TO_WRITE = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextlib.contextmanager
def writing(path: pathlib.Path, plan: Plan, *, redo: bool = False) -> Iterator['ArtefactWriter']:
  """Opens `path` for making the planned artefact.

  The writer's `finished` is true where that very artefact exists already; nothing is left to do then, and
  `ArtefactWriter.reuse` opens it.

  Args:
    path: the artefact directory; made with its parents if missing.
    plan: the artefact that it is to hold.
    redo: remove an artefact made by another config or other inputs, instead of refusing.

  Yields:
    The writer of the directory, which is locked meanwhile.

  Raises:
    ArtefactError: another config or other inputs made or began what is there (the message names what
      differs), or the directory holds files that are no artefact.
    UserError: the place cannot be written, or another process is writing it.
  """
  path = pathlib.Path(path)
  with files.user_errors('cannot write', path):
    path.mkdir(parents=True, exist_ok=True)
    with locked(path):
      writer = ArtefactWriter(path, plan)
      writer._begin(redo)
      yield writer


class ArtefactWriter:
  """An artefact directory that is being made; see `writing`.

  Attributes:
    path: the directory.
    plan: the artefact that it is to hold.
    finished: whether it holds that artefact already.
    resumed: whether an earlier run began this artefact.
    ledger: the shards.
  """

  def __init__(self, path: pathlib.Path, plan: Plan):
    self.path = path
    self.plan = plan
    self.finished = False
    self.resumed = False
    self._started = time.monotonic()
    self.ledger = ShardLedger(path, plan.kind)

  def _begin(self, redo: bool) -> None:
    name = next((name for name in (MANIFEST, PARTIAL_MANIFEST) if (self.path / name).exists()), None)
    if name is None:
      self._require_empty()
    else:
      found = read_manifest(self.path / name, any_version=redo)
      if found.kind != self.plan.kind:
        raise ArtefactError(
          f'{self.path}: holds {found.kind}, not {self.plan.kind}; is it the --output of another stage?'
          ' Nothing was touched, and --redo does not replace it. Choose another --output, or delete the'
          ' directory'
        )
      differences = self.plan.differences(found)
      if differences and not redo:
        raise ArtefactError(
          f'{self.path}: {"made" if name == MANIFEST else "begun"} by another run: {"; ".join(differences)}.'
          ' Choose another --output, delete the directory, or give --redo to replace it'
        )
      if differences:
        logging.info('%s: made again, because %s', self.path, '; '.join(differences))
        self._remove_contents()
      self.finished = name == MANIFEST and not differences
      self.resumed = name == PARTIAL_MANIFEST and not differences
      if self.finished:
        self._refresh(found)
        self._remove_traces()
        return
    if not self.resumed:
      self._write_manifest(PARTIAL_MANIFEST, self.plan.to_manifest(self.path))
    self.ledger.begin()

  def _require_empty(self) -> None:
    # A kill during the writing of the first file leaves only the temporary name of that file.
    first = f'.{PARTIAL_MANIFEST}.*.tmp'
    strangers = sorted(file.name for file in self.path.iterdir() if not file.match(first))
    if strangers:
      raise ArtefactError(
        f'{self.path}: not empty and no artefact (it holds {strangers[0]}); nothing was touched.'
        ' Choose another --output'
      )

  def _refresh(self, found: manifest_pb2.Manifest) -> None:
    """Updates the fields of the manifest that are not part of the fingerprint: alpha, tau, paths.

    Where nothing can be written the artefact is used as it is.
    """
    fresh = self.plan.to_manifest(self.path)
    if found.config != fresh.config or found.inputs != fresh.inputs:
      found.config.CopyFrom(fresh.config)
      del found.inputs[:]
      found.inputs.extend(fresh.inputs)
      try:
        self._write_manifest(MANIFEST, found)
      except OSError as error:
        if error.errno not in _NOT_OURS_TO_WRITE:
          raise
        logging.info(
          '%s: left as it is, though made with other paths or options (%s)', self.path, error.strerror
        )

  def _remove_contents(self) -> None:
    """Empties the directory except for the partial manifest, which stays that of the old contents.

    A kill on the way thus leaves unfinished work of the old config, and never a directory that looks like a
    finished artefact or like work of the new config.
    """
    self.ledger.remove()
    if (self.path / MANIFEST).exists():
      os.replace(self.path / MANIFEST, self.path / PARTIAL_MANIFEST)
    for child in self.path.iterdir():
      if child.is_dir() and not child.is_symlink():
        shutil.rmtree(child)
      elif child.name != PARTIAL_MANIFEST:
        child.unlink()

  def _remove_traces(self) -> None:
    """Removes what only unfinished work needs; a kill right after the manifest can leave it behind."""
    # The check comes first because on a read-only file system even removing an absent file is an error.
    if (self.path / PARTIAL_MANIFEST).exists():
      (self.path / PARTIAL_MANIFEST).unlink()
    self.ledger.remove()

  def reuse(self, what: str) -> Artefact:
    """Opens the artefact that is finished already, and logs that `what` is skipped."""
    logging.info('%s: %s is up to date, skipped', what, self.path)
    return Artefact.open(self.path, self.plan.kind)

  def discard(self) -> None:
    """Removes everything that was written, because it turned out to be of no use."""
    self._remove_contents()
    (self.path / PARTIAL_MANIFEST).unlink()

  def finish(self, counts: Mapping[str, int] | None = None, *, upstream: Artefact | None = None) -> Artefact:
    """Finishes the artefact: adds up its shards and other files, writes `errors.jsonl` and the manifest.

    Args:
      counts: counts beside those of the shards, whose place they take where the names are equal.
      upstream: the artefact that this one was made from; its errors are listed here too.

    Returns:
      The finished artefact.
    """
    manifest = self.plan.to_manifest(self.path)
    entries = self.ledger.entries()
    for file, entry in entries:
      manifest.shards.add(file=file, records=entry['records'], bytes=entry['bytes'], crc32c=entry['crc32c'])
    errors = [*read_errors(upstream), *self.ledger.errors]
    if errors:
      lines = [json.dumps(error, ensure_ascii=False) + '\n' for error in errors]
      files.write_atomically(self.path / ERRORS, ''.join(lines))
    shards = (file for file, _ in entries)
    manifest.side_files.extend(side_files.listed(self.path, others={MANIFEST, PARTIAL_MANIFEST, *shards}))
    totals = {**self.ledger.counts, **(counts or {}), 'failed': len(errors)}
    for name in sorted(totals):
      # The sum of a single boolean is still a boolean.
      manifest.counts.add(name=name, value=int(totals[name]))
    manifest.bytes = self._size()
    manifest.library_version = VERSION
    manifest.seconds = round(time.monotonic() - self._started, 3)
    self._write_manifest(MANIFEST, manifest)
    self._remove_traces()
    self.finished = True
    return Artefact(self.path, manifest)

  def _size(self) -> int:
    return sum(
      file.stat().st_size
      for file in self.path.rglob('*')
      if file.is_file() and file != self.path / PARTIAL_MANIFEST and not self.ledger.owns(file)
    )

  def _write_manifest(self, name: str, manifest: manifest_pb2.Manifest) -> None:
    # as_utf8 keeps the names of image folders readable that are not ASCII.
    files.write_atomically(self.path / name, text_format.MessageToString(manifest, as_utf8=True))


def read_errors(artefact: Artefact | None) -> list[dict[str, str]]:
  """Returns `name` and `error` of everything that could not be used on the way to an artefact."""
  if artefact is None or not (artefact.path / ERRORS).is_file():
    return []
  return files.parse_json_lines((artefact.path / ERRORS).read_bytes().decode())


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
  """Locks an artefact directory against every other writer; raises UserError if there is one."""
  handle = os.open(path, os.O_RDONLY)
  try:
    try:
      fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise UserError(
        f'{path}: another process is writing this artefact. Wait for it, or choose another --output'
      ) from None
    yield
  finally:
    os.close(handle)
