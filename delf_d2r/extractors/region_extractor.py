"""Features of all regions of a photo: the seam between stages and any extractor.

An extractor (registry.LocalExtractor) finds the features of one image. `RegionExtractor` makes of it what
stages call: from a photo and its boxes to ImageFeatures.
"""

import collections
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from delf_d2r.errors import ImageError
from delf_d2r.extractors import registry
from delf_d2r.extractors.registry import LocalExtractor, PyramidExtractor
from delf_d2r.extractors.resize import resize
from delf_d2r.geometry import boxes as box_geometry
from delf_d2r.kernels.finite import require_finite
from delf_d2r.protos import extraction_pb2
from delf_d2r.structures import FEATURE_ARRAYS, WHOLE_IMAGE, Boxes, ImageFeatures, LocalFeatures

# Crops with a shorter side have no features, as in the tensorflow/models DELF code (docs/reference.md 3.1).
MIN_SIDE = 10
# Images of one shape are extracted together up to this many pixels: activations take some 2 kB for each.
_BATCH_PIXELS = 2**20


class RegionExtractor:
  """Extracts the whole image and every box, with locations in the frame of the original image.

  Attributes:
    dimensions: D of the descriptors.
  """

  def __init__(self, extractor: LocalExtractor, config: extraction_pb2.ExtractionConfig):
    self._extractor = extractor
    self._config = config
    self.dimensions = extractor.dimensions

  def extract(self, name: str, image: np.ndarray, boxes: Boxes) -> ImageFeatures:
    """Returns the features of an index image: region 0 is the whole image, region r is box r - 1.

    Args:
      name: the image's name.
      image: uint8 [H, W, 3].
      boxes: R - 1 boxes.

    Raises:
      ImageError: the extractor returned NaN, infinity, or values too large to be compared; names the image.
    """
    regions = np.concatenate([np.array([WHOLE_IMAGE], np.float32), boxes.coordinates])
    return _assemble(name, image, regions, self._extract_regions(image, regions[1:]))

  def extract_query(self, name: str, image: np.ndarray, box: Sequence[float] | None) -> ImageFeatures:
    """Returns the features of a query image: its only region is the box, cut out first, or the whole image.

    Cutting first is the Revisited protocol: nothing outside the box may help the query.
    """
    if box is None:
      return self.extract(name, image, Boxes.empty())
    return _assemble(name, image, np.array([box], np.float32), self._extract_crops(image, [box]))

  @property
  def note(self) -> str:
    """Says what a user should know about images that were left without features; '' if nothing."""
    return getattr(self._extractor, 'note', '')

  def _extract_regions(self, image: np.ndarray, boxes: np.ndarray) -> list[LocalFeatures]:
    """Returns the features of the whole image and of each box [R - 1, 4], in pixels of the image."""
    config = self._config
    if config.region_features == extraction_pb2.ExtractionConfig.SHARED_FEATURE_MAP:
      return self._extract_shared(image, boxes)
    (whole,) = self._extract_resized([image], config.max_image_size, config.min_image_size)
    if config.region_features == extraction_pb2.ExtractionConfig.INSIDE:
      size = image.shape[:2]
      return [whole, *(whole.take(box_geometry.contains(box, whole.locations, *size)) for box in boxes)]
    return [whole, *self._extract_crops(image, boxes)]

  def _extract_crops(self, image: np.ndarray, boxes: Iterable[Sequence[float]]) -> list[LocalFeatures]:
    slices = [box_geometry.crop_slices(box, *image.shape[:2]) for box in boxes]
    config = self._config
    found = self._extract_resized(
      [image[part] for part in slices], config.max_crop_size, config.min_crop_size
    )
    return [
      _moved(features, factor=np.ones(2, np.float32), origin=(rows.start, columns.start))
      for features, (rows, columns) in zip(found, slices, strict=True)
    ]

  def _extract_shared(self, image: np.ndarray, boxes: np.ndarray) -> list[LocalFeatures]:
    """Returns the best features of the whole image and of each box out of the whole image's feature maps.

    At a scale where a box spans few cells, these see mostly what lies outside the box, which extraction of
    the crop would not see at all; so such scales are left out.
    """
    config, extractor = self._config, self._extractor
    if not isinstance(extractor, PyramidExtractor):
      raise TypeError(f'region_features: SHARED_FEATURE_MAP needs a PyramidExtractor, found {extractor!r}')
    resized, factor = _resized(image, config.max_image_size, config.min_image_size)
    if resized is None:
      return [LocalFeatures.empty(self.dimensions)] * (1 + len(boxes))
    size = resized.shape[:2]
    everything = extractor.all_features(resized)
    parts = [everything]
    for box in boxes:
      side = min((box[2] - box[0]) * size[0], (box[3] - box[1]) * size[1])
      cells_across = side / (extractor.stride * everything.scales)
      fine = cells_across >= extractor.min_cells_across_box
      fine |= everything.scales == everything.scales.min(initial=np.inf)
      parts.append(everything.take(fine & box_geometry.contains(box, everything.locations, *size)))
    return [_moved(extractor.best(part), factor=factor, origin=(0, 0)) for part in parts]

  def _extract_resized(self, images: list[np.ndarray], max_size: int, min_size: int) -> list[LocalFeatures]:
    """Returns the features of each image, in its own pixels; images of one shape are extracted together."""
    found = [LocalFeatures.empty(self.dimensions)] * len(images)
    resized: dict[int, np.ndarray] = {}
    factors: dict[int, np.ndarray] = {}
    for i, image in enumerate(images):
      pixels, factors[i] = _resized(image, max_size, min_size)
      if pixels is not None:
        resized[i] = pixels
    for batch in _batches(resized):
      for i, features in zip(batch, self._extract_batch([resized[i] for i in batch]), strict=True):
        found[i] = _moved(features, factor=factors[i], origin=(0, 0))
    return found

  def _extract_batch(self, images: list[np.ndarray]) -> list[LocalFeatures]:
    if len(images) > 1 and isinstance(self._extractor, PyramidExtractor):
      return self._extractor.batch(images)
    return [self._extractor(image) for image in images]


