"""Checks that values can be computed with: they are finite, and so are their squared distances in float32."""

import math

import numpy as np
import numpy.typing as npt

# Rows that are searched at a time for the one to name.
_ROWS = 65536


def largest_magnitude(dimensions: int, *, num_summed: int = 1) -> float:
  """Returns the magnitude up to which sums of squared distances of descriptors are finite in float32.

  Two values differ by at most twice the magnitude, so a squared distance is at most 4 D times its square.

  Args:
    dimensions: D.
    num_summed: how many squared distances are added up.
  """
  return math.sqrt(float(np.finfo(np.float32).max) / (4 * max(dimensions, 1) * max(num_summed, 1)))


def require_finite(name: str, array: npt.NDArray[np.float32], *, num_summed: int = 1) -> None:
  """Raises ValueError naming the first row that holds NaN, infinity, or a value too large for distances.

  Args:
    name: of the array, for the message.
    array: float32 [N, D].
    num_summed: how many squared distances between rows are added up.
  """
  limit = largest_magnitude(array.shape[1], num_summed=num_summed)
  # Written so that NaN fails; the largest and the smallest value are found faster than what is finite.
  if not array.size or (array.max() <= limit and array.min() >= -limit):
    return
  for start in range(0, len(array), _ROWS):
    rows = array[start : start + _ROWS]
    for good, found in (
      (np.isfinite(rows), 'NaN or infinity'),
      (np.abs(rows) <= limit, f'a value beyond {limit:.3g}, whose squared distances overflow float32,'),
    ):
      usable = good.all(axis=1)
      if not usable.all():
        raise ValueError(
          f'{name}: expected finite values, found {found} in row {start + usable.argmin()} of'
          f' {len(array)}; extract the features again or drop such rows'
        )
