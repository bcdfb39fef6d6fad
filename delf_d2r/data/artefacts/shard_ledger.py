"""The shards of an artefact that is being made, with an entry for each finished one."""

import contextlib
import dataclasses
import itertools
import json
import pathlib
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO, NotRequired, TypedDict, TypeVar

from delf_d2r.data import files
from delf_d2r.data.artefacts import tfrecord
from delf_d2r.data.artefacts.read_photos import PhotoFiles, ReadPhoto, Use
from delf_d2r.data.photos.photo_state import Trust
from delf_d2r.errors import ArtefactError

Item = TypeVar('Item')

_FOLDER = '.progress'


class Entry(TypedDict):
  """The entry of one finished shard in the ledger."""

  records: int
  bytes: int
  crc32c: int
  counts: dict[str, int]
  errors: list[dict[str, str]]

  # Of artefacts that are made from photos: `ReadPhoto.to_json` of each item.
  photos: NotRequired[list[list[Any]]]


@dataclasses.dataclass(frozen=True)
class ShardRange:
  """A shard that is still to be written.

  Attributes:
    number: its position among the shards of the artefact.
    file: its name.
    items: the positions of its items among those of the artefact.
  """

  number: int
  file: str
  items: range


def items_of(shards: Iterable[ShardRange], items: Iterable[Item]) -> Iterator[Item]:
  """Yields those of all items that belong to some shards, given in order; passes over the others."""
  items = iter(items)
  position = 0
  for shard in shards:
    yield from itertools.islice(items, shard.items.start - position, shard.items.stop - position)
    position = shard.items.stop


class ShardWriter:
  """Collects the records, counts and errors of one shard.

  Attributes:
    records: how many have been added.
    counts: the sums of the counts of all records.
    errors: `name` and `error` of each item that could not be used.
    photos: the photo of each item, of artefacts that are made from photos.
  """

  def __init__(self, file: BinaryIO):
    self._file = file
    self.records = 0
    self.counts: Counter[str] = Counter()
    self.errors: list[dict[str, str]] = []
    self.photos: list[ReadPhoto] = []

  def add(self, record: bytes, **counts: int) -> None:
    """Appends a record and adds to the counts."""
    tfrecord.write_record(self._file, record)
    self.records += 1
    self.counts.update(counts)

  def add_error(self, name: str, reason: str) -> None:
    """Notes an item that could not be used."""
    self.errors.append({'name': name, 'error': reason})


def _read_photos(entry: Entry) -> list[ReadPhoto]:
  """Returns the photos of an entry; [] if there are none or the entry is damaged."""
  try:
    return [ReadPhoto.from_json(values) for values in entry.get('photos', ())]
  except (ValueError, TypeError):
    return []


