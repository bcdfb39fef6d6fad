"""Boxes for one photo at a time, from what a RegionsConfig names: a grid, or what a detector finds."""

import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from delf_d2r.errors import UserError
from delf_d2r.extractors.resize import resize
from delf_d2r.geometry import boxes as box_geometry
from delf_d2r.protos import regions_pb2
from delf_d2r.structures import Boxes

Regions = regions_pb2.RegionsConfig

# The model that comes with the package.
DEFAULT_DETECTOR = pathlib.Path(__file__).parent.parent / 'models' / 'default_detector'


def build(regions: Regions) -> Callable[[np.ndarray], Boxes]:
  """From uint8 [H, W, 3] to its boxes within the config's limits, best first. Loads a detector's network.

  Raises:
    UserError: the config's boxes are those of given photos (FILE, RANDOM), or the detector is missing.
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
  detector = Detector(regions, model_path(regions.detector))
  return lambda pixels: box_geometry.select(detector.batch([detector.reduce(pixels)])[0], **limits(regions))


class Detector:
  """A detector of boxes in photos of any size."""

  def __init__(self, regions: Regions, path: str):
    """Loads the network at `path`."""
    from delf_d2r.models import detection

    self._detector = detection.load(path, classes=regions.detector.classes)
    self._max_size = regions.detector.max_image_size

  @property
  def note(self) -> str:
    """What to tell the user if no photo has any box; '' if nothing."""
    return self._detector.note

  def reduce(self, pixels: np.ndarray) -> np.ndarray:
    """A photo uint8 [H, W, 3] at the size at which it is looked at."""
    return resize(pixels, max_size=self._max_size, min_size=0)

  def batch(self, photos: Sequence[np.ndarray]) -> list[Boxes]:
    """The boxes of each reduced photo, not yet limited."""
    return self._detector.batch(photos)


def uniform_grid(regions: Regions) -> Boxes:
  """The grid of a config."""
  return box_geometry.uniform_grid(regions.uniform.boxes_per_side, overlap=regions.uniform.overlap)


def limits(regions: Regions) -> dict[str, float]:
  """The limits of a config, as geometry/boxes.py has them."""
  return {name: getattr(regions, name) for name in ('min_score', 'min_area', 'max_overlap', 'max_boxes')}


def model_path(detector: regions_pb2.DetectorConfig) -> str:
  """Where the detector is; UserError if it is to be the package's own and there is none.

  Said before any work has begun, and without TensorFlow.
  """
  if not detector.model_path and not DEFAULT_DETECTOR.is_dir():
    raise UserError(
      'regions.detector.model_path is empty, which means the detector that comes with the package, but this'
      ' package has none. Set regions.detector.model_path to the directory of a SavedModel, or'
      ' regions.source: UNIFORM'
    )
  return detector.model_path or str(DEFAULT_DETECTOR)
