"""Photos with boxes to train a detector on, by number, from TFRecord shards of data/detection_examples.py."""

import pathlib
from collections.abc import Sequence

from delf_d2r.data.artefacts.artefact import Artefact, Input
from delf_d2r.data.artefacts.record_shards import RecordShards
from delf_d2r.data.training import detection_examples
from delf_d2r.data.training.detection_examples import DetectionExample
from delf_d2r.errors import ArtefactError, UserError

# Of the artefacts of make_detection_records and make_detection_scenes.
KIND = 'detection'


class DetectionRecords:
  """Records with labels from 1 to `num_classes`.

  Attributes:
    shards: the files.
    num_classes: how many classes there may be.
  """

  def __init__(self, sources: Sequence[str | pathlib.Path], *, num_classes: int = 1):
    """Finds the shards of one or more directories that a stage made, or patterns of files.

    Raises:
      ArtefactError: a directory is not finished.
      UserError: there are no shards, one is damaged, or they hold no record.
    """
    self.shards = RecordShards.find([_pattern(pathlib.Path(source)) for source in sources])
    self.num_classes = num_classes
    self._first = pathlib.Path(sources[0])

  def __len__(self) -> int:
    return len(self.shards)

  @property
  def source(self) -> str:
    return self.shards.source

  def read(self, number: int) -> DetectionExample:
    """The example of record `number`.

    Raises:
      UserError: the record is damaged or of another form, a box is none, or a label is out of range.
    """
    data = self.shards.read(number)
    path, record = self.shards.place(number)
    try:
      example = detection_examples.decode(data)
    except ArtefactError as error:
      raise UserError(
        f'{path}: record {record} is no photo with boxes in the form of the Object Detection API ({error}).'
        ' Make the records with make_detection_records or make_detection_scenes'
      ) from error
    # The form itself admits any label from 1.
    if len(example.labels) and example.labels.max() > self.num_classes:
      raise UserError(
        f'{path}: record {record} ({example.name}) has label {example.labels.max()}, but a detector of'
        f' {self.num_classes} classes takes labels from 1 to {self.num_classes}. Make the records anew, with'
        ' so many classes'
      )
    return example

  def as_input(self, role: str) -> Input:
    """The records as an input of an artefact."""
    return self.shards.as_input(role, self._first.parent.resolve() / self._first.name)


def _pattern(source: pathlib.Path) -> pathlib.Path:
  if not source.is_dir():
    return source
  return Artefact.open(source, KIND).path / '*.tfrecord'
