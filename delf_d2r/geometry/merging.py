"""The local features of all regions of an image as one set without duplicates."""

import numpy as np
import numpy.typing as npt

from delf_d2r.geometry.distances import Floats, squared_distance, squared_distances, whole_lanes
from delf_d2r.kernels.compiled import HAVE_NUMBA, njit
from delf_d2r.structures import ImageFeatures, LocalFeatures

# Two features are duplicates if they lie within so many pixels of each other, ...
_MAX_PIXELS = 2.0
# ... their scales differ by less than this factor ...
_MAX_SCALE_RATIO = 2**0.5
# ... and their descriptors are nearer than this: unit vectors of unlike patches are about 1.4 apart.
_MAX_DISTANCE = 0.5

Places = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


def merge_regions(image: ImageFeatures, *, compiled: bool = HAVE_NUMBA) -> LocalFeatures:
  """Returns the features of all regions without those that an earlier region has already.

  Overlapping boxes find the same corner of a building several times. A feature is left out if an earlier
  region (the whole image comes first) has one at the same place, of the same size, with nearly the same
  descriptor. Features of one region are never compared: those that differ in orientation or scale alone are
  no duplicates.

  Args:
    image: R regions, locations in the frame of the image.
    compiled: take the path that numba compiles; both return the same features.

  Returns:
    At most as many features as all regions have, in their order.
  """
  features = image.features
  if image.num_regions == 1 or not len(features):
    return features
  regions = np.repeat(np.arange(image.num_regions), np.diff(image.region_offsets))
  with np.errstate(divide='ignore', invalid='ignore'):
    sizes = np.log(features.scales) * (_MAX_PIXELS / np.log(_MAX_SCALE_RATIO))
  # All scales that are not positive numbers count as equal.
  places = np.column_stack([features.locations, np.where(np.isfinite(sizes), sizes, 0)]).astype(np.float64)
  usable = np.flatnonzero(np.isfinite(places).all(axis=1))
  repeats = _repeats if compiled else _repeats_by_tree
  kept = np.ones(len(features), bool)
  kept[usable[repeats(places[usable], regions[usable], whole_lanes(features.descriptors), usable)]] = False
  return features if kept.all() else features.take(np.flatnonzero(kept))


def _repeats(places: Places, regions: Rows, descriptors: Floats, rows: Rows) -> npt.NDArray[np.bool_]:
  """Returns which places repeat one of an earlier region.

  Args:
    places: float64 [U, 3], `(y, x, size)`, in units of pixels.
    regions: int64 [U].
    descriptors: float32 [N, D], D a multiple of 16.
    rows: int64 [U], ascending, the rows of `descriptors` that belong to the places.
  """
  found = np.zeros(len(places), bool)
  order = np.argsort(places[:, 0], kind='stable')
  _mark_repeats(np.ascontiguousarray(places[order].T), regions[order], descriptors, rows[order], order, found)
  return found


@njit
def _mark_repeats(
  places: Places, regions: Rows, descriptors: Floats, rows: Rows, order: Rows, found: npt.NDArray[np.bool_]
) -> None:
  """Sweeps over places float64 [3, U] in order of y, of which only few are within reach at a time."""
  for first in range(rows.size):
    for second in range(first + 1, rows.size):
      if places[0, second] - places[0, first] > _MAX_PIXELS:
        break
      if (
        regions[first] != regions[second]
        and abs(places[1, second] - places[1, first]) <= _MAX_PIXELS
        and abs(places[2, second] - places[2, first]) <= _MAX_PIXELS
        and squared_distance(descriptors, rows[first], descriptors, rows[second]) < _MAX_DISTANCE**2
      ):
        found[max(order[first], order[second])] = True


def _repeats_by_tree(places: Places, regions: Rows, descriptors: Floats, rows: Rows) -> npt.NDArray[np.bool_]:
  """Does what `_repeats` does."""
  from scipy.spatial import cKDTree  # here, since few installations need it

  pairs = cKDTree(places).query_pairs(_MAX_PIXELS, p=np.inf, output_type='ndarray')
  first, second = pairs.T
  other = regions[first] != regions[second]
  first, second = first[other], second[other]
  alike = squared_distances(descriptors[rows[first]], descriptors[rows[second]]) < _MAX_DISTANCE**2
  found = np.zeros(len(places), bool)
  found[np.maximum(first, second)[alike]] = True
  return found
