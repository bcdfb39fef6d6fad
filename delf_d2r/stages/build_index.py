"""build_index: aggregated descriptors to an inverted index that answers photos by itself.

The artefact holds all that a search needs: `inverted/` (delf_d2r.index), the codebook, the configs (in the
manifest) and the boxes of every image, which are shown with the results.

An index is cut into segments at every 65,536th entry, wherever that is in the artefacts of descriptors:
within a shard and, in regional search, within an image. Workers build the segments, which are joined at the
end (index.joining), so that the bytes of the index do not depend on the number of workers, nor on their
machines. A run that is killed keeps its finished segments.
"""

import dataclasses
import itertools
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn, TypedDict, TypeVar

import numpy as np
from absl import logging

from delf_d2r import aggregator
from delf_d2r.data import files
from delf_d2r.data.artefacts import artefact_writer, codebook_files, index_files, records, tfrecord
from delf_d2r.data.artefacts.artefact import Artefact, Input, Plan, with_comparison
from delf_d2r.data.photos import photo_folders
from delf_d2r.errors import ArtefactError, UserError
from delf_d2r.index import joining
from delf_d2r.index.builder import DEFAULT_MEMORY_BUDGET
from delf_d2r.index.inverted_index import InvertedIndex
from delf_d2r.index.segments import SEGMENT_ENTRIES, ValueType
from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.protos import aggregation_pb2, experiment_pb2
from delf_d2r.runtime import progress, worker_pool
from delf_d2r.stages.shared.compatibility import require_same_codebook, require_same_making
from delf_d2r.structures import AggregatedDescriptor

T = TypeVar('T')


def run(
  config: experiment_pb2.ExperimentConfig,
  descriptors: Artefact,
  codebook: Artefact,
  output: pathlib.Path,
  *,
  distractors: Artefact | None = None,
  workers: worker_pool.Workers = None,
  memory_budget: int = DEFAULT_MEMORY_BUDGET,
  redo: bool = False,
) -> Artefact:
  """Builds the index.

  Args:
    config: its part `aggregation` says how scores are computed, and how values are stored; the rest is taken
      from the descriptors.
    descriptors: the artefact of aggregate_features.
    codebook: the codebook that it used.
    output: the artefact directory.
    distractors: aggregated descriptors of photos that are in no ground truth; they follow the others.
    workers: processes (None: one for each segment, at most one for each core), or those of a cluster.
    memory_budget: bytes for sorting, without effect on the result: for all processes of this machine
      together, or for each worker of a cluster; see index.builder.SegmentBuilder.
    redo: replace an artefact of another config.

  Returns:
    The artefact.

  Raises:
    UserError: descriptors and codebook do not belong together, the distractors were aggregated differently, a
      shard is damaged, workers died, or the output
      cannot be written.
  """
  require_same_codebook(descriptors, codebook)
  merged = with_comparison(descriptors.config, config.aggregation)
  if config.aggregation.HasField('value_type'):
    merged.aggregation.value_type = config.aggregation.value_type
  inputs: tuple[Input, ...] = (
    descriptors.as_input('descriptors'),
    codebook.as_input('codebook'),
    descriptors.require_input('images'),
  )
  artefacts = [descriptors]
  if distractors:
    require_same_making(descriptors, distractors)
    inputs += (distractors.as_input('distractors'), *photo_folders.of_distractors(distractors))
    artefacts.append(distractors)
  plan = Plan('index', merged, inputs)
  with artefact_writer.writing(output, plan, redo=redo) as writer:
    if writer.finished:
      return writer.reuse('index')
    shutil.rmtree(output / index_files.INVERTED, ignore_errors=True)
    index = _build(artefacts, codebook, merged.aggregation, output, workers, memory_budget)
    codebook_files.copy(codebook.path, output)
    logging.info('index: %r', index)
    counts = {
      'images': len(index),
      'entries': index.num_entries,
      'postings': index.num_postings,
      'index_bytes': index.nbytes,
      'distractors': distractors.counts['images'] if distractors else 0,
    }
    return writer.finish(counts, upstream=descriptors)


class IndexSizes(TypedDict):
  """What all segments of an index share: their sizes, and the digest of their codebook."""

  num_words: int
  dimensions: int
  kernel: Kernel
  region_masks: bool
  value_type: ValueType
  codebook: str


def _build(
  artefacts: Sequence[Artefact],
  codebook: Artefact,
  config: aggregation_pb2.AggregationConfig,
  output: pathlib.Path,
  workers: worker_pool.Workers,
  memory_budget: int,
) -> InvertedIndex:
  # The first pass reads what is small, the second one the postings: descriptors need not fit into memory.
  catalog = DescriptorCatalog.of(artefacts)
  index_files.save_boxes(catalog.boxes, output)
  sizes: IndexSizes = {
    'num_words': len(codebook_files.load_centroids(codebook.path)),
    'dimensions': codebook_files.load_bits(codebook.path),
    'kernel': aggregator.kernel(config),
    'region_masks': config.region_masks,
    'value_type': aggregator.value_type(config),
    'codebook': codebook_files.named_digest(codebook.path, codebook.config.codebook),
  }
  if sizes['value_type'] is not ValueType.FLOAT32 and (
    sizes['num_words'] > 1 or sizes['kernel'].is_selective
  ):
    raise UserError(
      f'{codebook.path}: aggregation.value_type is {sizes["value_type"].name}, which is for VLAD of one'
      f' visual word, found {sizes["kernel"].name} of {sizes["num_words"]}. Remove value_type'
    )
  parts = output / index_files.PARTS
  jobs = segment_jobs(catalog, parts)
  _make_segments(jobs, parts, sizes, workers, memory_budget)
  is_regional = config.regions == aggregation_pb2.AggregationConfig.REGIONAL_SEARCH
  index = joining.join(
    [job.part for job in jobs],
    catalog.names,
    entry_images=np.repeat(np.arange(len(catalog.names)), catalog.entries).tolist() if is_regional else None,
    directory=output / index_files.INVERTED,
    **sizes,
  )
  shutil.rmtree(parts)
  return index


