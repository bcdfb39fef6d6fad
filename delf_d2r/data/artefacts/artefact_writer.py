"""Making an artefact directory: resumable, shard by shard, the manifest last.

While work goes on the directory holds `manifest.partial.pbtxt` and accounts of the finished shards
(shard_accounts.py). Two processes cannot write one directory.
"""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping

from absl import logging
from google.protobuf import text_format

from delf_d2r.data import files
from delf_d2r.data.artefacts import side_files
from delf_d2r.data.artefacts.artefact import MANIFEST, Artefact, Plan, read_manifest
from delf_d2r.data.artefacts.shard_ledger import ShardAccounts, ShardRange, ShardWriter
from delf_d2r.errors import ArtefactError, UserError
from delf_d2r.protos import manifest_pb2
from delf_d2r.version import VERSION

PARTIAL_MANIFEST = 'manifest.partial.pbtxt'
ERRORS = 'errors.jsonl'
_NOT_OURS_TO_WRITE = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextlib.contextmanager
def writing(path: pathlib.Path, plan: Plan, *, redo: bool = False) -> Iterator['ArtefactWriter']:
  """Opens `path` for making the planned artefact.

  The writer's `finished` is true where that very artefact stands already; there is nothing to do then.

  Args:
    path: the artefact directory; made with its parents if missing.
    plan: what it shall hold.
    redo: remove an artefact made by another config or other inputs, instead of refusing.

  Raises:
    ArtefactError: another config or other inputs made or began what is there (the message names what
      differs), or the directory holds files that are no artefact.
    UserError: the place cannot be written, or another process is writing it.
  """
  path = pathlib.Path(path)
  with files.user_errors('cannot write', path):
    path.mkdir(parents=True, exist_ok=True)
    with _locked(path):
      writer = ArtefactWriter(path, plan)
      writer._begin(redo)
      yield writer


class ArtefactWriter:
  """The directory while it is being made; see `writing`."""

  def __init__(self, path: pathlib.Path, plan: Plan):
    self.path = path
    self.plan = plan
    self.finished = False
    self.resumed = False
    self._started = time.monotonic()
    self._shards = ShardAccounts(path, plan.kind)

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
        logging.info('%s: made anew, because %s', self.path, '; '.join(differences))
        self._remove_contents()
      self.finished = name == MANIFEST and not differences
      self.resumed = name == PARTIAL_MANIFEST and not differences
      if self.finished:
        self._refresh(found)
        self._remove_traces()
        return
    if not self.resumed:
      self._write_manifest(PARTIAL_MANIFEST, self.plan.to_manifest(self.path))
    self._shards.begin()

  def _require_empty(self) -> None:
    # A kill while the very first file was written leaves nothing but that one's temporary name.
    first = f'.{PARTIAL_MANIFEST}.*.tmp'
    strangers = sorted(file.name for file in self.path.iterdir() if not file.match(first))
    if strangers:
      raise ArtefactError(
        f'{self.path}: not empty and no artefact (it holds {strangers[0]}); nothing was touched.'
        ' Choose another --output'
      )

  def _refresh(self, found: manifest_pb2.Manifest) -> None:
    """Brings fields up to date that are no part of the fingerprint: alpha, tau, paths.

    Where nothing can be written the artefact serves as it is.
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
    """Empties the directory but for the partial manifest, which until the end is that of the old contents.

    A kill on the way thus leaves what looks like unfinished work of the old config, never like a finished
    artefact or like work of the new one.
    """
    self._shards.remove()
    if (self.path / MANIFEST).exists():
      os.replace(self.path / MANIFEST, self.path / PARTIAL_MANIFEST)
    for child in self.path.iterdir():
      if child.is_dir() and not child.is_symlink():
        shutil.rmtree(child)
      elif child.name != PARTIAL_MANIFEST:
        child.unlink()

  def _remove_traces(self) -> None:
    """Removes what only unfinished work needs; a kill right after the manifest can leave it behind."""
    # Asked first: on a read-only file system even removing what is not there is an error.
    if (self.path / PARTIAL_MANIFEST).exists():
      (self.path / PARTIAL_MANIFEST).unlink()
    self._shards.remove()

  def missing_shards(self, num_items: int, items_per_shard: int) -> Iterator[ShardRange]:
    """Yields the shards that are still to be written. At least one shard exists, be it empty."""
    return self._shards.missing(num_items, items_per_shard)

  def shard(self, shard: ShardRange) -> contextlib.AbstractContextManager[ShardWriter]:
    """Writes one shard; it takes its final name when the body ends, and never if it raises."""
    return self._shards.shard(shard)

  @property
  def counts(self) -> Counter[str]:
    """The counts of all shards that stand."""
    return self._shards.counts

  @property
  def errors(self) -> list[dict[str, str]]:
    """The errors of all shards that stand, in order."""
    return self._shards.errors

  def records(self) -> Iterator[bytes]:
    """Yields the records of all shards that stand, in order."""
    return self._shards.records()

  def discard(self) -> None:
    """Removes all that was written: the work turned out to be of no use."""
    self._remove_contents()
    (self.path / PARTIAL_MANIFEST).unlink()

  def finish(self, counts: Mapping[str, int] | None = None, *, upstream: Artefact | None = None) -> Artefact:
    """Adds up shards and other files, writes `errors.jsonl` and the manifest: the artefact is finished.

    Args:
      counts: counts beside those of the shards.
      upstream: the artefact that this one was made from; what failed there is missing here too.
    """
    manifest = self.plan.to_manifest(self.path)
    for file, account in self._shards.items():
      manifest.shards.add(file=file, **{key: account[key] for key in ('records', 'bytes', 'crc32c')})
    errors = [*read_errors(upstream), *self.errors]
    if errors:
      lines = [json.dumps(error, ensure_ascii=False) + '\n' for error in errors]
      files.write_atomically(self.path / ERRORS, ''.join(lines))
    shards = (file for file, _ in self._shards.items())
    manifest.side_files.extend(side_files.listed(self.path, others={MANIFEST, PARTIAL_MANIFEST, *shards}))
    totals = {**self.counts, **(counts or {}), 'failed': len(errors)}
    for name in sorted(totals):
      # A sum of a single boolean is still one.
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
      if file.is_file() and file != self.path / PARTIAL_MANIFEST and not self._shards.holds(file)
    )

  def _write_manifest(self, name: str, manifest: manifest_pb2.Manifest) -> None:
    # as_utf8 keeps image folders with non-ASCII names readable.
    files.write_atomically(self.path / name, text_format.MessageToString(manifest, as_utf8=True))


def read_errors(artefact: Artefact | None) -> list[dict[str, str]]:
  """What could not be used on the way to an artefact: `name` and `error` of each."""
  if artefact is None or not (artefact.path / ERRORS).is_file():
    return []
  lines = (artefact.path / ERRORS).read_text(encoding='utf-8').splitlines()
  return [files.parse_json(line) for line in lines]


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
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
