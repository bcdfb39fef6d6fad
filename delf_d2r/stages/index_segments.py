"""What the workers of build_index do: each makes segments of an index out of aggregated descriptors.

An index is cut at every 65,536th entry, wherever that lies in its artefacts: within a shard and, in regional
search, within an image.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from delf_d2r.data import files
from delf_d2r.data.artefacts import records, tfrecord
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.errors import ArtefactError
from delf_d2r.index import joining
from delf_d2r.index.segments import SEGMENT_ENTRIES
from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.structures import AggregatedDescriptor

T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class Survey:
  """What artefacts of aggregated descriptors hold beside the descriptors.

  Attributes:
    files: their shards, in order.
    records: int64 [len(files)], how many images each holds.
    names: of the M images.
    boxes: float32 [R, 4] of each image.
    entries: int64 [M], how many descriptors each image has.
  """

  files: tuple[pathlib.Path, ...]
  records: np.ndarray
  names: list[str]
  boxes: list[np.ndarray]
  entries: np.ndarray

  @classmethod
  def of(cls, artefacts: Sequence[Artefact]) -> 'Survey':
    """Reads everything once; ArtefactError, which names the shard, where something is damaged."""
    shards = tuple(artefact.path / shard.file for artefact in artefacts for shard in artefact.manifest.shards)
    counts, names, boxes, entries = [], [], [], []
    for shard in shards:
      before = len(names)
      for outline in _read(shard, records.outline_descriptors):
        names.append(outline.name)
        boxes.append(outline.boxes)
        entries.append(outline.num_descriptors)
      counts.append(len(names) - before)
    return cls(shards, np.array(counts, np.int64), names, boxes, np.array(entries, np.int64))


@dataclasses.dataclass(frozen=True)
class Job:
  """One segment: its number, and where its entries are.

  Attributes:
    number: of the segment.
    part: where it is to be made.
    files: the shards from the first of its images on.
    images: of the first shard, how many to pass over.
    regions: likewise, of the first image.
    entries: how many there are.
  """

  number: int
  part: pathlib.Path
  files: tuple[pathlib.Path, ...]
  images: int
  regions: int
  entries: int

  def descriptors(self) -> Iterator[AggregatedDescriptor]:
    """Yields the entries; ArtefactError as `Survey.of`."""
    skips = itertools.chain([self.images], itertools.repeat(0))
    images = itertools.chain.from_iterable(
      _read(shard, records.decode_descriptors, skip=skip)
      for shard, skip in zip(self.files, skips, strict=False)
    )
    every = itertools.chain.from_iterable(image.descriptors for image in images)
    return itertools.islice(every, self.regions, self.regions + self.entries)


def jobs(survey: Survey, parts: pathlib.Path) -> list[Job]:
  """Cuts what was surveyed into segments, to be made in a folder `parts`."""
  ends, file_ends = np.cumsum(survey.entries), np.cumsum(survey.records)
  total = int(ends[-1]) if len(ends) else 0
  found = []
  for number, first in enumerate(range(0, total, SEGMENT_ENTRIES)):
    stop = min(first + SEGMENT_ENTRIES, total)
    # The images, and then the shards, of the first and of the last entry.
    images = np.searchsorted(ends, [first, stop - 1], 'right')
    shards = np.searchsorted(file_ends, images, 'right')
    found.append(
      Job(
        number,
        parts / f'{number:05d}',
        survey.files[shards[0] : shards[1] + 1],
        int(images[0] - (file_ends - survey.records)[shards[0]]),
        int(first - (ends - survey.entries)[images[0]]),
        stop - first,
      )
    )
  return found


@dataclasses.dataclass(frozen=True)
class Maker:
  """Makes the function of a worker; picklable.

  Attributes:
    num_words, dimensions, kernel: of the index.
    memory_budget: bytes for sorting, of each worker.
  """

  num_words: int
  dimensions: int
  kernel: Kernel
  memory_budget: int

  def __call__(self) -> Callable[[Sequence[Job]], list[None]]:
    return lambda group: [self._make(job) for job in group]

  def _make(self, job: Job) -> None:
    with files.user_errors('cannot write', job.part):
      joining.build_part(
        job.descriptors(),
        job.entries,
        job.part,
        num_words=self.num_words,
        dimensions=self.dimensions,
        kernel=self.kernel,
        memory_budget=self.memory_budget,
      )


def _read(shard: pathlib.Path, decode: Callable[[bytes], T], *, skip: int = 0) -> Iterator[T]:
  for data in tfrecord.read_file(shard, skip=skip):
    try:
      value = decode(data)
    except ArtefactError as error:
      raise ArtefactError(
        f'{shard}: {error}. Delete {shard.parent} and run aggregate_features again'
      ) from None
    yield value
