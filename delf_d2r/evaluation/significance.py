"""Bootstrap confidence intervals of a mean, or of a difference of means, over queries."""

import dataclasses

import numpy as np

_RESAMPLED_VALUES_AT_ONCE = 2**20


@dataclasses.dataclass(frozen=True)
class Interval:
  """A mean with its confidence interval.

  Attributes:
    mean: over the queries with a value.
    low, high: ends of the interval.
    level: its confidence level, for example 0.95.
    num_queries: number of queries with a value.
  """

  mean: float
  low: float
  high: float
  level: float
  num_queries: int


def bootstrap_interval(
  per_query_ap_a: np.ndarray,
  per_query_ap_b: np.ndarray | None = None,
  *,
  seed: int,
  samples: int = 10_000,
  level: float = 0.95,
) -> Interval:
  """Returns the mean of A, or of the paired differences A - B, with a percentile bootstrap interval.

  Queries are drawn with replacement. A and B are compared query by query, so that the spread between easy
  and hard queries does not hide a difference that nearly all of them share (Sakai, SIGIR 2006; Efron and
  Tibshirani 1993, section 13.3). If the interval of the differences excludes 0, the difference is significant
  at 1 - level.

  Args:
    per_query_ap_a: float [Q], NaN for a query without positives.
    per_query_ap_b: float [Q], the same queries under the other method; a query that is NaN in either is
      left out.
    seed: of the resampling; the same seed gives the same interval.
    samples: number of bootstrap samples.
    level: in (0, 1).

  Returns:
    The interval; its mean and ends are NaN if no query has a value.

  Raises:
    ValueError: A and B differ in length, or `samples` or `level` is out of range.
  """
  values = np.asarray(per_query_ap_a, np.float64)
  if per_query_ap_b is not None:
    other = np.asarray(per_query_ap_b, np.float64)
    if values.shape != other.shape:
      raise ValueError(f'expected the same queries in A and B, found {values.shape} and {other.shape}')
    values = values - other
  if samples < 1 or not 0 < level < 1:
    raise ValueError(f'expected samples >= 1 and 0 < level < 1, found {samples} and {level}')
  values = values[~np.isnan(values)]
  if not len(values):
    return Interval(np.nan, np.nan, np.nan, level, 0)
  tail = (1 - level) / 2
  low, high = np.quantile(_resampled_means(values, samples, seed), [tail, 1 - tail])
  return Interval(float(np.mean(values)), float(low), float(high), level, len(values))


def _resampled_means(values: np.ndarray, samples: int, seed: int) -> np.ndarray:
  """Returns the means float64 [samples], computed in batches of bounded memory."""
  rng = np.random.default_rng(seed)
  batch = max(1, _RESAMPLED_VALUES_AT_ONCE // len(values))
  sizes = [min(batch, samples - start) for start in range(0, samples, batch)]
  drawn = (values[rng.integers(len(values), size=(size, len(values)))] for size in sizes)
  return np.concatenate([np.mean(sample, axis=1) for sample in drawn])
