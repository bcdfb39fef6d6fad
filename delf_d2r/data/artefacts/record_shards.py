"""Random access to the records of TFRecord shards, by number."""

import bisect
import dataclasses
import functools
import glob
import hashlib
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from delf_d2r.data.artefacts import tfrecord
from delf_d2r.data.artefacts.artefact import Input
from delf_d2r.errors import ArtefactError, UserError


@dataclasses.dataclass(frozen=True)
class RecordShards:
  """The records of some files, numbered consecutively.

  Attributes:
    source: the pattern of the files' names, for messages.
    paths: the files, sorted.
    offsets: of each file, the byte offset of every record.
  """

  source: str
  paths: tuple[pathlib.Path, ...]
  offsets: tuple[np.ndarray, ...]

  @classmethod
  def find(cls, patterns: Sequence[str | pathlib.Path]) -> 'RecordShards':
    """Finds the shards of one or more patterns, such as `gld/train*`.

    Raises:
      UserError: there are none, one is damaged, or they hold no record.
    """
    source = ', '.join(map(str, patterns))
    found = {pathlib.Path(path) for pattern in patterns for path in glob.glob(str(pattern))}
    paths = tuple(sorted(path for path in found if path.is_file()))
    if not paths:
      raise UserError(f'{source}: no TFRecord shards of that pattern (quote patterns with *)')
    offsets = []
    for path in paths:
      try:
        offsets.append(np.array(tfrecord.record_offsets(path), np.int64))
      except (ArtefactError, OSError) as error:
        raise corrupt(path, 'the frame of a record', error) from error
    if not sum(map(len, offsets)):
      raise UserError(f'{source}: no records in {len(paths)} shards')
    return cls(source, paths, tuple(offsets))

  @functools.cached_property
  def _firsts(self) -> list[int]:
    return np.cumsum([0, *map(len, self.offsets)]).tolist()

  def __len__(self) -> int:
    return self._firsts[-1]

  def place(self, number: int) -> tuple[pathlib.Path, int]:
    """Returns the file of record `number`, and the number of the record in that file."""
    shard, record = self._locate(number)
    return self.paths[shard], record

  def read(self, number: int) -> bytes:
    """Returns record `number`; raises UserError if it is damaged."""
    shard, record = self._locate(number)
    try:
      return tfrecord.read_at(self.paths[shard], int(self.offsets[shard][record]))
    except (ArtefactError, OSError) as error:
      raise corrupt(self.paths[shard], f'record {record}', error) from error

  def _locate(self, number: int) -> tuple[int, int]:
    shard = bisect.bisect_right(self._firsts, number) - 1
    return shard, number - self._firsts[shard]

  def as_input(self, role: str, path: pathlib.Path) -> Input:
    """Returns the shards as an input of an artefact, identified by names, sizes and numbers of records."""
    parts = [f'{p.name} {os.path.getsize(p)} {len(o)}' for p, o in zip(self.paths, self.offsets, strict=True)]
    return Input(role, hashlib.sha256('\n'.join(parts).encode()).hexdigest()[:16], path)


def corrupt(path: pathlib.Path, where: str, error: Exception) -> UserError:
  """Returns the error for a damaged shard."""
  what = str(error).removeprefix(f'{path}: ').partition('. ')[0]
  return UserError(f'{path}: corrupt TFRecord shard at {where}: {what}. Copy or make this shard again')
