"""Features of all regions of a photo: the seam between stages and any extractor of local features.

An extractor of local features is a callable from uint8 [H, W, 3] to LocalFeatures in that image's pixels,
with an attribute `dimensions`. `RegionExtractor` makes of it what the stages call: photo and boxes to
ImageFeatures.
"""

from typing import Protocol

import numpy as np

from delf_d2r.extractors.resize import resize
from delf_d2r.geometry import boxes as box_geometry
from delf_d2r.protos import extraction_pb2
from delf_d2r.structures import WHOLE_IMAGE, Boxes, ImageFeatures, LocalFeatures

# Crops with a shorter side have no features, as in the research code (reference.md 3.1).
MIN_SIDE = 10


class LocalExtractor(Protocol):
  """What an extractor has to be."""

  dimensions: int

  def __call__(self, image: np.ndarray) -> LocalFeatures:
    """Local features of uint8 [H, W, 3], locations in its pixels, most attention first."""


class RegionExtractor:
  """Extracts the whole image and every box, with locations in the frame of the original image."""

  def __init__(self, extractor: LocalExtractor, config: extraction_pb2.ExtractionConfig):
    self._extractor = extractor
    self._config = config
    self.dimensions = extractor.dimensions

  def extract(self, name: str, image: np.ndarray, boxes: Boxes) -> ImageFeatures:
    """Features of an index image: region 0 is the whole image, region r is box r - 1.

    Args:
      name: the image's name.
      image: uint8 [H, W, 3].
      boxes: R - 1 boxes.
    """
    regions = np.concatenate([np.array([WHOLE_IMAGE], np.float32), boxes.coordinates])
    whole = self._extract_whole(image)
    if self._config.region_features == extraction_pb2.ExtractionConfig.INSIDE:
      size = image.shape[:2]
      rest = [whole.take(box_geometry.contains(box, whole.locations, *size)) for box in regions[1:]]
    else:
      rest = [self._extract_crop(image, box) for box in regions[1:]]
    return _assemble(name, image, regions, [whole, *rest])

  def extract_query(self, name: str, image: np.ndarray, box) -> ImageFeatures:
    """Features of a query image: its only region is the box, cut out before extraction, or the whole image.

    Cutting first is the Revisited protocol: nothing outside the box may help the query.
    """
    if box is None:
      return self.extract(name, image, Boxes.empty())
    return _assemble(name, image, np.array([box], np.float32), [self._extract_crop(image, box)])

  def _extract_whole(self, image: np.ndarray) -> LocalFeatures:
    config = self._config
    return self._extract_resized(image, config.max_image_size, config.min_image_size)

  def _extract_crop(self, image: np.ndarray, box) -> LocalFeatures:
    rows, columns = box_geometry.crop_slices(box, *image.shape[:2])
    config = self._config
    features = self._extract_resized(image[rows, columns], config.max_crop_size, config.min_crop_size)
    return _moved(features, factor=np.ones(2, np.float32), origin=(rows.start, columns.start))

  def _extract_resized(self, image: np.ndarray, max_size: int, min_size: int) -> LocalFeatures:
    if min(image.shape[:2]) < MIN_SIDE:
      return LocalFeatures.empty(self.dimensions)
    resized = resize(np.ascontiguousarray(image), max_size=max_size, min_size=min_size)
    if min(resized.shape[:2]) < MIN_SIDE:
      return LocalFeatures.empty(self.dimensions)
    factor = np.array(image.shape[:2], np.float32) / np.array(resized.shape[:2], np.float32)
    return _moved(self._extractor(resized), factor=factor, origin=(0, 0))


def _moved(features: LocalFeatures, *, factor: np.ndarray, origin) -> LocalFeatures:
  """Features in another frame: locations times `factor` plus `origin`, both `(y, x)`."""
  return LocalFeatures(
    (features.locations * factor + np.array(origin, np.float32)).astype(np.float32),
    (features.scales * np.sqrt(factor.prod())).astype(np.float32),
    features.attention,
    features.descriptors,
  )


def _assemble(name: str, image: np.ndarray, regions: np.ndarray, parts: list[LocalFeatures]) -> ImageFeatures:
  offsets = np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64)
  height, width = image.shape[:2]
  return ImageFeatures(name, height, width, regions, offsets, LocalFeatures.concatenate(parts))
