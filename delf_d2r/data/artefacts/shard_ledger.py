"""The shards of an artefact that is being made, with an entry for each finished one."""

import contextlib
import dataclasses
import itertools
import json
import pathlib
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, TypedDict, TypeVar

from delf_d2r.data import files
from delf_d2r.data.artefacts import tfrecord

Item = TypeVar('Item')

_FOLDER = '.progress'


class Entry(TypedDict):
  """The entry of one finished shard in the ledger."""

  records: int
  bytes: int
  crc32c: int
  counts: dict[str, int]
  errors: list[dict[str, str]]


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
  """

  def __init__(self, file: BinaryIO):
    self._file = file
    self.records = 0
    self.counts: Counter[str] = Counter()
    self.errors: list[dict[str, str]] = []

  def add(self, record: bytes, **counts: int) -> None:
    """Appends a record and adds to the counts."""
    tfrecord.write_record(self._file, record)
    self.records += 1
    self.counts.update(counts)

  def add_error(self, name: str, reason: str) -> None:
    """Notes an item that could not be used."""
    self.errors.append({'name': name, 'error': reason})


class ShardLedger:
  """The finished shards of an artefact directory, with one JSON file for each below `.progress/`.

  A shard is written under a temporary name, synced and renamed. Its entry is written before the rename, so
  that every shard under its final name has one.
  """

  def __init__(self, path: pathlib.Path, kind: str):
    """Makes an empty ledger.

    Args:
      path: the artefact directory.
      kind: of the artefact, with which the names of its shards begin.
    """
    self._path = path
    self._kind = kind
    self._entries: dict[str, Entry] = {}

  def begin(self) -> None:
    """Makes the folder of the entries and removes what a kill left half written."""
    (self._path / _FOLDER).mkdir(exist_ok=True)
    for leftover in [*self._path.glob('.*.tmp'), *self._path.glob(f'{_FOLDER}/.*.tmp')]:
      leftover.unlink()

  def remove(self) -> None:
    """Removes the folder of the entries, which a finished or discarded artefact does not need."""
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
      entry = self._read(file)
      if entry is not None:
        self._entries[file] = entry
      else:
        yield ShardRange(number, file, range(first, min(first + items_per_shard, num_items)))

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
      files.write_atomically(
        self._path / _FOLDER / f'{shard.file}.json', json.dumps(entry, ensure_ascii=False)
      )
    self._entries[shard.file] = entry

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
