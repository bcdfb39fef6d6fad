"""The loop of the stages that make one record for each item of theirs.

A stage opens its artefact, and hands its jobs to `write_records`:

    with artefact_writer.writing(output, plan, redo=redo) as writer:
      if writer.finished:
        return writer.reuse('boxes')
      sharded.write_records(writer, batch, what='boxes', per_shard=1024, options=options)
      artefact = writer.finish()

The jobs of the missing shards go to the workers, and their results come back in order: records and counts go
into a shard, errors into `errors.jsonl`. A shard is finished when all of its jobs are. A run that is killed
loses the shards in progress, and the next one goes on after the last finished shard.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

from absl import logging

from delf_d2r.data.artefacts import shard_ledger
from delf_d2r.data.artefacts.artefact_writer import ArtefactWriter
from delf_d2r.data.artefacts.read_photos import ReadPhoto
from delf_d2r.data.artefacts.shard_ledger import ShardRange, ShardWriter
from delf_d2r.errors import ImageError, PhotoUnavailableError, UserError
from delf_d2r.runtime import progress, worker_pool
from delf_d2r.runtime.worker_pool import WorkerFactory, Workers

# The count of photos that were read though the end of their file is missing.
TRUNCATED = 'truncated'

# How often the photos that changed while a stage ran are read again.
_MOST_ROUNDS = 4


class Result(Protocol):
  """The result of one job.

  Attributes:
    name: of the photo, or of whatever the job was about.
    record: the record; b'' where there is none.
    counts: its share of the counts of the artefact.
    errors: why something could not be used, one message each.
    photo: the photo as it was read, of artefacts that are made from photos.
  """

  @property
  def name(self) -> str: ...
  @property
  def record(self) -> bytes: ...
  @property
  def counts(self) -> Mapping[str, int]: ...
  @property
  def errors(self) -> Sequence[str]: ...
  @property
  def photo(self) -> ReadPhoto | None: ...


@dataclasses.dataclass(frozen=True)
class Outcome:
  """A result as a plain value; the attributes are those of `Result`.

  Attributes:
    note: a remark for the user.
  """

  name: str
  record: bytes = b''
  counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
  errors: tuple[str, ...] = ()
  note: str = ''
  photo: ReadPhoto | None = None


Job = TypeVar('Job')
R = TypeVar('R', bound=Result)


class Repeatable(Generic[Job]):
  """Jobs that are made one by one, the same ones each time that they are gone through."""

  def __init__(self, make: Callable[[], Iterable[Job]]):
    self._make = make

  def __iter__(self) -> Iterator[Job]:
    return iter(self._make())


@dataclasses.dataclass(frozen=True)
class JobBatch(Generic[Job, R]):
  """The jobs of a stage and how they are done.

  Attributes:
    jobs: in the order of their records, the same each time. Those of finished shards are passed over.
    total: how many there are.
    make_function: makes the function of a worker, from neighbouring jobs to their results; picklable where
      there are several workers.
    lost: makes the result, from the reason, of a job that kills every worker of a cluster it is given to.
    at_once: the most jobs that are handed to a worker at a time; they belong to one shard.
    per_process: how many jobs take as long as the start of a process. Where the user gives no number of
      workers, there are no more processes than that pays for.
    uses_network: whether the function runs a network.
    preload: names of modules that every worker needs beside that of `make_function`; see
      `worker_pool.map_ordered`.
  """

  jobs: Iterable[Job]
  total: int
  make_function: WorkerFactory[Job, R]
  lost: Callable[[Job, str], R]
  at_once: int = 1
  per_process: int = 1
  uses_network: bool = False
  preload: Sequence[str] = ()

  def results(self, shards: Sequence[ShardRange], workers: Workers) -> Iterator[R]:
    """Yields the results of the jobs of some shards, in order."""
    jobs = shard_ledger.items_of(shards, self.jobs)
    sizes = [
      min(self.at_once, shard.items.stop - first)
      for shard in shards
      for first in shard.items[:: self.at_once]
    ]
    if workers is None:
      most = worker_pool.default_workers(uses_network=self.uses_network)
      workers = max(min(most, -(-sum(sizes) // self.per_process)), 1)
    return worker_pool.map_groups(
      self.make_function,
      (list(itertools.islice(jobs, size)) for size in sizes),
      num_groups=len(sizes),
      workers=workers,
      lost=self.lost,
      uses_network=self.uses_network,
      preload=(*worker_pool.modules_of(self.make_function), *self.preload),
    )


@dataclasses.dataclass(frozen=True)
class Options:
  """How a stage works.

  Attributes:
    workers: a number of processes (None: one for each core, or fewer), or the workers of a cluster.
    strict: stop at the first error.
    redo: replace an artefact of another config or other inputs.
  """

  workers: Workers = None
  strict: bool = False
  redo: bool = False


DEFAULTS = Options()


def write_records(
  writer: ArtefactWriter,
  batch: JobBatch[Job, R],
  *,
  what: str,
  per_shard: int,
  options: Options = DEFAULTS,
  observe: Callable[[R], None] | None = None,
) -> None:
  """Does the jobs of all missing shards and writes their records.

  Args:
    writer: the artefact.
    batch: the jobs.
    what: the name of what is made, for progress and messages.
    per_shard: jobs in a shard.
    options: workers, and whether to stop at the first error.
    observe: called with every result after it is written.

  Raises:
    UserError: workers died, or the output cannot be written.
    ImageError: with `strict`, for the first error.
  """
  write_results(
    writer,
    lambda shards: batch.results(shards, options.workers),
    total=batch.total,
    per_shard=per_shard,
    what=what,
    strict=options.strict,
    observe=observe,
  )


def write_results(
  writer: ArtefactWriter,
  results_of: Callable[[Sequence[ShardRange]], Iterable[R]],
  *,
  total: int,
  per_shard: int,
  what: str,
  unit: str = 'images',
  strict: bool = False,
  observe: Callable[[R], None] | None = None,
) -> None:
  """Writes the results of all missing shards, for a stage that has workers of its own; see `write_records`.

  Args:
    writer: the artefact.
    results_of: yields the results of the items of some shards, in order.
    total: the number of items.
    per_shard: items in a shard.
    what: the name of what is made, for progress and messages.
    unit: the name of the items.
    strict: stop at the first error.
    observe: called with every result after it is written.
  """
  for _ in range(_MOST_ROUNDS):
    _write_missing(writer, results_of, total, per_shard, what, unit, strict, observe)
    if not writer.recheck_photos():
      return
  raise PhotoUnavailableError(
    f'{writer.path}: photos change whenever they are read. Wait until they are written, then run the same'
    ' command again'
  )


def _write_missing(
  writer: ArtefactWriter,
  results_of: Callable[[Sequence[ShardRange]], Iterable[R]],
  total: int,
  per_shard: int,
  what: str,
  unit: str,
  strict: bool,
  observe: Callable[[R], None] | None,
) -> None:
  """Writes the results of the shards that are missing; arguments as of `write_results`."""
  shards = list(writer.ledger.missing(total, per_shard))
  done = total - sum(len(shard.items) for shard in shards)
  if writer.resumed:
    logging.info('%s: going on, %d of %d are done', what, done, total)
  results = iter(results_of(shards))
  with progress.bar(total=total, what=what, unit=unit, done=done) as bar:
    for shard in shards:
      with writer.ledger.write(shard) as file:
        for result in itertools.islice(results, len(shard.items)):
          _write(result, file, strict=strict)
          if observe is not None:
            observe(result)
          bar.update()


def _write(result: Result, file: ShardWriter, *, strict: bool) -> None:
  for error in result.errors:
    record_failure(file, result.name, error, strict=strict)
  if result.photo is not None:
    file.photos.append(result.photo)
  if result.counts.get(TRUNCATED):
    logging.warning('%s: truncated; the end of the file is missing and grey', result.name)
  if result.record:
    file.add(result.record, **result.counts)
  else:
    file.counts.update(result.counts)


def record_failure(file: ShardWriter, name: str, error: str, *, strict: bool) -> None:
  """Notes in `errors.jsonl` what could not be used; with `strict` raises ImageError instead."""
  if strict:
    raise ImageError(f'{error} (stopped, because of --strict)')
  logging.warning('left out: %s', error)
  file.add_error(name, error)


def require_some(writer: ArtefactWriter, what: str) -> None:
  """Raises UserError, and removes what was written, if no photo at all could be decoded."""
  if not writer.ledger.counts['images']:
    errors = writer.ledger.errors
    writer.discard()
    reasons = '; '.join(error['error'] for error in errors[:3])
    raise UserError(f'none of the {len(errors)} {what} could be read: {reasons}')
