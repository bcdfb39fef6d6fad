"""Boxes for one photo at a time, of the source that a RegionsConfig names: a grid, or a detector."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from delf_d2r.errors import ImageError, UserError
from delf_d2r.extractors.registry import PACKAGED_MODELS
from delf_d2r.extractors.resize import resize
from delf_d2r.geometry import boxes as box_geometry
from delf_d2r.protos import regions_pb2
from delf_d2r.structures import Boxes

if TYPE_CHECKING:
  from delf_d2r.models.saved_models.detections import DetectionModel, Detections

Regions = regions_pb2.RegionsConfig

# The model that comes with the package.
DEFAULT_DETECTOR = PACKAGED_MODELS / 'default_detector'


def build(regions: Regions) -> Callable[[np.ndarray], Boxes]:
  """Returns the function from uint8 [H, W, 3] to its boxes within the config's limits, best first.

  Loads a detector's network.

  Raises:
    UserError: the config's boxes are those of given photos (FILE, RANDOM), or the detector is missing. The
      function raises ImageError if the detector returns NaN or infinity.
  """
  if regions.source == Regions.NONE:
    return lambda pixels: Boxes.empty()
  if regions.source == Regions.UNIFORM:
    grid = box_geometry.select(uniform_grid(regions), **limits(regions))
    return lambda pixels: grid
  if regions.source != Regions.DETECTOR:
    raise UserError(
      f'regions.source is {Regions.Source.Name(regions.source)}, which has boxes only for the photos of its'
      ' file. Give the boxes of each photo'
    )
  detector = load_detector(regions.detector)

  def detect(pixels: np.ndarray) -> Boxes:
    (found,) = detector.batch([detector.reduce(pixels)])
    require_finite(found, 'the photo')
    return box_geometry.select(found, **limits(regions))

  return detect


def require_finite(found: Boxes, name: str) -> None:
  """Raises ImageError, which begins with `name`, if a detector returned NaN or infinity for a photo.

  The limits of a config would drop such boxes without a word.
  """
  if not (np.isfinite(found.coordinates).all() and np.isfinite(found.scores).all()):
    raise ImageError(f'{name}: the detector returned NaN or infinity. Check its model, or remove the photo')


class BoxDetector:
  """Boxes of the wanted classes in photos of any size.

  Attributes:
    note: what to tell the user if the class filter removes every box of some photos; '' if it did not.
  """

  def __init__(self, model: 'DetectionModel', config: regions_pb2.DetectorConfig):
    """Wraps a model; the config says how large photos may be and which classes to keep."""
    self._model = model
    self._max_size = config.max_image_size
    self._classes = np.array(sorted(config.classes), np.int64)
    self.note = ''

  def reduce(self, pixels: np.ndarray) -> np.ndarray:
    """Returns a photo uint8 [H, W, 3] at the size at which the model sees it."""
    return resize(pixels, max_size=self._max_size, min_size=0)

  def batch(self, photos: Sequence[np.ndarray]) -> list[Boxes]:
    """Returns the boxes of each reduced photo as the model has them: neither clipped, sorted nor limited.

    Neighbours of one size go through the network together if it takes batches.
    """
    found: list[Detections] = []
    for group in self._groups(photos):
      found += self._model.detect(np.stack(group))
    return list(map(self._of_wanted_classes, found))

  def _groups(self, photos: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    if not self._model.takes_batches:
      yield from ([photo] for photo in photos)
      return
    for _, group in itertools.groupby(photos, key=np.shape):
      yield list(group)

  def _of_wanted_classes(self, found: 'Detections') -> Boxes:
    if not len(self._classes):
      return Boxes(found.boxes, found.scores)
    kept = np.isin(found.classes, self._classes)
    if len(kept) and not np.any(kept):
      self.note = (
        f'regions.detector.classes {self._classes.tolist()} removes every box of some photos; those of one'
        f' have the classes {np.unique(found.classes).tolist()}. Remove regions.detector.classes to keep all'
      )
    return Boxes(found.boxes[kept], found.scores[kept])


def load_detector(config: regions_pb2.DetectorConfig) -> BoxDetector:
  """Returns the detector of a config: a SavedModel directory or a handle of TensorFlow Hub.

  Raises:
    UserError: nothing is there, or it is no detector.
  """
  path = model_path(config)
  from delf_d2r.models.saved_models import detections

  return BoxDetector(detections.load(path), config)


def uniform_grid(regions: Regions) -> Boxes:
  """Returns the grid of a config."""
  return box_geometry.uniform_grid(regions.uniform.boxes_per_side, overlap=regions.uniform.overlap)


class Limits(TypedDict):
  """The limits on boxes that geometry.boxes.select takes."""

  min_score: float
  min_area: float
  max_area: float
  max_overlap: float
  max_boxes: int


def limits(regions: Regions) -> Limits:
  """Returns the limits of a config."""
  return {
    'min_score': regions.min_score,
    'min_area': regions.min_area,
    'max_area': regions.max_area if regions.HasField('max_area') else 1.0,
    'max_overlap': regions.max_overlap,
    'max_boxes': regions.max_boxes,
  }


def model_path(config: regions_pb2.DetectorConfig) -> str:
  """Returns where the detector is; loads nothing, so that what is missing is said before any work has begun.

  Raises:
    UserError: the config names none and the package has none.
  """
  if not config.model_path and not DEFAULT_DETECTOR.is_dir():
    raise UserError(
      'regions.detector.model_path is empty, which means the detector that comes with the package, but this'
      ' package has none. Set regions.detector.model_path to the directory of a SavedModel, or'
      ' regions.source: UNIFORM'
    )
  return config.model_path or str(DEFAULT_DETECTOR)