def _make_segments(
  jobs: Sequence['SegmentJob'],
  parts: pathlib.Path,
  sizes: IndexSizes,
  workers: worker_pool.Workers,
  memory_budget: int,
) -> None:
  """Has every segment made that no earlier run has finished."""
  parts.mkdir(exist_ok=True)
  missing = [job for job in jobs if not joining.is_built(job.part)]
  for leftover in set(parts.iterdir()) - {job.part for job in jobs} | {job.part for job in missing}:
    shutil.rmtree(leftover, ignore_errors=True)
  if workers is None or isinstance(workers, int):
    workers = max(min(workers or worker_pool.available_cores(), len(missing)), 1)
    memory_budget //= workers
  made = worker_pool.map_groups(
    SegmentWorkerFactory(sizes, memory_budget),
    [[job] for job in missing],
    num_groups=len(missing),
    workers=workers,
    lost=_lost,
  )
  total, left = (sum(job.entries for job in some) for some in (jobs, missing))
  with progress.bar(total=total, what='index', unit='entries', done=total - left) as bar:
    for job, _ in zip(missing, made, strict=True):
      bar.update(job.entries)


def _lost(job: 'SegmentJob', reason: str) -> NoReturn:
  raise UserError(
    f'segment {job.number} of the index, {job.entries} entries, {reason}. Give each worker more of a machine'
    ' by --cpus_per_worker, or have it sort in less by --sorting_gb; finished segments are kept'
  )


@dataclasses.dataclass(frozen=True)
class DescriptorCatalog:
  """The contents of artefacts of aggregated descriptors, without the descriptors.

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
  def of(cls, artefacts: Sequence[Artefact]) -> 'DescriptorCatalog':
    """Reads everything once; raises ArtefactError, which names the shard, where something is damaged."""
    shards = tuple(artefact.path / shard.file for artefact in artefacts for shard in artefact.manifest.shards)
    names: list[str] = []
    boxes: list[np.ndarray] = []
    counts, entries = [], []
    for shard in shards:
      before = len(names)
      for outline in _read(shard, records.outline_descriptors):
        names.append(outline.name)
        boxes.append(outline.boxes)
        entries.append(outline.num_descriptors)
      counts.append(len(names) - before)
    return cls(shards, np.array(counts, np.int64), names, boxes, np.array(entries, np.int64))


@dataclasses.dataclass(frozen=True)
class SegmentJob:
  """One segment that is to be made, and where its entries are.

  Attributes:
    number: of the segment.
    part: the folder to make it in.
    files: the shards, from that of its first image to that of its last.
    images: how many images of the first shard precede its first one.
    regions: how many entries of its first image belong to the segment before.
    entries: how many entries it has.
  """

  number: int
  part: pathlib.Path
  files: tuple[pathlib.Path, ...]
  images: int
  regions: int
  entries: int

  def descriptors(self) -> Iterator[AggregatedDescriptor]:
    """Yields the entries; raises ArtefactError like `DescriptorCatalog.of`."""
    skips = itertools.chain([self.images], itertools.repeat(0))
    images = itertools.chain.from_iterable(
      _read(shard, records.decode_descriptors, skip=skip)
      for shard, skip in zip(self.files, skips, strict=False)
    )
    every = itertools.chain.from_iterable(image.descriptors for image in images)
    return itertools.islice(every, self.regions, self.regions + self.entries)


def segment_jobs(catalog: DescriptorCatalog, parts: pathlib.Path) -> list[SegmentJob]:
  """Returns the segments of all descriptors of a catalog, which are to be made in the folder `parts`."""
  ends, file_ends = np.cumsum(catalog.entries), np.cumsum(catalog.records)
  total = int(ends[-1]) if len(ends) else 0
  found = []
  for number, first in enumerate(range(0, total, SEGMENT_ENTRIES)):
    stop = min(first + SEGMENT_ENTRIES, total)
    # The images, and then the shards, of the first and of the last entry.
    images = np.searchsorted(ends, [first, stop - 1], 'right')
    shards = np.searchsorted(file_ends, images, 'right')
    found.append(
      SegmentJob(
        number,
        parts / f'{number:05d}',
        catalog.files[shards[0] : shards[1] + 1],
        int(images[0] - (file_ends - catalog.records)[shards[0]]),
        int(first - (ends - catalog.entries)[images[0]]),
        stop - first,
      )
    )
  return found


@dataclasses.dataclass(frozen=True)
class SegmentWorkerFactory:
  """Makes the function of a worker, from the jobs of segments to None for each; picklable.

  Attributes:
    sizes: of the index.
    memory_budget: bytes for sorting, of each worker.
  """

  sizes: IndexSizes
  memory_budget: int

  def __call__(self) -> Callable[[Sequence[SegmentJob]], list[None]]:
    def make_all(jobs: Sequence[SegmentJob]) -> list[None]:
      for job in jobs:
        self.make(job)
      return [None] * len(jobs)

    return make_all

  def make(self, job: SegmentJob) -> None:
    """Makes one segment."""
    with files.user_errors('cannot write', job.part):
      joining.build_part(
        job.descriptors(), job.entries, job.part, memory_budget=self.memory_budget, **self.sizes
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
