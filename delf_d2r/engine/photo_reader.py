"""From photos to features and what an index keeps of them, by the config that the index was built with."""

import pathlib
import threading
from collections.abc import Iterable, Sequence

import numpy as np

from delf_d2r import aggregator
from delf_d2r.data.artefacts import codebook_files
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.artefacts.records import ImageDescriptors
from delf_d2r.data.photos import images
from delf_d2r.data.photos.photo_folders import PhotoFolders
from delf_d2r.errors import UserError
from delf_d2r.extractors import factory, photo_boxes
from delf_d2r.structures import Boxes, ImageFeatures

Photo = str | pathlib.Path | bytes | np.ndarray


class PhotoReader:
  """Reads photos as the stages did that made an index. Threads may share it.

  Its networks are made when they are needed: ranking features that are there already needs none.
  """

  def __init__(self, index: Artefact):
    """Takes the index artefact."""
    self._index = index
    self._extractor = None
    self._find_boxes = None
    self._aggregator = None
    self._making = threading.Lock()

  def load(self, photo: str | pathlib.Path | bytes, *, name: str = '') -> np.ndarray:
    """uint8 [H, W, 3]: a photo decoded; see `data.images.load_image`."""
    config = self._index.config.extraction
    return images.load_image(
      photo,
      name=name,
      apply_exif_orientation=config.apply_exif_orientation,
      max_megapixels=config.max_megapixels,
    )

  def query_features(self, pixels: np.ndarray, box: Sequence[float] | None) -> ImageFeatures:
    """The features of a query photo [H, W, 3], or of what a box of it shows."""
    return self._get_extractor().extract_query('', pixels, box)

  def extract(self, name: str, photo: pathlib.Path, boxes: Boxes) -> ImageFeatures:
    """The features of an index image whose boxes are known."""
    return self._get_extractor().extract(name, self.load(photo), boxes)

  def index_image(
    self, name: str, pixels: np.ndarray, boxes: Boxes | None
  ) -> tuple[ImageFeatures, ImageDescriptors]:
    """The features of a photo [H, W, 3] and its entries for the index.

    Args:
      name: the image's name.
      pixels: the photo.
      boxes: None: what the run's grid or detector gives.
    """
    found = self._get_find_boxes()(pixels) if boxes is None else boxes
    features = self._get_extractor().extract(name, pixels, found)
    return features, self._get_aggregator().index_image(features)

  def prepare(self) -> None:
    """Makes the extractor now."""
    self._get_extractor()

  def prepare_boxes(self) -> None:
    """Makes what finds boxes now.

    Raises:
      UserError: the run's boxes came from a file.
    """
    self._get_find_boxes()

  def _get_extractor(self):
    with self._making:
      if self._extractor is None:
        self._extractor = factory.build(self._index.config.extraction)
    return self._extractor

  def _get_find_boxes(self):
    with self._making:
      if self._find_boxes is None:
        self._find_boxes = photo_boxes.build(self._index.config.regions)
    return self._find_boxes

  def _get_aggregator(self) -> aggregator.Aggregator:
    # As the index was built, whatever queries are assigned and compared by.
    with self._making:
      if self._aggregator is None:
        config = self._index.config.aggregation
        centroids = np.ascontiguousarray(codebook_files.load_centroids(self._index.path))
        recall = codebook_files.load_recall(self._index.path)
        assign = aggregator.assigner(config.assignment, centroids, recall=recall)
        self._aggregator = aggregator.Aggregator(config, centroids, assign)
    return self._aggregator


def named_photos(paths: Iterable[str | pathlib.Path], folders: PhotoFolders) -> dict[str, pathlib.Path]:
  """Photos by their names, see PhotoFolders.name_of.

  Raises:
    UserError: two would have one name.
  """
  if isinstance(paths, str):
    raise TypeError(f'expected paths, found the string {paths!r}; give [{paths!r}]')
  named: dict[str, pathlib.Path] = {}
  for path in map(pathlib.Path, paths):
    name = folders.name_of(path)
    if name in named:
      raise UserError(f'{named[name]} and {path} would both be called {name}. Give photos by name')
    named[name] = path
  return named
