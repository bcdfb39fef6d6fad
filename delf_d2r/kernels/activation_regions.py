"""Regions where the channels of a network respond (Simeoni, Avrithis and Chum, CVPR 2019, section 3).

The paper finds maximally stable extremal regions of each channel; here a region is a connected set of cells
that respond with at least a share of the channel's maximum, one level of the same component tree. Without
descriptors, regions of two images are matched by their channel.
"""

import dataclasses

import numpy as np
import numpy.typing as npt
from scipy import ndimage

# Cells of one channel touch by sides and corners, those of two channels never.
_NEIGHBOURS = np.zeros((3, 3, 3), bool)
_NEIGHBOURS[1] = True


@dataclasses.dataclass(frozen=True)
class ActivationRegions:
  """N regions, channel by channel, the strongest of each channel first.

  Attributes:
    channels: int64 [N].
    centers: float64 [N, 2], `(y, x)` in cells, the mean weighted by the activations; cell 0 covers [0, 1].
    areas: int64 [N], cells.
    strengths: float32 [N], the largest activation.
  """

  channels: npt.NDArray[np.int64]
  centers: npt.NDArray[np.float64]
  areas: npt.NDArray[np.int64]
  strengths: npt.NDArray[np.float32]


def find(activations: npt.NDArray[np.float32], *, threshold: float, most: int) -> ActivationRegions:
  """Finds the regions of all channels.

  Args:
    activations: float32 [H, W, C]; channels that are nowhere positive have no regions.
    threshold: share of a channel's maximum, in (0, 1], that every cell of a region reaches.
    most: the largest number of regions of each channel that are kept, the strongest first.
  """
  maps = activations.transpose(2, 0, 1)
  peaks = maps.max(axis=(1, 2), keepdims=True)
  labels, count = ndimage.label((maps >= threshold * peaks) & (peaks > 0), _NEIGHBOURS)
  cells = np.nonzero(labels)
  regions, weights = labels[cells] - 1, maps[cells]
  channels = np.zeros(count, np.int64)
  channels[regions] = cells[0]
  strengths = np.zeros(count, np.float32)
  np.maximum.at(strengths, regions, weights)
  totals = np.bincount(regions, weights, count)
  sums = [np.bincount(regions, weights * (axis + 0.5), count) for axis in cells[1:]]
  centers = np.stack(sums, axis=1) / totals[:, None]
  areas = np.bincount(regions, minlength=count)
  # The sort is stable: equal regions stay in the order of the scan.
  order = np.lexsort((-strengths, channels))
  ranks = np.arange(count) - np.searchsorted(channels[order], channels[order])
  order = order[ranks < most]
  return ActivationRegions(channels[order], centers[order], areas[order], strengths[order])
