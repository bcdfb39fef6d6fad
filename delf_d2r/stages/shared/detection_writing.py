"""What the makers of detection records share: many jobs on all cores to one directory of shards.

The directory holds `detection-?????-of-?????.tfrecord` (data/detection_examples.py), `label_map.pbtxt`,
`contact_sheet.png` of the first records, the manifest and, where something could not be used, `errors.jsonl`.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import logging

from delf_d2r.data import files
from delf_d2r.data.artefacts import artefact_writer, shard_ledger, tfrecord
from delf_d2r.data.artefacts.artefact import Artefact, Plan
from delf_d2r.data.training import contact_sheet, detection_examples
from delf_d2r.runtime import progress, worker_pool
from delf_d2r.stages.shared import unreadable

KIND = 'detection'
PARTS = ('train', 'validation')
LABEL_MAP = 'label_map.pbtxt'
CONTACT_SHEET = 'contact_sheet.png'
_PICTURES = 24


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What became of one job.

  Attributes:
    name: of the photo or scene.
    record: the tf.train.Example; empty: there is none.
    counts: what the record adds to the counts of the artefact.
    errors: what could not be used.
  """

  name: str
  record: bytes = b''
  counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
  errors: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Work:
  """What is to do.

  Attributes:
    jobs: in the order of their records.
    make_function: makes the function from a job to its outcome, once in each process; picklable.
  """

  jobs: Sequence[Any]
  make_function: Callable[[], Callable[[Any], Outcome]]


@dataclasses.dataclass(frozen=True)
class Options:
  """How to work: processes (None: one for each core), whether to stop at the first error, or to replace."""

  workers: int | None = None
  strict: bool = False
  redo: bool = False


DEFAULTS = Options()


def write(
  output: pathlib.Path,
  plan: Plan,
  prepare: Callable[[], Work],
  *,
  what: str,
  classes: Sequence[str],
  per_shard: int,
  options: Options,
) -> Artefact:
  """Does the work and writes its records, or finds the finished artefact.

  Args:
    output: the artefact directory.
    plan: its config and inputs.
    prepare: tells the work; not called where the artefact is finished.
    what: is made, for progress and messages.
    classes: names of the labels 1, 2, ...
    per_shard: jobs of one shard.
    options: how to work.

  Raises:
    UserError: there are jobs and none gave a record, or the output cannot be written.
    ImageError: with `strict`, for the first error.
  """
  with artefact_writer.writing(output, plan, redo=options.redo) as writer:
    if writer.finished:
      logging.info('%s: %s is up to date, skipped', what, output)
      return Artefact.open(output, KIND)
    work = prepare()
    jobs = work.jobs
    shards = list(writer.ledger.missing(len(jobs), per_shard))
    left = [jobs[item] for shard in shards for item in shard.items]
    done = len(jobs) - len(left)
    if writer.resumed:
      logging.info('%s: going on, %d of %d are done', what, done, len(jobs))
    workers = min(options.workers or worker_pool.available_cores(), max(len(left), 1))
    outcomes = worker_pool.map_ordered(work.make_function, left, workers=workers)
    with progress.bar(total=len(jobs), what=what, unit='images', done=done) as bar:
      for shard in shards:
        with writer.ledger.write(shard) as file:
          for _ in shard.items:
            _keep(next(outcomes), file, strict=options.strict)
            bar.update()
    if jobs:
      unreadable.require_some(writer, what)
    files.write_atomically(output / LABEL_MAP, detection_examples.label_map(classes))
    files.write_atomically(output / CONTACT_SHEET, _contact_sheet(output))
    artefact = writer.finish()
  counts = artefact.counts
  logging.info(
    '%s: %s', what, ', '.join(f'{counts[name]} {name.replace("_", " ")}' for name in sorted(counts))
  )
  if counts['failed']:
    logging.warning('%d errors: %s', counts['failed'], output / artefact_writer.ERRORS)
  return artefact


def _keep(outcome: Outcome, file: shard_ledger.ShardWriter, *, strict: bool) -> None:
  for error in outcome.errors:
    unreadable.leave_out(file, outcome.name, error, strict=strict)
  if outcome.record:
    file.add(outcome.record, images=1, **outcome.counts)
  else:
    file.counts.update(outcome.counts)


def _contact_sheet(output: pathlib.Path) -> bytes:
  """PNG of the first records, read back as they were written."""
  records = itertools.chain.from_iterable(map(tfrecord.read_file, sorted(output.glob('*.tfrecord'))))
  examples = [detection_examples.decode(record) for record in itertools.islice(records, _PICTURES)]
  pictures = [example.image() for example in examples]
  return contact_sheet.encode_png(contact_sheet.draw(pictures, [example.boxes for example in examples]))
