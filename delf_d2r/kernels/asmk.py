"""ASMK: each word's residual sum becomes a unit vector, and vanishing words are dropped.

Tolias, Avrithis, Jegou, "To aggregate or not to aggregate: selective match kernels for image
search", ICCV 2013.

Burstiness: an image has one unit vector for each word, however many features fall into the word, so a
burst within the image (Jegou, Douze, Schmid, "On the burstiness of visual elements", CVPR 2009) counts
once. This is the aggregation of ASMK itself and needs no further weights.
"""

import numpy as np

from delf_d2r.kernels.vlad import row_squared_norms

PRESENCE_NORM = np.float32(1e-6)


def present_words(residual_sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Rows with a norm above 1e-6 (strictly), docs/reference.md 2.5: mask bool [W] and norms float32 [W].

  A word whose residuals cancel, or whose only feature equals the centroid, is not present.
  """
  norms = np.sqrt(row_squared_norms(residual_sums))
  return norms > PRESENCE_NORM, norms


def normalize_words(residual_sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Unit residual of every present word: mask bool [W_in] and float32 [W, D]."""
  present, norms = present_words(residual_sums)
  return present, residual_sums[present] / norms[present, None]
