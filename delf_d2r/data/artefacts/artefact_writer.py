"""Making an artefact directory: resumable, shard by shard, the manifest last.

While work goes on, the directory holds `manifest.partial.pbtxt` and the ledger of the finished shards
(shard_ledger.py). Two processes cannot write one directory at the same time.
"""

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import pathlib
import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence

from absl import logging
from google.protobuf import text_format

from delf_d2r.data import files, temporary_files
from delf_d2r.data.artefacts import read_photos, side_files
from delf_d2r.data.artefacts.artefact import MANIFEST, Artefact, Input, Plan, read_manifest
from delf_d2r.data.artefacts.read_photos import PhotoFiles, ReadPhoto, Use
from delf_d2r.data.artefacts.shard_ledger import ShardLedger
from delf_d2r.errors import ArtefactError, UserError
from delf_d2r.protos import manifest_pb2
from delf_d2r.version import VERSION

PARTIAL_MANIFEST = 'manifest.partial.pbtxt'
ERRORS = 'errors.jsonl'
_MOST_SUPERSEDED = 20
_NOT_OURS_TO_WRITE = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextlib.contextmanager
def writing(
  path: pathlib.Path, plan: Plan, *, redo: bool = False, photos: PhotoFiles | None = None
) -> Iterator['ArtefactWriter']:
  """Opens `path` for making the planned artefact.

  The writer's `finished` is true where that very artefact exists already; nothing is left to do then, and
  `ArtefactWriter.reuse` opens it.

  Args:
    path: the artefact directory; made with its parents if missing.
    plan: the artefact that it is to hold.
    redo: remove an artefact made by another config or other inputs, instead of refusing.
    photos: the photos that it is made from, if it is. The writer is not `finished` then where a photo that
      could not be read can be read now.

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
      writer = ArtefactWriter(path, plan, photos)
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

  def __init__(self, path: pathlib.Path, plan: Plan, photos: PhotoFiles | None = None):
    self.path = path
    self.plan = plan
    self._photos = photos
    self._supersedes: tuple[str, ...] = ()
    self.finished = False
    self.resumed = False
    self._started = time.monotonic()
    self.ledger = ShardLedger(path, plan.kind, photos if photos and photos.one_each else None)

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
      is_finished = name == MANIFEST
      self._supersedes = tuple(found.supersedes)
      differences, again = self._review(found, is_finished)
      if differences and not redo:
        raise ArtefactError(
          f'{self.path}: {"made" if is_finished else "begun"} by another run: {"; ".join(differences)}.'
          ' Choose another --output, delete the directory, or give --redo to replace it'
        )
      if again:
        self._supersede(found)
      elif differences:
        self._supersedes = ()
      is_same = not (differences or again)
      if not is_same:
        logging.info('%s: made again, because %s', self.path, '; '.join(differences) or again)
        self._remove_contents()
      self.resumed = self.resumed or (is_same and not is_finished)
      self.finished = is_same and not self.resumed
      if self.finished:
        self._refresh(found)
        self._remove_traces()
        return
    if not self.resumed:
      self._write_manifest(PARTIAL_MANIFEST, self._planned_manifest(self.plan))
    self.ledger.begin()

  def _review(self, found: manifest_pb2.Manifest, is_finished: bool) -> tuple[list[str], str]:
    """Compares the artefact that is there with the plan, and with the photos as they are now.

    Returns:
      The differences that make it another artefact; and the reason why it has to be made again though it is
      the same one, '' if there is none.
    """
    before = {item.role: item.fingerprint for item in found.inputs}
    superseded = {item.role for item in self.plan.inputs if before.get(item.role) in item.supersedes}
    differences = _as_found(self.plan, found, superseded).differences(found)
    photos = self._photos
    is_listed_otherwise = False
    if differences and photos is not None:
      # A photo that could not be read may have changed, and the list of photos with it.
      is_listed_otherwise = not _as_found(self.plan, found, superseded | {photos.planned.role}).differences(
        found
      ) and self._lacks_photos(found, is_finished)
    if differences and not is_listed_otherwise:
      return differences, ''
    if superseded:
      return [], 'its inputs have photos now that could not be read before'
    if is_finished and photos is not None:
      changed, again = self._review_photos(found, photos)
      return (differences or changed if changed else []), again
    if is_listed_otherwise:
      self._write_manifest(PARTIAL_MANIFEST, self._planned_manifest(self.plan))
    return [], ''

  def _lacks_photos(self, found: manifest_pb2.Manifest, is_finished: bool) -> bool:
    """Returns whether the ledger says that photos could not be used."""
    shards = [shard.file for shard in found.shards] if is_finished else self.ledger.shards_with_entries()
    try:
      return any(photo.use is not Use.READ for _, photos in self.ledger.photos(shards) for photo in photos)
    except ArtefactError:
      return False

  def _review_photos(self, found: manifest_pb2.Manifest, photos: PhotoFiles) -> tuple[list[str], str]:
    """Compares a finished artefact with the photos as they are now; see `_review`.

    Where only photos that could not be used can be used now, the shards of these are opened for writing.
    """
    changed: list[str] = []
    shards: list[str] = []
    position = 0
    try:
      for file, read in self.ledger.photos([shard.file for shard in found.shards]):
        if [photo.name for photo in read] != list(photos.names[position : position + len(read)]):
          raise ArtefactError(f'{self.path}: the ledger lists other photos')
        position += len(read)
        now = [photos.confirmed(photo) for photo in read]
        pairs = list(zip(read, now, strict=True))
        changed += [photo.name for photo, same in pairs if same is None and photo.use is Use.READ]
        if any(same is None and photo.use is not Use.READ for photo, same in pairs):
          shards.append(file)
        elif None not in now and now != read:
          self.ledger.note_times(file, [same or photo for photo, same in pairs])
    except ArtefactError:
      return self._review_unlisted_photos(found, photos)
    if changed:
      return [_changed(changed, photos)], ''
    if shards:
      self._reopen(found, shards)
    return [], ''

  def _review_unlisted_photos(
    self, found: manifest_pb2.Manifest, photos: PhotoFiles
  ) -> tuple[list[str], str]:
    """Does the same for an artefact without ledger: one made before there was any, or copied in part."""
    failed = {error['name'] for error in read_errors(Artefact(self.path, found))}
    pairs = list(zip(photos.items, photos.names, strict=True))
    before = next((item for item in found.inputs if item.role == read_photos.ROLE), None)
    if before is not None:
      now = (ReadPhoto.of(name, photos.path(name), is_used=item not in failed) for item, name in pairs)
      if read_photos.contents(now, photos.planned).fingerprint != before.fingerprint:
        return [f'photos of {photos.planned.path} have changed since they were read'], ''
    if any(item in failed and photos.can_decode(name) for item, name in pairs):
      return [], 'photos that could not be read before can be read now'
    return [], ''

  def _reopen(self, found: manifest_pb2.Manifest, shards: Sequence[str]) -> None:
    """Makes a finished artefact one that lacks some shards."""
    logging.info(
      '%s: %d of %d shards are made again, because photos that could not be used before can be used now',
      self.path,
      len(shards),
      len(found.shards),
    )
    self._supersede(found)
    self._write_manifest(PARTIAL_MANIFEST, self._planned_manifest(self.plan))
    (self.path / MANIFEST).unlink()
    for file in shards:
      self.ledger.forget(file)
    for side_file in found.side_files:
      files.safe_join(self.path, side_file.file).unlink(missing_ok=True)
    self.resumed = True

  def _supersede(self, found: manifest_pb2.Manifest) -> None:
    self._supersedes = (found.fingerprint, *found.supersedes)[:_MOST_SUPERSEDED]

  def _planned_manifest(self, plan: Plan) -> manifest_pb2.Manifest:
    manifest = plan.to_manifest(self.path)
    manifest.supersedes.extend(self._supersedes)
    return manifest

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
    roles = {self._photos.planned.role} if self._photos else ()
    fresh = _as_found(self.plan, found, roles).to_manifest(self.path)
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
    temporary_files.remove_all_leftovers(self.path)
    self.ledger.finish()

  def reuse(self, what: str) -> Artefact:
    """Opens the artefact that is finished already, and logs that `what` is skipped.

    Raises:
      ArtefactError: a file of it is missing or has been truncated since.
    """
    for side_file in read_manifest(self.path / MANIFEST).side_files:
      side_files.require_length(self.path, side_file)
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
    manifest = self._planned_manifest(self._plan_as_read())
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

  def _plan_as_read(self) -> Plan:
    """Returns the plan with the contents of the photos as they were read.

    Where photos were changed between the plan and their reading, it has the list of the later ones.
    """
    photos = self._photos
    if photos is None or not photos.one_each:
      return self.plan
    digest = read_photos.ContentDigest()
    is_moved = False
    position = 0
    for _, read in self.ledger.photos([file for file, _ in self.ledger.entries()]):
      for photo in read:
        digest.add(photo)
        is_moved = is_moved or not photo.has_stamp(photos.stamps[position])
        position += 1
    planned = photos.plan_again() if is_moved else photos.planned
    inputs = (planned if item.role == planned.role else item for item in self.plan.inputs)
    return dataclasses.replace(self.plan, inputs=(*inputs, digest.as_input(planned)))

  def recheck_photos(self) -> int:
    """Returns how many photos have changed since this run read them; their shards are missing again."""
    changed = self.ledger.forget_changed()
    if changed and self._photos is not None:
      logging.warning('%s: they are read again', _changed(changed, self._photos))
    return len(changed)

  def _size(self) -> int:
    return sum(
      file.stat().st_size
      for file in self.path.rglob('*')
      if file.is_file() and file != self.path / PARTIAL_MANIFEST and not self.ledger.owns(file)
    )

  def _write_manifest(self, name: str, manifest: manifest_pb2.Manifest) -> None:
    # as_utf8 keeps the names of image folders readable that are not ASCII.
    files.write_atomically(self.path / name, text_format.MessageToString(manifest, as_utf8=True))


def _as_found(plan: Plan, found: manifest_pb2.Manifest, roles: Collection[str]) -> Plan:
  """Returns a plan with the contents of photos, and the fingerprints of some inputs, that a manifest has."""
  before = {item.role: item.fingerprint for item in found.inputs}
  inputs = [
    dataclasses.replace(item, fingerprint=before[item.role])
    if item.role in roles and item.role in before
    else item
    for item in plan.inputs
  ]
  if read_photos.ROLE in before and inputs:
    inputs.append(Input(read_photos.ROLE, before[read_photos.ROLE], inputs[0].path))
  return dataclasses.replace(plan, inputs=tuple(inputs))


def _changed(names: Sequence[str], photos: PhotoFiles) -> str:
  return (
    f'{len(names)} photos of {photos.planned.path} have changed since they were read, for example {names[0]}'
  )


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
