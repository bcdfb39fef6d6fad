"""The values that stages exchange: frozen dataclasses of NumPy arrays.

Symbols: N features, D dimensions, K visual words, R regions, W visual words present in an image.
Coordinates are `(y, x)` in pixels of the original image; boxes are `[ymin, xmin, ymax, xmax]`
normalised to [0, 1]. Zero rows are legal everywhere: an image without features has arrays of
shape (0, D), never None.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

WHOLE_IMAGE = (0.0, 0.0, 1.0, 1.0)


def _require_shape(owner: str, field: str, array: np.ndarray, shape: tuple[int | None, ...]) -> None:
  """Raises ValueError unless `array` has `shape`; None in `shape` allows any size."""
  found = np.shape(array)
  if len(found) != len(shape) or any(
    want is not None and want != have for want, have in zip(shape, found, strict=True)
  ):
    wanted = tuple('any' if size is None else size for size in shape)
    raise ValueError(f'{owner}.{field}: expected shape {wanted}, found {found}')


def require_several(names: object, what: str = 'names') -> None:
  """Raises TypeError for one string where several names are wanted, which would be read letter by letter.

  Args:
    names: anything.
    what: the parameter, begins the message.
  """
  if isinstance(names, str | bytes):
    raise TypeError(f'{what}: expected several names, found the string {names!r}; give [{names!r}]')


@dataclasses.dataclass(frozen=True)
class Boxes:
  """Boxes of one image.

  Attributes:
    coordinates: float32 [R, 4], `[ymin, xmin, ymax, xmax]` normalised to [0, 1].
    scores: float32 [R], confidence; 1 where the source has none.
  """

  coordinates: npt.NDArray[np.float32]
  scores: npt.NDArray[np.float32]

  def __post_init__(self) -> None:
    _require_shape('Boxes', 'coordinates', self.coordinates, (None, 4))
    _require_shape('Boxes', 'scores', self.scores, (len(self.coordinates),))

  def __len__(self) -> int:
    return len(self.coordinates)

  @classmethod
  def from_coordinates(cls, coordinates: npt.ArrayLike) -> 'Boxes':
    """Returns boxes of score 1 from anything of shape [R, 4], the empty list included."""
    array = np.asarray(coordinates, np.float32).reshape(-1, 4)
    return cls(array, np.ones(len(array), np.float32))

  @classmethod
  def empty(cls) -> 'Boxes':
    """Returns no boxes, R = 0."""
    return cls.from_coordinates([])


@dataclasses.dataclass(frozen=True)
class LocalFeatures:
  """Local features of one image, one region or one crop.

  Attributes:
    locations: float32 [N, 2], `(y, x)` in pixels.
    scales: float32 [N], relative size of the patch that was described.
    attention: float32 [N], relevance; larger is better.
    descriptors: float32 [N, D], each row of unit length.
  """

  locations: npt.NDArray[np.float32]
  scales: npt.NDArray[np.float32]
  attention: npt.NDArray[np.float32]
  descriptors: npt.NDArray[np.float32]

  def __post_init__(self) -> None:
    n = len(self.descriptors)
    _require_shape('LocalFeatures', 'descriptors', self.descriptors, (None, None))
    _require_shape('LocalFeatures', 'locations', self.locations, (n, 2))
    _require_shape('LocalFeatures', 'scales', self.scales, (n,))
    _require_shape('LocalFeatures', 'attention', self.attention, (n,))

  def __len__(self) -> int:
    return len(self.descriptors)

  @property
  def dimensions(self) -> int:
    return int(self.descriptors.shape[1])

  def take(self, indices: npt.NDArray[Any] | Sequence[int] | slice) -> 'LocalFeatures':
    """Returns the features at `indices`: integers [M], a boolean mask [N] or a slice."""
    return LocalFeatures(
      self.locations[indices], self.scales[indices], self.attention[indices], self.descriptors[indices]
    )

  @classmethod
  def empty(cls, dimensions: int) -> 'LocalFeatures':
    """Returns no features of D dimensions, N = 0."""
    return cls(
      np.zeros((0, 2), np.float32),
      np.zeros(0, np.float32),
      np.zeros(0, np.float32),
      np.zeros((0, dimensions), np.float32),
    )

  @classmethod
  def concatenate(cls, parts: 'list[LocalFeatures]') -> 'LocalFeatures':
    """Returns all features of `parts` (at least one), in order."""
    return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in FEATURE_ARRAYS))


FEATURE_ARRAYS = tuple(field.name for field in dataclasses.fields(LocalFeatures))


@dataclasses.dataclass(frozen=True)
class ImageFeatures:
  """Local features of all regions of one image, region 0 being the whole image.

  Attributes:
    name: the image's name in its image list, for example `oxford/all_souls_000013.jpg`.
    height, width: size of the original image in pixels.
    boxes: float32 [R, 4], normalised; row 0 is the whole image.
    region_offsets: int64 [R + 1]; region r owns features `region_offsets[r]:region_offsets[r + 1]`.
    features: all regions' features, locations in the frame of the original image.
  """

  name: str
  height: int
  width: int
  boxes: npt.NDArray[np.float32]
  region_offsets: npt.NDArray[np.int64]
  features: LocalFeatures

  def __post_init__(self) -> None:
    r = len(self.boxes)
    _require_shape('ImageFeatures', 'boxes', self.boxes, (None, 4))
    _require_shape('ImageFeatures', 'region_offsets', self.region_offsets, (r + 1,))
    offsets = self.region_offsets
    if offsets[0] != 0 or offsets[-1] != len(self.features) or np.any(offsets[1:] < offsets[:-1]):
      raise ValueError(
        f'{self.name}: region_offsets must rise from 0 to the number of features'
        f' ({len(self.features)}), found {offsets.tolist()}; extract the features again'
      )

  @property
  def num_regions(self) -> int:
    return len(self.boxes)

  def region(self, r: int) -> LocalFeatures:
    """Returns the features of region `r`; `region(0)` is the whole image."""
    return self.features.take(slice(self.region_offsets[r], self.region_offsets[r + 1]))

  def take_regions(self, regions: Sequence[int]) -> 'ImageFeatures':
    """Returns the same image with some of its regions (at least one), in the given order."""
    parts = [self.region(r) for r in regions]
    return dataclasses.replace(
      self,
      boxes=self.boxes[list(regions)],
      region_offsets=np.cumsum([0, *map(len, parts)], dtype=np.int64),
      features=LocalFeatures.concatenate(parts),
    )


@dataclasses.dataclass(frozen=True)
class AggregatedDescriptor:
  """One sparse aggregated descriptor: of an image, of a query or of one region.

  Attributes:
    visual_words: uint32 [W], ascending, the words that are present.
    values: float32 [W, D] (VLAD, ASMK) or uint8 [W, ceil(D / 8)] (ASMK*, most significant bit first).
    dimensions: D, which cannot be derived from the bytes of a binary descriptor.
    region_masks: uint8 [W], bit r of a word is 1 if region r has the word, bit 0 being the whole image; None
      for a descriptor that does not say.
  """

  visual_words: npt.NDArray[np.uint32]
  values: npt.NDArray[Any]
  dimensions: int
  region_masks: npt.NDArray[np.uint8] | None = None

  def __post_init__(self) -> None:
    columns = -(-self.dimensions // 8) if self.is_binary else self.dimensions
    _require_shape('AggregatedDescriptor', 'values', self.values, (len(self.visual_words), columns))
    if self.region_masks is not None:
      _require_shape('AggregatedDescriptor', 'region_masks', self.region_masks, (len(self.visual_words),))

  def __len__(self) -> int:
    return len(self.visual_words)

  @property
  def is_binary(self) -> bool:
    return self.values.dtype == np.uint8


@dataclasses.dataclass(frozen=True)
class Ranking:
  """Index images for one query image, best first, equal scores in order of image id.

  Attributes:
    query: the query image's name.
    image_ids: int64 [k], positions in the index's list of images.
    scores: float32 [k], descending; spatial verification keeps the scores and changes the order.
    best_regions: int32 [k], the region with the best score (regional search and region masks), or all -1.
    inliers: int32 [k], descending, after spatial verification: the number of matches that agree, 0 where an
      image was not verified; None before. Images of equal inliers keep their previous order.
    missing_shards: numbers of the shards of a sharded index that did not answer; their images are missing.
    local_scores, global_scores: float32 [k], the parts that `scores` are the sums or norms of, after the
      fusion of two searches: of the first and of the other. Otherwise None.
  """

  query: str
  image_ids: npt.NDArray[np.int64]
  scores: npt.NDArray[np.float32]
  best_regions: npt.NDArray[np.int32]
  inliers: npt.NDArray[np.int32] | None = None
  missing_shards: tuple[int, ...] = ()
  local_scores: npt.NDArray[np.float32] | None = None
  global_scores: npt.NDArray[np.float32] | None = None

  def __post_init__(self) -> None:
    for name in ('scores', 'best_regions', 'inliers', 'local_scores', 'global_scores'):
      if getattr(self, name) is not None:
        _require_shape('Ranking', name, getattr(self, name), (len(self.image_ids),))

  def __len__(self) -> int:
    return len(self.image_ids)

  def take(self, positions: npt.NDArray[Any] | slice) -> 'Ranking':
    """Returns the ranking of the images at `positions`: integers [m] or a slice, in their order."""
    arrays = ('image_ids', 'scores', 'best_regions', 'inliers', 'local_scores', 'global_scores')
    found = {name: getattr(self, name) for name in arrays}
    return dataclasses.replace(
      self, **{name: array[positions] for name, array in found.items() if array is not None}
    )


@dataclasses.dataclass(frozen=True)
class Match:
  """The outcome of spatial verification between a query and one index image.

  Attributes:
    image_id: the index image, a position in the index's list of images.
    matrix: float [3, 3], takes homogeneous `(y, x, 1)` in pixels of the index image to the query image; zeros
      if nothing was verified.
    query_locations, index_locations: float32 [I, 2], the places of the inliers in pixels of each image.
  """

  image_id: int
  matrix: npt.NDArray[np.float64]
  query_locations: npt.NDArray[np.float32]
  index_locations: npt.NDArray[np.float32]

  def __post_init__(self) -> None:
    _require_shape('Match', 'matrix', self.matrix, (3, 3))
    _require_shape('Match', 'query_locations', self.query_locations, (None, 2))
    _require_shape('Match', 'index_locations', self.index_locations, (len(self.query_locations), 2))

  def __len__(self) -> int:
    return len(self.query_locations)
