"""L2 norms of rows."""

from typing import Any

import numpy as np
import numpy.typing as npt


def row_squared_norms(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
  """Returns the squared L2 norm of each row: float32 [S, D] -> [S]."""
  squared: npt.NDArray[np.float32] = np.einsum('sd,sd->s', rows, rows)
  return squared


def l2_norms(squared: npt.ArrayLike, epsilon: float = 1e-12) -> npt.NDArray[np.float32]:
  """Returns sqrt(max(squared, epsilon)): the divisor of an L2 normalisation that leaves zeros at zero.

  Args:
    squared: squared norms, of any shape.
    epsilon: the least squared norm to divide by; TensorFlow's `l2_normalize` has the same default.
  """
  norms: npt.NDArray[Any] = np.sqrt(np.maximum(squared, epsilon))
  return norms.astype(np.float32)