class ShardLedger:
  """The finished shards of an artefact directory, with one JSON file for each below `.progress/`.

  A shard is written under a temporary name, synced and renamed. Its entry is written before the rename, so
  that every shard under its final name has one.

  The entries of artefacts that are made from photos are kept with the finished artefact. They tell which
  bytes each photo had, and allow to write again the shards of some photos alone.
  """

  def __init__(self, path: pathlib.Path, kind: str, photos: PhotoFiles | None = None):
    """Makes an empty ledger.

    Args:
      path: the artefact directory.
      kind: of the artefact, with which the names of its shards begin.
      photos: those that the artefact is made from, if it is.
    """
    self._path = path
    self._kind = kind
    self._photos = photos
    # Without their photos, which would need much memory.
    self._entries: dict[str, Entry] = {}

  def begin(self) -> None:
    """Makes the folder of the entries and removes what a kill left half written."""
    (self._path / _FOLDER).mkdir(exist_ok=True)
    for leftover in [*self._path.glob('.*.tmp'), *self._path.glob(f'{_FOLDER}/.*.tmp')]:
      leftover.unlink()

  def finish(self) -> None:
    """Removes the entries of a finished artefact, unless they name its photos."""
    if self._photos is None:
      self.remove()

  def remove(self) -> None:
    """Removes the folder of the entries."""
    # The check comes first because on a read-only file system even removing an absent folder is an error.
    if (self._path / _FOLDER).exists():
      shutil.rmtree(self._path / _FOLDER, ignore_errors=True)

  def owns(self, file: pathlib.Path) -> bool:
    """Whether a file is one of the ledger's own."""
    return file.is_relative_to(self._path / _FOLDER)

  def entries(self) -> list[tuple[str, Entry]]:
    """Returns name and entry of every finished shard, in order."""
    return sorted(self._entries.items())

  def missing(self, num_items: int, items_per_shard: int) -> Iterator[ShardRange]:
    """Yields the shards that are still to be written; an artefact without items has one empty shard."""
    num_shards = max(1, -(-num_items // items_per_shard))
    for number in range(num_shards):
      file = f'{self._kind}-{number:05d}-of-{num_shards:05d}.tfrecord'
      first = number * items_per_shard
      items = range(first, min(first + items_per_shard, num_items))
      entry = self._entries.get(file) or self._usable(file, items)
      if entry is not None:
        self._entries[file] = entry
      else:
        yield ShardRange(number, file, items)

  def _usable(self, file: str, items: range) -> Entry | None:
    """Returns the entry of a shard without its photos; None if the shard must be written (again)."""
    entry = self._read(file)
    if entry is not None and self._photos is not None:
      names = self._photos.names[items.start : items.stop]
      read = _read_photos(entry)
      if [photo.name for photo in read] != list(names) or not all(map(self._photos.confirmed, read)):
        return None
    if entry is not None:
      entry.pop('photos', None)
    return entry

  def _read(self, file: str) -> Entry | None:
    shard, entry = self._path / file, self._path / _FOLDER / f'{file}.json'
    if not (shard.is_file() and entry.is_file()):
      return None
    try:
      found: Any = files.parse_json(entry.read_text(encoding='utf-8'))
      return found if found['bytes'] == shard.stat().st_size else None
    except (ValueError, KeyError, TypeError):
      # A kill leaves no damaged entry; after other damage the shard is written again.
      return None

  def shards_with_entries(self) -> list[str]:
    """Returns the names of the shards that have entries on disk."""
    return sorted(entry.stem for entry in (self._path / _FOLDER).glob('[!.]*.json'))

  def photos(self, shards: Sequence[str]) -> Iterator[tuple[str, list[ReadPhoto]]]:
    """Yields name and photos of each shard.

    Args:
      shards: the names of all shards of the artefact.

    Raises:
      ArtefactError: an entry is missing, or damaged, as of artefacts that were made before there were any.
    """
    for file in shards:
      entry = self._read(file)
      if entry is None or 'photos' not in entry:
        raise ArtefactError(f'{self._path / _FOLDER}: has no list of the photos of {file}')
      yield file, _read_photos(entry)

  def forget(self, file: str) -> None:
    """Removes the entry of a shard, so that the shard is written again."""
    self._entries.pop(file, None)
    (self._path / _FOLDER / f'{file}.json').unlink(missing_ok=True)

  def forget_changed(self) -> list[str]:
    """Forgets the shards with photos that have changed since they were read in this run; returns their names.

    A photo that was changed and changed back while it was read has changed, too.
    """
    changed: list[str] = []
    if self._photos is None:
      return changed
    for file, photos in self.photos(sorted(self._entries)):
      read = [photo for photo in photos if photo.use is Use.READ]
      found = [photo.name for photo in read if not self._photos.confirmed(photo, trust=Trust.CHANGED)]
      if found:
        self.forget(file)
        changed += found
    return changed

  def note_times(self, file: str, photos: Sequence[ReadPhoto]) -> None:
    """Notes the times of photos that have the same bytes as before, so that they are not read each time."""
    entry = self._read(file)
    if entry is not None:
      entry['photos'] = [photo.to_json() for photo in photos]
      with contextlib.suppress(OSError):  # Nothing depends on it in a folder that cannot be written.
        self._write_entry(file, entry)

  @contextlib.contextmanager
  def write(self, shard: ShardRange) -> Iterator[ShardWriter]:
    """Writes one shard; it takes its final name when the body ends, and never if the body raises."""
    with files.atomic_replace(self._path / shard.file) as temporary:
      with open(temporary, 'wb') as file:
        writer = ShardWriter(file)
        yield writer
      entry: Entry = {
        'records': writer.records,
        'bytes': temporary.stat().st_size,
        'crc32c': files.crc32c(temporary),
        'counts': dict(writer.counts),
        'errors': writer.errors,
      }
      if self._photos is not None:
        names = self._photos.names[shard.items.start : shard.items.stop]
        named = (
          dataclasses.replace(photo, name=name) for photo, name in zip(writer.photos, names, strict=True)
        )
        entry['photos'] = [photo.to_json() for photo in named]
      self._write_entry(shard.file, entry)
    entry.pop('photos', None)
    self._entries[shard.file] = entry

  def _write_entry(self, file: str, entry: Entry) -> None:
    files.write_atomically(self._path / _FOLDER / f'{file}.json', json.dumps(entry, ensure_ascii=False))

  @property
  def counts(self) -> Counter[str]:
    """The sums of the counts of all finished shards."""
    total: Counter[str] = Counter()
    for entry in self._entries.values():
      total.update(entry['counts'])
    return total

  @property
  def errors(self) -> list[dict[str, str]]:
    """The errors of all finished shards, in order."""
    return [error for _, entry in self.entries() for error in entry['errors']]

  def records(self) -> Iterator[bytes]:
    """Yields the records of all finished shards, in order."""
    for file, _ in self.entries():
      yield from tfrecord.read_file(self._path / file)
