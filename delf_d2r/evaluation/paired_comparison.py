"""Two methods compared on the same queries: which queries gain, and whether the gain is significant."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from delf_d2r.evaluation.protocol import Metrics, ProtocolMetrics
from delf_d2r.evaluation.significance import Interval, bootstrap_interval

# Average precisions that differ by less are equal up to the rounding of a sum.
TIE = 1e-9


@dataclasses.dataclass(frozen=True)
class PairedComparison:
  """A method against a baseline under one protocol.

  Attributes:
    queries: Q names of the queries that have positives.
    baseline, other: float64 [Q], average precision of each method, fractions.
    interval: mean of `other - baseline` with its bootstrap interval.
  """

  queries: tuple[str, ...]
  baseline: np.ndarray
  other: np.ndarray
  interval: Interval

  @property
  def differences(self) -> np.ndarray:
    """float64 [Q], `other - baseline`."""
    return self.other - self.baseline

  @property
  def won(self) -> list[int]:
    """Positions of the queries that gain, the largest gain first; equal gains in the order of queries."""
    return self._beyond_tie(self.differences)

  @property
  def lost(self) -> list[int]:
    """Positions of the queries that lose, the largest loss first."""
    return self._beyond_tie(-self.differences)

  @property
  def tied(self) -> list[int]:
    """Positions of the queries with equal average precision, in the order of queries."""
    return np.flatnonzero(np.abs(self.differences) <= TIE).tolist()

  @property
  def is_significant(self) -> bool:
    """Whether 0 lies outside the interval; False if no query has positives."""
    return bool(self.interval.low > 0 or self.interval.high < 0)

  @staticmethod
  def _beyond_tie(gains: np.ndarray) -> list[int]:
    order = np.argsort(-gains, kind='stable')
    return order[gains[order] > TIE].tolist()


def compare(
  baseline: Metrics, other: Metrics, *, seed: int = 0, level: float = 0.95
) -> dict[str, PairedComparison]:
  """Returns the paired comparison of each protocol that both metrics have.

  Args:
    baseline, other: metrics of the same queries in any order, under the same ground truth.
    seed: of the bootstrap.
    level: confidence level of the interval.

  Raises:
    ValueError: the queries or their numbers of positives differ; the message names both values.
  """
  rows = _rows_of(baseline.query_names, other.query_names)
  found = {}
  for protocol in baseline.protocols.keys() & other.protocols.keys():
    first, second = baseline.protocols[protocol], other.protocols[protocol]
    _require_same_positives(protocol, baseline.query_names, first, second, rows)
    aps = first.average_precisions, second.average_precisions[rows]
    counted = np.flatnonzero(~np.isnan(aps[0]))
    names = tuple(baseline.query_names[row] for row in counted)
    interval = bootstrap_interval(aps[1], aps[0], seed=seed, level=level)
    found[protocol] = PairedComparison(names, aps[0][counted], aps[1][counted], interval)
  return {protocol: found[protocol] for protocol in baseline.protocols if protocol in found}


def _rows_of(wanted: Sequence[str], names: Sequence[str]) -> list[int]:
  """Returns the position of each of `wanted` in `names`."""
  row_of = {name: row for row, name in enumerate(names)}
  missing, more = sorted(set(wanted) - row_of.keys()), sorted(row_of.keys() - set(wanted))
  if missing or more:
    raise ValueError(
      f'{len(wanted)} queries in the first, {len(names)} in the second; {_few(missing)} only in the first,'
      f' {_few(more)} only in the second'
    )
  return [row_of[name] for name in wanted]


def _few(names: Sequence[str]) -> str:
  if not names:
    return 'none'
  return f'{", ".join(map(repr, names[:3]))}{f" and {len(names) - 3} more" if len(names) > 3 else ""}'


def _require_same_positives(
  protocol: str, names: Sequence[str], first: ProtocolMetrics, second: ProtocolMetrics, rows: Sequence[int]
) -> None:
  for name, query, row in zip(names, first.queries, rows, strict=True):
    other = second.queries[row]
    if query.num_positives != other.num_positives:
      raise ValueError(
        f'query {name!r} has {query.num_positives} positives ({protocol}) in the first,'
        f' {other.num_positives} in the second'
      )
