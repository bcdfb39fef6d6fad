"""The directories of records that a detector is trained on, for the two stages that make them.

A directory holds `detection-?????-of-?????.tfrecord` (data/training/detection_examples.py),
`label_map.pbtxt`, `contact_sheet.png` of the first records, the manifest and, where something could not be
used, `errors.jsonl`.
"""

import itertools
import pathlib
from collections.abc import Callable, Sequence

from absl import logging

from delf_d2r.data import files
from delf_d2r.data.artefacts import artefact_writer, tfrecord
from delf_d2r.data.artefacts.artefact import Artefact, Plan
from delf_d2r.data.artefacts.read_photos import PhotoFiles
from delf_d2r.data.training import contact_sheet, detection_examples
from delf_d2r.stages.shared import sharded
from delf_d2r.stages.shared.sharded import Job, JobBatch, Options, Outcome

KIND = 'detection'
PARTS = ('train', 'validation')
LABEL_MAP = 'label_map.pbtxt'
CONTACT_SHEET = 'contact_sheet.png'
_PICTURES = 24


def write(
  output: pathlib.Path,
  plan: Plan,
  prepare: Callable[[], JobBatch[Job, Outcome]],
  *,
  what: str,
  classes: Sequence[str],
  per_shard: int,
  options: Options,
  photos: PhotoFiles,
) -> Artefact:
  """Writes the records of some jobs, or opens the finished artefact.

  Args:
    output: the artefact directory.
    plan: its config and inputs.
    prepare: returns the jobs; not called where the artefact is finished.
    what: the name of what is made, for progress and messages.
    classes: the names of the labels 1, 2, ...
    per_shard: jobs in a shard.
    options: how to work.
    photos: the photos of the records.

  Returns:
    The artefact.

  Raises:
    UserError: there are jobs and none gave a record, or the output cannot be written.
    ImageError: with `strict`, for the first error.
  """
  with artefact_writer.writing(output, plan, redo=options.redo, photos=photos) as writer:
    if writer.finished:
      return writer.reuse(what)
    batch = prepare()
    sharded.write_records(writer, batch, what=what, per_shard=per_shard, options=options)
    if batch.total:
      sharded.require_some(writer, what)
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


def _contact_sheet(output: pathlib.Path) -> bytes:
  """Returns a PNG of the first records, which are read back as they were written."""
  records = itertools.chain.from_iterable(map(tfrecord.read_file, sorted(output.glob('*.tfrecord'))))
  examples = [detection_examples.decode(record) for record in itertools.islice(records, _PICTURES)]
  pictures = [example.image() for example in examples]
  return contact_sheet.encode_png(contact_sheet.draw(pictures, [example.boxes for example in examples]))
