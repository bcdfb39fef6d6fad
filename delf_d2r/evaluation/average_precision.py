"""Average precision by the definition of Oxford5k, Paris6k and Revisited."""

import numpy as np


def average_precision(positive_ranks: np.ndarray, num_positives: int | None = None) -> float:
  """Returns the area under the precision-recall curve by the trapezoidal rule.

    AP = 1 / n * sum over i of (i / r_i + (i + 1) / (r_i + 1)) / 2,   with 0 / 0 = 1

  where r_i is the 0-based rank of the i-th positive (i from 0), so that each positive adds the mean of the
  precision just before and just after it. This is not the finite sum of the information retrieval
  literature. Philbin et al., CVPR 2007; Radenovic et al., CVPR 2018, section 4; docs/reference.md 4.8.

  Args:
    positive_ranks: integers [P], 0-based ranks of the positives that were found, ascending and distinct;
      junk images are not counted.
    num_positives: n, the number of positives that exist; those that were not found add 0. None: P.

  Returns:
    AP in [0, 1]; NaN if there are no positives.

  Raises:
    ValueError: ranks are negative or not ascending, or there are more of them than positives.
  """
  ranks = np.asarray(positive_ranks, np.int64)
  n = len(ranks) if num_positives is None else num_positives
  if len(ranks) > n:
    raise ValueError(f'expected at most num_positives = {n} ranks, found {len(ranks)}')
  if np.any(ranks[:1] < 0) or np.any(np.diff(ranks) <= 0):
    raise ValueError(f'expected ranks that ascend from 0 or later, found {ranks[:10].tolist()}')
  if n == 0:
    return float('nan')
  found = np.arange(len(ranks))
  before = np.where(ranks == 0, 1.0, found / np.maximum(ranks, 1))
  after = (found + 1) / (ranks + 1)
  return float(np.sum(before + after) / (2 * n))
