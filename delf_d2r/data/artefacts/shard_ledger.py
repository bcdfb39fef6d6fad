"""The shards of an artefact while it is made; each has an account that says what it holds."""

import contextlib
import dataclasses
import itertools
import json
import pathlib
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TypeVar

from delf_d2r.data import files
from delf_d2r.data.artefacts import tfrecord

Item = TypeVar('Item')
_PROGRESS = '.progress'


@dataclasses.dataclass(frozen=True)
class ShardRange:
  """A shard that is still to be written: its number and the items it holds."""

  number: int
  file: str
  items: range


def held_by(shards: Iterable[ShardRange], items: Iterable[Item]) -> Iterator[Item]:
  """Yields those of all items that some shards, in order, hold; the others are passed over."""
  items = iter(items)
  position = 0
  for shard in shards:
    yield from itertools.islice(items, shard.items.start - position, shard.items.stop - position)
    position = shard.items.stop


class ShardWriter:
  """Collects the records, counts and errors of one shard."""

  def __init__(self, file):
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


class ShardAccounts:
  """The accounts of a directory, one file each under `.progress/`.

  A shard is written under a temporary name, synced and renamed; its account comes first, so that a shard
  under its final name is always accounted for.
  """

  def __init__(self, path: pathlib.Path, kind: str):
    self._path = path
    self._kind = kind
    self._accounts: dict[str, dict] = {}

  def begin(self) -> None:
    """Makes room for accounts; removes what a kill left half written."""
    (self._path / _PROGRESS).mkdir(exist_ok=True)
    for leftover in [*self._path.glob('.*.tmp'), *self._path.glob(f'{_PROGRESS}/.*.tmp')]:
      leftover.unlink()

  def remove(self) -> None:
    """Removes all accounts: the shards are finished, or of no use."""
    # Asked first: on a read-only file system even removing what is not there is an error.
    if (self._path / _PROGRESS).exists():
      shutil.rmtree(self._path / _PROGRESS, ignore_errors=True)

  def holds(self, file: pathlib.Path) -> bool:
    """Whether a file is one of the accounts."""
    return file.is_relative_to(self._path / _PROGRESS)

  def items(self) -> list[tuple[str, dict]]:
    """Each shard that stands, by name, with its account."""
    return sorted(self._accounts.items())

  def missing(self, num_items: int, items_per_shard: int) -> Iterator[ShardRange]:
    """Yields the shards that are still to be written. At least one shard exists, be it empty."""
    num_shards = max(1, -(-num_items // items_per_shard))
    for number in range(num_shards):
      file = f'{self._kind}-{number:05d}-of-{num_shards:05d}.tfrecord'
      first = number * items_per_shard
      account = self._read_account(file)
      if account is not None:
        self._accounts[file] = account
      else:
        yield ShardRange(number, file, range(first, min(first + items_per_shard, num_items)))

  def _read_account(self, file: str) -> dict | None:
    shard, account = self._path / file, self._path / _PROGRESS / f'{file}.json'
    if not (shard.is_file() and account.is_file()):
      return None
    try:
      found = files.parse_json(account.read_text(encoding='utf-8'))
      return found if found['bytes'] == shard.stat().st_size else None
    except (ValueError, KeyError, TypeError):
      # Damaged by something else than a kill: the shard is written again.
      return None

  @contextlib.contextmanager
  def shard(self, shard: ShardRange) -> Iterator[ShardWriter]:
    """Writes one shard; it takes its final name when the body ends, and never if it raises."""
    with files.atomic_replace(self._path / shard.file) as temporary:
      with open(temporary, 'wb') as file:
        writer = ShardWriter(file)
        yield writer
      account = {
        'records': writer.records,
        'bytes': temporary.stat().st_size,
        'crc32c': files.crc32c(temporary),
        'counts': dict(writer.counts),
        'errors': writer.errors,
      }
      files.write_atomically(
        self._path / _PROGRESS / f'{shard.file}.json', json.dumps(account, ensure_ascii=False)
      )
    self._accounts[shard.file] = account

  @property
  def counts(self) -> Counter[str]:
    """The counts of all shards that stand."""
    total: Counter[str] = Counter()
    for account in self._accounts.values():
      total.update(account['counts'])
    return total

  @property
  def errors(self) -> list[dict[str, str]]:
    """The errors of all shards that stand, in order."""
    return [error for _, account in self.items() for error in account['errors']]

  def records(self) -> Iterator[bytes]:
    """Yields the records of all shards that stand, in order."""
    for file, _ in self.items():
      yield from tfrecord.read_file(self._path / file)
