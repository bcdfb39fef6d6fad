"""The Revisited protocol: metrics of rankings under a ground truth.

One annotation defines three tasks (Radenovic et al., CVPR 2018, section 3; docs/reference.md 4.8):

  protocol   positives     junk
  easy       easy          junk, hard
  medium     easy, hard    junk
  hard       hard          junk, easy

Junk images are removed from the ranking before anything is measured. A query without positives in a protocol
is NaN there and does not count in its means.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from delf_d2r.data.ground_truth.ground_truth import ResolvedQuery
from delf_d2r.evaluation.average_precision import average_precision

KS = (1, 5, 10)

_PROTOCOLS = {
  'easy': (('easy',), ('junk', 'hard')),
  'medium': (('easy', 'hard'), ('junk',)),
  'hard': (('hard',), ('junk', 'easy')),
}
PROTOCOLS = tuple(_PROTOCOLS)


@dataclasses.dataclass(frozen=True)
class QueryMetrics:
  """Metrics of one query under one protocol, as fractions; NaN where there are no positives.

  Attributes:
    average_precision: AP.
    precision: float64 [len(ks)], precision at k.
    recall: float64 [len(ks)], recall at k.
    num_positives: number of positives that exist.
    num_missing: number of positives that the ranking does not hold; they add 0 to AP.
  """

  average_precision: float
  precision: np.ndarray
  recall: np.ndarray
  num_positives: int
  num_missing: int


@dataclasses.dataclass(frozen=True)
class ProtocolMetrics:
  """Metrics of Q queries under one protocol, as fractions; the means are over queries with positives."""

  ks: tuple[int, ...]
  queries: tuple[QueryMetrics, ...]

  @property
  def average_precisions(self) -> np.ndarray:
    """float64 [Q], AP of each query; NaN where there are no positives."""
    return np.array([query.average_precision for query in self.queries], np.float64)

  @property
  def mean_average_precision(self) -> float:
    """mAP; NaN if no query has positives."""
    counted = [query.average_precision for query in self._counted]
    return float(np.mean(counted)) if counted else float('nan')

  @property
  def mean_precision(self) -> np.ndarray:
    """float64 [len(ks)], mP@k; NaN if no query has positives."""
    return self._mean([query.precision for query in self._counted])

  @property
  def mean_recall(self) -> np.ndarray:
    """float64 [len(ks)], mR@k; NaN if no query has positives."""
    return self._mean([query.recall for query in self._counted])

  @property
  def num_queries(self) -> int:
    """Number of queries with positives, over which the means are taken."""
    return len(self._counted)

  @property
  def num_missing(self) -> int:
    """Number of positives of all queries that the rankings do not hold; 0 for full rankings."""
    return sum(query.num_missing for query in self.queries)

  @property
  def _counted(self) -> list[QueryMetrics]:
    return [query for query in self.queries if query.num_positives]

  def _mean(self, values: list[np.ndarray]) -> np.ndarray:
    return np.mean(values, axis=0) if values else np.full(len(self.ks), np.nan)


@dataclasses.dataclass(frozen=True)
class Metrics:
  """The result of an evaluation.

  Attributes:
    ks: the ranks of precision and recall at k.
    query_names: Q names.
    protocols: `easy`, `medium` and `hard`, each with Q queries in the order of the names.
  """

  ks: tuple[int, ...]
  query_names: tuple[str, ...]
  protocols: Mapping[str, ProtocolMetrics]

  @property
  def mean_average_precision(self) -> float:
    """mAP of the medium protocol: easy and hard positives count, junk is left out; NaN without positives."""
    return self.protocols['medium'].mean_average_precision


def evaluate(
  rankings: Sequence[np.ndarray], queries: Sequence[ResolvedQuery], ks: Sequence[int] = KS
) -> Metrics:
  """Evaluates one ranking for each query under the three protocols.

  Args:
    rankings: Q integer arrays, image ids best first: all index images, or the best of them.
    queries: Q queries with image ids.
    ks: ranks for precision and recall at k.

  Raises:
    ValueError: the numbers of rankings and queries differ, a ranking repeats an id, or an image is both
      positive and junk in a ground truth. The message names the query.
  """
  if len(rankings) != len(queries):
    raise ValueError(f'expected one ranking for each of the {len(queries)} queries, found {len(rankings)}')
  ks = tuple(np.asarray(ks).tolist())
  protocols = {}
  for protocol in PROTOCOLS:
    metrics = []
    for ranked_ids, query in zip(rankings, queries, strict=True):
      try:
        metrics.append(evaluate_query(ranked_ids, *positives_and_junk(query, protocol), ks))
      except ValueError as error:
        raise ValueError(f'query {query.name!r}: {error}') from error
    protocols[protocol] = ProtocolMetrics(ks, tuple(metrics))
  return Metrics(ks, tuple(query.name for query in queries), protocols)


def positives_and_junk(query: ResolvedQuery, protocol: str) -> tuple[np.ndarray, np.ndarray]:
  """Returns the positives int64 [P] and the junk int64 [J] of `query` under `easy`, `medium` or `hard`."""
  positives, junk = (
    np.concatenate([getattr(query, label) for label in labels]) for labels in _PROTOCOLS[protocol]
  )
  return positives, junk


def evaluate_query(
  ranked_ids: np.ndarray, positives: np.ndarray, junk: np.ndarray, ks: Sequence[int] = KS
) -> QueryMetrics:
  """Returns the metrics of one ranking.

  With n positives and r their 1-based ranks after junk is removed, precision at k is #(r <= k') / k' with
  k' = min(max r, k), so that a perfect ranking of n < k positives scores 1. Recall at k is #(r <= k) / n. A
  positive that the ranking does not hold counts as if it came after the last rank. A ranking that is cut
  after rank k therefore has the same precision and recall at k as the full one, and its AP is a lower bound.

  Args:
    ranked_ids: integers [L], distinct, best first.
    positives, junk: integers [P], [J], disjoint.
    ks: ranks from 1.

  Raises:
    ValueError: an id occurs twice in the ranking or in the positives, an id is both positive and junk, or a
      k is below 1.
  """
  ranked_ids = _distinct_ids(ranked_ids, 'the ranking')
  positives = _distinct_ids(positives, 'the positives')
  junk = np.asarray(junk).astype(np.int64)
  both = np.intersect1d(positives, junk)
  if len(both):
    raise ValueError(f'expected positives and junk to be disjoint, found images {both[:5].tolist()} in both')
  ranks_at = np.asarray(ks)
  if ranks_at.ndim != 1 or ranks_at.dtype.kind != 'i' or np.any(ranks_at < 1):
    raise ValueError(f'expected ks to be whole numbers from 1, found {ranks_at.tolist()}')

  n = len(positives)
  if n == 0:
    undefined = np.full(len(ranks_at), np.nan)
    return QueryMetrics(float('nan'), undefined, undefined, 0, 0)
  kept = ranked_ids[~np.isin(ranked_ids, junk)]
  ranks = np.flatnonzero(np.isin(kept, positives))
  num_missing = n - len(ranks)
  found_at_k = np.searchsorted(ranks, ranks_at, side='left')  # 0-based rank < k is 1-based rank <= k.
  depth = ranks_at if num_missing else np.minimum(ranks_at, ranks[-1] + 1)
  return QueryMetrics(
    average_precision(ranks, n), found_at_k / depth, found_at_k / n, num_positives=n, num_missing=num_missing
  )


def _distinct_ids(ids: np.ndarray, what: str) -> np.ndarray:
  ids = np.asarray(ids)
  if ids.ndim != 1 or (ids.size and ids.dtype.kind not in 'iu'):
    raise ValueError(f'expected {what} to be a list of whole numbers, found {ids.dtype} {ids.shape}')
  ids = ids.astype(np.int64)
  values, counts = np.unique(ids, return_counts=True)
  if len(values) and values[0] < 0:
    raise ValueError(f'expected image ids from 0 in {what}, found {values[0]}')
  if len(values) < len(ids):
    repeated = values[counts > 1]
    raise ValueError(f'expected each image once in {what}, found {repeated[:5].tolist()} more than once')
  return ids
