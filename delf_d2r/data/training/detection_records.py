"""Random access to the TFRecord shards of detection_examples.py."""

import pathlib
from collections.abc import Sequence

from delf_d2r.data.artefacts.artefact import Artefact, Input
from delf_d2r.data.artefacts.record_shards import RecordShards
from delf_d2r.data.training import detection_examples
from delf_d2r.data.training.detection_examples import DetectionExample
from delf_d2r.errors import ArtefactError, UserError

# The kind of the artefacts of make_detection_records and make_detection_scenes.
KIND = 'detection'


class DetectionRecords:
  """Photos with boxes by number, with labels from 1 to `num_classes`.

  Attributes:
    shards: the files.
    num_classes: the greatest label that is allowed.
  """

  def __init__(self, sources: Sequence[str | pathlib.Path], *, num_classes: int = 1) -> None:
    """Finds the shards of artefacts of detection records, or of patterns of file names.

    Raises:
      ArtefactError: an artefact is unfinished.
      UserError: there are no shards, one is damaged, or they contain no record.
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
    """Reads the example with that number.

    Raises:
      UserError: the record is damaged or of another format, a box is invalid, or a label is out of range.
    """
    data = self.shards.read(number)
    path, record = self.shards.place(number)
    try:
      example = detection_examples.decode(data)
    except ArtefactError as error:
      raise UserError(
        f'{path}: record {record} is no photo with boxes in the format of the Object Detection API ({error}).'
        ' Make the records with make_detection_records or make_detection_scenes'
      ) from error
    # The format itself allows any label from 1.
    if len(example.labels) and example.labels.max() > self.num_classes:
      raise UserError(
        f'{path}: record {record} ({example.name}) has label {example.labels.max()}, but a detector of'
        f' {self.num_classes} classes takes labels from 1 to {self.num_classes}. Make the records again, with'
        ' that number of classes'
      )
    return example

  def as_input(self, role: str) -> Input:
    """Returns the records as an input of an artefact."""
    return self.shards.as_input(role, self._first.parent.resolve() / self._first.name)


def _pattern(source: pathlib.Path) -> pathlib.Path:
  if not source.is_dir():
    return source
  return Artefact.open(source, KIND).path / '*.tfrecord'
