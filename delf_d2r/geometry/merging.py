"""The local features of all regions of an image as one set without duplicates."""

import numpy as np
from scipy.spatial import cKDTree

from delf_d2r.structures import ImageFeatures, LocalFeatures

# Two features are duplicates if they lie within so many pixels of each other, ...
_MAX_PIXELS = 2.0
# ... their scales differ by less than this factor ...
_MAX_SCALE_RATIO = 2**0.5
# ... and their descriptors are nearer than this: unit vectors of unlike patches are about 1.4 apart.
_MAX_DISTANCE = 0.5


def merge_regions(image: ImageFeatures) -> LocalFeatures:
  """Returns the features of all regions without those that an earlier region has already.

  Overlapping boxes find the same corner of a building several times. A feature is left out if an earlier
  region (the whole image comes first) has one at the same place, of the same size, with nearly the same
  descriptor. Features of one region are never compared: those that differ in orientation or scale alone are
  no duplicates.

  Args:
    image: R regions, locations in the frame of the image.

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
  pairs = cKDTree(places[usable]).query_pairs(_MAX_PIXELS, p=np.inf, output_type='ndarray')
  first, second = usable[pairs].T
  first, second = np.minimum(first, second), np.maximum(first, second)
  other = regions[first] != regions[second]
  first, second = first[other], second[other]
  differences = features.descriptors[first] - features.descriptors[second]
  alike = np.einsum('nd,nd->n', differences, differences) < _MAX_DISTANCE**2
  kept = np.ones(len(features), bool)
  kept[second[alike]] = False
  return features.take(kept)
