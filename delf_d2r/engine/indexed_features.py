"""The local features of index images: as they were stored, or anew from their photos."""

import pathlib
import threading
from collections.abc import Callable

from absl import logging

from delf_d2r.data.artefacts import live_files
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.artefacts.feature_store import FeatureStore
from delf_d2r.data.photos.photo_folders import PhotoFolders
from delf_d2r.engine.live_index import Snapshot
from delf_d2r.errors import ArtefactError, ImageError
from delf_d2r.structures import Boxes, ImageFeatures


class IndexedFeatures:
  """Reads the features of index images. Threads may share it."""

  def __init__(self, index: Artefact, extract: Callable[[str, pathlib.Path, Boxes], ImageFeatures]):
    """Takes an index artefact and what makes features of a name, a photo and its boxes."""
    self._index = index
    self._extract = extract
    self._stored: tuple[FeatureStore | None] | None = None  # None until it is looked for.
    self._lock = threading.Lock()

  def read(self, snapshot: Snapshot, image_id: int, *, photos: PhotoFolders) -> ImageFeatures:
    """The features of one index image.

    Args:
      snapshot: the images.
      image_id: one of them.
      photos: the folders of the indexed photos, for an index whose features are not at hand.

    Raises:
      ImageError: its features are not at hand, and its photo is not either.
      ArtefactError: its record is damaged.
    """
    name = snapshot.index.image_names[image_id]
    if name in snapshot.state.added:
      return live_files.read_features(self._index.path, snapshot.state.added[name])
    store = self._get_store()
    if store is not None:
      return store.read(name, position=image_id)
    photo = photos.find(name)
    if photo is None:
      where = f', nor is its photo in {photos}' if photos.folders else ', and no folder of photos is known'
      raise ImageError(
        f'{name}: the features that the index was made from are not at hand{where}. Give the folder of the'
        ' photos'
      )
    return self._extract(name, photo, Boxes.from_coordinates(snapshot.boxes(image_id)))

  def _get_store(self) -> FeatureStore | None:
    # Not before it is needed: it reads the length of every record.
    with self._lock:
      if self._stored is None:
        self._stored = (_stored_features(self._index),)
      return self._stored[0]


def _stored_features(index: Artefact) -> FeatureStore | None:
  """The features that an index was made from, None where they are gone or others by now."""
  roles = ['descriptors', 'distractors'] if index.input('distractors') else ['descriptors']
  try:
    return FeatureStore(*(_features_behind(index, role) for role in roles))
  except ArtefactError as error:
    # Said aloud: it takes many times as long.
    logging.warning('features of %s are made anew from its photos: %s', index.path, error)
    return None


def _features_behind(index: Artefact, role: str) -> Artefact:
  """The features behind the aggregated descriptors of that role.

  Raises:
    ArtefactError: they are gone, or others lie in their place.
  """
  found = index
  for step, kind in ((role, 'descriptors'), ('features', 'features')):
    expected = found.input(step)
    if expected is None:
      raise ArtefactError(f'{found.path} does not say which {kind} it was made from')
    found = Artefact.open(expected.path, kind)
    if found.manifest.fingerprint != expected.fingerprint:
      raise ArtefactError(
        f'{found.path} are {found.manifest.fingerprint}, the index was made from {expected.fingerprint}'
      )
  return found