def build(config: extraction_pb2.ExtractionConfig) -> RegionExtractor:
  """Returns the extractor of a config. Imports only what that one needs.

  Raises:
    UserError: its model or another file is missing or does not fit.
    ValueError: there is no such extractor.
  """
  return RegionExtractor(registry.record(config.extractor).build(config), config)


def _resized(image: np.ndarray, max_size: int, min_size: int) -> tuple[np.ndarray | None, np.ndarray]:
  """Returns the image as it is extracted, None if too small, and the factors (y, x) to its own pixels."""
  factor = np.ones(2, np.float32)
  if min(image.shape[:2]) < MIN_SIDE:
    return None, factor
  resized = resize(np.ascontiguousarray(image), max_size=max_size, min_size=min_size)
  if min(resized.shape[:2]) < MIN_SIDE:
    return None, factor
  return resized, np.array(image.shape[:2], np.float32) / np.array(resized.shape[:2], np.float32)


def _batches(images: Mapping[int, np.ndarray]) -> list[list[int]]:
  """Returns the positions of the images, those of one shape together, within the limit of _BATCH_PIXELS."""
  by_shape = collections.defaultdict(list)
  for i, image in images.items():
    by_shape[image.shape].append(i)
  batches = []
  for (height, width, _), members in by_shape.items():
    most = max(_BATCH_PIXELS // (height * width), 1)
    batches += [members[start : start + most] for start in range(0, len(members), most)]
  return batches


def _moved(features: LocalFeatures, *, factor: np.ndarray, origin: tuple[int, int]) -> LocalFeatures:
  """Returns features in another frame: locations times `factor` plus `origin`, both `(y, x)`."""
  return LocalFeatures(
    (features.locations * factor + np.array(origin, np.float32)).astype(np.float32),
    (features.scales * np.sqrt(factor.prod())).astype(np.float32),
    features.attention,
    features.descriptors,
  )


def _assemble(name: str, image: np.ndarray, regions: np.ndarray, parts: list[LocalFeatures]) -> ImageFeatures:
  offsets = np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64)
  height, width = image.shape[:2]
  features = LocalFeatures.concatenate(parts)
  _require_finite(name, features)
  return ImageFeatures(name, height, width, regions, offsets, features)


def _require_finite(name: str, features: LocalFeatures) -> None:
  """Raises ImageError, which names the photo, if an extractor returned NaN, infinity or the like for it."""
  for field in FEATURE_ARRAYS:
    array = getattr(features, field)
    try:
      # An array of 0 rows cannot be reshaped to -1 columns.
      require_finite(field, array if array.ndim == 2 else array[:, np.newaxis])
    except ValueError as error:
      raise ImageError(
        f'{name or "the photo"}: the extractor returned values that cannot be used ({error}). Check its'
        ' model, or remove the photo'
      ) from None
