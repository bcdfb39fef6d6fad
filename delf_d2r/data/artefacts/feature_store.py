"""Random access to the features of single images, without reading the others."""

import itertools

import numpy as np

from delf_d2r.data.artefacts import records, tfrecord
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.artefacts.record_shards import RecordShards
from delf_d2r.errors import ArtefactError
from delf_d2r.structures import ImageFeatures


class FeatureStore:
  """Reads ImageFeatures by name. Threads may share it.

  When it is opened, only the lengths of the records are read. Records are in the order of the photos, like
  the image ids of an index, so an image id is the position to try first. Only if another image is found
  there, all records are read once for their names.
  """

  def __init__(self, *artefacts: Artefact):
    """Opens artefacts of features, whose records are numbered consecutively.

    Raises:
      ArtefactError: a shard is damaged.
    """
    self._artefacts = artefacts
    self._source = ', '.join(str(artefact.path) for artefact in artefacts)
    paths = tuple(artefact.path / shard.file for artefact in artefacts for shard in artefact.manifest.shards)
    self._shards = RecordShards(
      self._source, paths, tuple(np.array(tfrecord.record_offsets(path), np.int64) for path in paths)
    )
    self._numbers: dict[str, int] | None = None

  def __len__(self) -> int:
    return len(self._shards)

  def read(self, name: str, *, position: int) -> ImageFeatures:
    """Returns the features of the image `name`, which is most likely record number `position`.

    Raises:
      ArtefactError: there is no such image, or the record is damaged.
    """
    if self._numbers is None and 0 <= position < len(self):
      found = self._decode(position)
      if found.name == name:
        return found
    number = self._number_of(name)
    if number is None:
      raise ArtefactError(
        f'{self._source}: no features of {name} among those of {len(self)} images. Give the features'
        ' that the index was made from'
      )
    return self._decode(number)

  def _decode(self, number: int) -> ImageFeatures:
    return records.decode_features(self._shards.read(number))

  def _number_of(self, name: str) -> int | None:
    if self._numbers is None:
      names = (records.Record(data).name for artefact in self._artefacts for data in artefact.records())
      self._numbers = dict(zip(names, itertools.count()))
    return self._numbers.get(name)
