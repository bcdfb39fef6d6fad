"""The local features of index images: as they were stored, or extracted from their photos again."""

import pathlib
import threading
from collections.abc import Callable

from absl import logging

from delf_d2r.data.artefacts import live_files
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.artefacts.feature_store import FeatureStore
from delf_d2r.data.photos.photo_folders import PhotoFolders
from delf_d2r.engine.live_index import Snapshot
from delf_d2r.errors import ArtefactError, ImageError, UserError
from delf_d2r.structures import Boxes, ImageFeatures


class IndexedFeatures:
  """Reads the features of index images. Threads may share it."""

  def __init__(self, index: Artefact, extract: Callable[[str, pathlib.Path, Boxes], ImageFeatures]):
    """Prepares to read; files are opened when they are needed.

    Args:
      index: the index artefact.
      extract: returns the features of an image, from its name, the path of its photo and its boxes.
    """
    self._index = index
    self._extract = extract
    self._stored: tuple[FeatureStore | None] | None = None  # None until it was looked for.
    self._lock = threading.Lock()

  def read(self, snapshot: Snapshot, image_id: int, *, photos: PhotoFolders) -> ImageFeatures:
    """Returns the features of one index image.

    Args:
      snapshot: the images of the index.
      image_id: the image, a position in the snapshot.
      photos: the folders of the indexed photos, which are read if the stored features are gone.

    Raises:
      ImageError: neither the features nor the photo can be found.
      ArtefactError: the record of the features is damaged.
    """
    name = snapshot.index.image_names[image_id]
    if name in snapshot.state.added:
      return live_files.read_features(self._index.path, snapshot.state.added[name])
    store = self._get_store()
    if store is not None:
      try:
        return store.read(name, position=image_id)
      except (UserError, OSError):
        store = self._get_store(instead_of=store)  # They may have been made again since they were opened.
        if store is not None:
          return store.read(name, position=image_id)
    photo = photos.find(name)
    if photo is None:
      where = f', nor its photo in {photos}' if photos.folders else ', and no folder of photos is known'
      raise ImageError(
        f'{name}: cannot find the features that the index was made from{where}. Give the folder of the photos'
      )
    return self._extract(name, photo, Boxes.from_coordinates(snapshot.boxes(image_id)))

  def _get_store(self, instead_of: FeatureStore | None = None) -> FeatureStore | None:
    # Opened late, since opening reads the length of every record.
    with self._lock:
      if self._stored is None or (instead_of is not None and self._stored[0] is instead_of):
        self._stored = (_stored_features(self._index),)
      return self._stored[0]


def _stored_features(index: Artefact) -> FeatureStore | None:
  """Returns the features that an index was made from; None if they are gone or have changed."""
  roles = ['descriptors', 'distractors'] if index.input('distractors') else ['descriptors']
  try:
    return FeatureStore(*(_features_behind(index, role) for role in roles))
  except ArtefactError as error:
    # A warning, since extracting takes many times as long as reading.
    logging.warning('features of %s are extracted from its photos again: %s', index.path, error)
    return None


def _features_behind(index: Artefact, role: str) -> Artefact:
  """Returns the features that the aggregated descriptors of a role were made from.

  Args:
    index: the index artefact.
    role: its input, 'descriptors' or 'distractors'.

  Raises:
    ArtefactError: they are gone or have changed.
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
