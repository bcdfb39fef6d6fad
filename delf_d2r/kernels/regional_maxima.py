"""Regional maximum activations of convolutions, R-MAC (Tolias, Sicre and Jegou, ICLR 2016, section 4).

At level l = 1 .. L the squares have sides of 2 min(H, W) / (l + 1) cells; l of them lie along the shorter
side of the map and l + m - 1 along the longer one, evenly from edge to edge. m is the number for which two
neighbours of level 1 share as nearly 40 % of their area as possible.
"""

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt

# The share of the area that two neighbours at level 1 should have in common.
_OVERLAP = Fraction(2, 5)


def squares(rows: int, columns: int, *, levels: int) -> npt.NDArray[np.int64]:
  """Returns the grid of squares on a map of `rows` x `columns` cells, both at least 1.

  Returns:
    int64 [R, 4], `[top, left, bottom, right]` in cells, ends exclusive; level by level, row by row.
  """
  short, long = sorted((rows, columns))
  more = _along_longer_side(short, long) - 1
  found = []
  for level in range(1, levels + 1):
    side = max(2 * short // (level + 1), 1)
    tops = _starts(rows, side, level + (more if rows > columns else 0))
    lefts = _starts(columns, side, level + (more if columns > rows else 0))
    found += [(top, left, top + side, left + side) for top in tops for left in lefts]
  return np.array(found, np.int64).reshape(-1, 4)


def maxima(activations: npt.NDArray[np.float32], grid: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
  """Returns the largest value of each channel in each square.

  Args:
    activations: float32 [H, W, C].
    grid: int64 [R, 4], `squares` of H and W.

  Returns:
    float32 [R, C].
  """
  return np.stack([activations[top:bottom, left:right].max(axis=(0, 1)) for top, left, bottom, right in grid])


def _along_longer_side(short: int, long: int) -> int:
  """Returns m, the number of squares of side `short` along a side of `long` cells."""
  if short == long:
    return 1

  def distance(number: int) -> Fraction:
    # Exact fractions: two numbers may be equally near, and then the smaller one counts.
    return abs(1 - Fraction(long - short, (number - 1) * short) - _OVERLAP)

  # Beyond this number neighbours share more than half.
  return min(range(2, 2 * math.ceil(long / short) + 2), key=distance)


def _starts(cells: int, side: int, number: int) -> npt.NDArray[np.int64]:
  """Returns the cells where `number` squares begin: the first begins at 0, the last one ends at `cells`."""
  starts: npt.NDArray[np.int64] = np.arange(number) * (cells - side) // max(number - 1, 1)
  return starts
