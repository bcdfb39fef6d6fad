"""From photos to local features and index entries, by the config that the index was built with."""

import os
import pathlib
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

import numpy as np
from google.protobuf.message import Message

from delf_d2r import aggregator
from delf_d2r.data.artefacts import codebook_files
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.artefacts.records import ImageDescriptors
from delf_d2r.data.photos import images
from delf_d2r.data.photos.photo_folders import PhotoFolders
from delf_d2r.errors import UserError
from delf_d2r.extractors import photo_boxes, region_extractor
from delf_d2r.structures import Boxes, ImageFeatures, require_several

T = TypeVar('T')
ConfigT = TypeVar('ConfigT', bound=Message)

# The path of a photo, its contents, or uint8 [H, W, 3] RGB.
Photo = str | pathlib.Path | bytes | np.ndarray


class PhotoReader:
  """Reads photos as the stages that made an index read them. Threads may share it.

  Networks are loaded when they are first needed, so that ranking features that exist already loads none.
  """

  def __init__(self, index: Artefact):
    """Takes the index artefact."""
    # Networks are loaded late, when the program may have another working folder.
    config = _with_absolute_paths(index.config)
    self._extraction = config.extraction
    self._extractor = _Lazy(lambda: region_extractor.build(config.extraction))
    self._find_boxes = _Lazy(lambda: photo_boxes.build(config.regions))
    self._aggregator = _Lazy(lambda: _index_aggregator(index))

  def load(self, photo: str | pathlib.Path | bytes, *, name: str = '') -> np.ndarray:
    """Returns a photo decoded, uint8 [H, W, 3] RGB; see `data.photos.images.load_image`."""
    return images.load_image(
      photo,
      name=name,
      apply_exif_orientation=self._extraction.apply_exif_orientation,
      max_megapixels=self._extraction.max_megapixels,
    )

  def query_features(self, pixels: np.ndarray, box: Sequence[float] | None) -> ImageFeatures:
    """Returns the features of a query photo uint8 [H, W, 3], or of a normalised box of it."""
    return self._extractor().extract_query('', pixels, box)

  def extract(self, name: str, photo: pathlib.Path, boxes: Boxes) -> ImageFeatures:
    """Returns the features of an index image whose boxes are known."""
    return self._extractor().extract(name, self.load(photo), boxes)

  def index_image(
    self, name: str, pixels: np.ndarray, boxes: Boxes | None
  ) -> tuple[ImageFeatures, ImageDescriptors]:
    """Returns the features of a photo and its aggregated descriptors for the index.

    Args:
      name: the name of the image.
      pixels: uint8 [H, W, 3].
      boxes: None takes the boxes of the run's grid or detector.
    """
    found = self._find_boxes()(pixels) if boxes is None else boxes
    features = self._extractor().extract(name, pixels, found)
    return features, self.aggregate(features)

  def aggregate(self, features: ImageFeatures) -> ImageDescriptors:
    """Returns the aggregated descriptors of an image for the index."""
    return self._aggregator().index_image(features)

  def prepare(self) -> None:
    """Loads the extractor."""
    self._extractor()

  def prepare_boxes(self) -> None:
    """Loads the detector, if the run has one.

    Raises:
      UserError: the boxes of the run came from a file.
    """
    self._find_boxes()


class _Lazy(Generic[T]):
  """A value that is made at the first call. Threads may share it."""

  def __init__(self, make: Callable[[], T]):
    self._make = make
    self._made: tuple[T] | None = None
    self._lock = threading.Lock()

  def __call__(self) -> T:
    with self._lock:
      if self._made is None:
        self._made = (self._make(),)
      return self._made[0]


def _with_absolute_paths(config: ConfigT) -> ConfigT:
  """Returns a copy of a config whose relative paths of existing files are absolute."""
  changed = type(config)()
  changed.CopyFrom(config)
  _make_paths_absolute(changed)
  return changed


def _make_paths_absolute(message: Message) -> None:
  for field, value in message.ListFields():
    if field.name.endswith('_path') and isinstance(value, str) and os.path.exists(value):
      setattr(message, field.name, os.path.abspath(value))
    elif isinstance(value, Message):
      _make_paths_absolute(value)


def _index_aggregator(index: Artefact) -> aggregator.Aggregator:
  """Returns an aggregator for index images: of the config of the index, not of the queries."""
  config = index.config.aggregation
  centroids = np.ascontiguousarray(codebook_files.load_centroids(index.path))
  recall = codebook_files.load_recall(index.path)
  assign = aggregator.assigner(config.assignment, centroids, recall=recall)
  return aggregator.Aggregator(config, centroids, assign, codebook_files.load_projection(index.path))


def named_photos(paths: Iterable[str | pathlib.Path], folders: PhotoFolders) -> dict[str, pathlib.Path]:
  """Returns photos by their names; see PhotoFolders.name_of.

  Raises:
    UserError: two of them would have one name.
  """
  require_several(paths, 'photos')
  named: dict[str, pathlib.Path] = {}
  for path in map(pathlib.Path, paths):
    name = folders.name_of(path)
    if name in named:
      raise UserError(f'{named[name]} and {path} would both be called {name}. Give photos by name')
    named[name] = path
  return named
