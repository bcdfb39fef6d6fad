"""Two groups of visual words that lie apart in one coordinate, as those of two kinds of features do.

extractors/joined.py moves the descriptors of one kind away from those of the other by a constant. A feature
of one kind need then not be compared with the words of the other, which is half of the work; and without the
constant, vectors are shorter and their products round less.
"""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

# Fewer words are compared as fast all together.
LEAST_WORDS = 1024


@dataclasses.dataclass(frozen=True)
class WordGroup:
  """The words on one side of a gap.

  Attributes:
    words: int32 [G], ascending.
    coordinate: that of the gap.
    shift: what is subtracted from this coordinate; for all words the difference is exact.
    low, high: the interval of the coordinate that the words are in.
  """

  words: npt.NDArray[np.int32]
  coordinate: int
  shift: np.float32
  low: float
  high: float

  def moved(self, vectors: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Returns vectors float32 [N, D] by `shift`, and bool [N], where the difference is exact.

    Differences of two vectors that are moved exactly are those of the vectors themselves, to the last bit.
    """
    moved = vectors.copy()
    moved[:, self.coordinate] -= self.shift
    expected = vectors[:, self.coordinate].astype(np.float64) - np.float64(self.shift)
    return moved, moved[:, self.coordinate] == expected

  def least_squared_distances(self, vectors: Floats) -> npt.NDArray[np.float64]:
    """Returns a bound from below, float64 [N], of the squared distance to any word of this group."""
    values = vectors[:, self.coordinate].astype(np.float64)
    bound: npt.NDArray[np.float64] = np.square(
      np.maximum(np.maximum(self.low - values, values - self.high), 0)
    )
    return bound


def groups_of(centroids: Floats) -> tuple[WordGroup, WordGroup] | None:
  """Returns the two groups of words float32 [K, D]; None unless a gap is wider than
  the mean of the intervals beside it.

  Each group has an eighth of the words or more, since a small one saves nothing.
  """
  if len(centroids) < LEAST_WORDS:
    return None
  coordinate = int(np.ptp(centroids, axis=0).argmax())
  values = centroids[:, coordinate]
  ordered = np.sort(values).astype(np.float64)
  steps = np.diff(ordered)
  last = int(steps.argmax())
  if 3 * steps[last] <= ordered[-1] - ordered[0]:
    return None
  first, second = (
    _group(np.flatnonzero(is_own), coordinate, values)
    for is_own in (values <= ordered[last], values > ordered[last])
  )
  fewest = len(centroids) // 8
  groups = first, second
  if any(len(group.words) < fewest or not group.moved(centroids[group.words])[1].all() for group in groups):
    return None
  return groups


def _group(words: npt.NDArray[Any], coordinate: int, values: Floats) -> WordGroup:
  low, high = float(values[words].min()), float(values[words].max())
  return WordGroup(words.astype(np.int32), coordinate, np.float32(round((low + high) / 2)), low, high)
