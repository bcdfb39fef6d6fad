"""Regional aggregation: the residual sums of all regions become those of the image.

  R-V_k = sum over r of V_rk / ||V_r||        (R-VLAD; without normalisation divided by R)

Teichmann et al., "Detect-to-Retrieve: Efficient Regional Aggregation for Image Search", CVPR 2019:
VLAD of each region first, then sum pooling; the normalisation of each word (R-ASMK) and
the signs (R-ASMK*) follow as for one region. ||V_r|| runs over all words of region r, so a region
of few words weighs more in each of them.
"""

import numpy as np

from delf_d2r.kernels.compiled import HAVE_NUMBA, njit
from delf_d2r.kernels.vlad import ResidualSums, l2_norms, row_squared_norms, run_starts, sum_runs


def pool_regions(blocks: ResidualSums, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
  """Mean over the regions of their L2-normalised VLADs (docs/reference.md 2.4, not normalised).

  The mean is over all R regions, empty ones included. Rows are added in order of region.

  Args:
    blocks: the residual sums of R regions.
    weights: float [R], positive: what each region's VLAD is multiplied by; None: 1.

  Returns:
    words int64 [W], ascending, and float32 [W, D], R-V_k / R.
  """
  squared_norms = np.bincount(blocks.regions, row_squared_norms(blocks.sums), minlength=blocks.num_regions)
  norms = l2_norms(squared_norms)
  if weights is not None:
    norms = (norms / weights).astype(norms.dtype)
  divisors = norms[blocks.regions]
  starts = run_starts(blocks.words)
  pool = _pool_compiled if HAVE_NUMBA else _pool_numpy
  pooled = pool(blocks.sums, divisors, starts, np.float32(max(blocks.num_regions, 1)))
  return blocks.words[starts[:-1]], pooled


def _pool_numpy(sums, divisors, starts, num_regions):
  return sum_runs(sums / divisors[:, None], starts) / num_regions


@njit(error_model='numpy')  # a check for division by zero would keep the loop from being vectorised
def _pool_compiled(sums, divisors, starts, num_regions):
  dimensions = sums.shape[1]
  pooled = np.zeros((len(starts) - 1, dimensions), np.float32)
  for word in range(len(pooled)):
    for block in range(starts[word], starts[word + 1]):
      divisor = divisors[block]
      for d in range(dimensions):
        pooled[word, d] += sums[block, d] / divisor
    for d in range(dimensions):
      pooled[word, d] /= num_regions
  return pooled
