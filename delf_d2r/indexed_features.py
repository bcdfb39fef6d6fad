"""The local features of index images: as they were stored, or anew from their photos."""

import pathlib

from absl import logging

from delf_d2r.data.artefacts import Artefact
from delf_d2r.data.feature_store import FeatureStore
from delf_d2r.engine import SearchEngine
from delf_d2r.errors import ArtefactError, ImageError
from delf_d2r.structures import ImageFeatures


class IndexedFeatures:
  """Reads the features of index images. Threads may share it."""

  def __init__(self, engine: SearchEngine, photos: pathlib.Path | None):
    """Finds what an index was made from.

    Args:
      engine: of the index.
      photos: the folder of the indexed photos, for an index whose features are not at hand.
    """
    self._engine = engine
    self._photos = photos
    self._store = _stored_features(engine.artefact)

  def read(self, image_id: int) -> ImageFeatures:
    """The features of one index image.

    Raises:
      ImageError: its features are not at hand, and its photo is not either.
      ArtefactError: its record is damaged.
    """
    name = self._engine.index.image_names[image_id]
    if self._store is not None:
      return self._store.read(name, position=image_id)
    if self._photos is None:
      raise ImageError(
        f'{name}: neither the features of the index nor its photos are at hand. Give the folder of the photos'
      )
    return self._engine.extract(image_id, self._engine.load_photo(self._photos / name))


def _stored_features(index: Artefact) -> FeatureStore | None:
  """The features that an index was made from, None where they are gone or others by now."""
  found = index
  try:
    for role in ('descriptors', 'features'):
      expected = found.input(role)
      if expected is None:
        return None
      found = Artefact.open(expected.path, role)
      if found.manifest.fingerprint != expected.fingerprint:
        return None
    return FeatureStore(found)
  except ArtefactError as error:
    logging.info('features of %s are made anew from its photos: %s', index.path, error)
    return None
