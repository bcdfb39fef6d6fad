"""Paired comparison: differences of queries, gains and losses by name, errors for different queries."""

import math

import numpy as np
import pytest

from delf_d2r.evaluation import paired_comparison
from delf_d2r.evaluation.protocol import Metrics, ProtocolMetrics, QueryMetrics
from delf_d2r.evaluation.significance import bootstrap_interval


def metrics(aps, *, positives=3, protocol='medium'):
  """Metrics of queries by name; None is a query without positives."""
  queries = tuple(
    QueryMetrics(math.nan, np.zeros(1), np.zeros(1), 0, 0)
    if ap is None
    else QueryMetrics(ap, np.zeros(1), np.zeros(1), positives, 0)
    for ap in aps.values()
  )
  return Metrics((1,), tuple(aps), {protocol: ProtocolMetrics((1,), queries)})


def names(comparison, positions):
  return [comparison.queries[position] for position in positions]


def test_differences_and_who_wins():
  first = metrics({'a': 0.5, 'b': 0.9, 'c': 0.2, 'd': None, 'e': 0.4, 'f': 0.4})
  second = metrics({'f': 0.4, 'e': 0.6, 'd': None, 'c': 0.7, 'b': 0.1, 'a': 0.5 + 1e-12})
  found = paired_comparison.compare(first, second)['medium']
  assert found.queries == ('a', 'b', 'c', 'e', 'f')
  np.testing.assert_allclose(found.differences, [0, -0.8, 0.5, 0.2, 0], atol=1e-9)
  assert names(found, found.won) == ['c', 'e']
  assert names(found, found.lost) == ['b']
  assert names(found, found.tied) == ['a', 'f']
  assert found.interval.mean == pytest.approx(-0.02)
  expected = bootstrap_interval([0.5, 0.1, 0.7, 0.6, 0.4], [0.5, 0.9, 0.2, 0.4, 0.4], seed=0)
  assert found.interval.low == pytest.approx(expected.low)
  assert found.interval.high == pytest.approx(expected.high)
  assert not found.is_significant


def test_a_gain_of_every_query_is_significant_and_swapping_swaps_it():
  first = metrics({f'q{i}': 0.1 * (i % 5) for i in range(20)})
  second = metrics({f'q{i}': 0.1 * (i % 5) + 0.05 + 0.01 * (i % 3) for i in range(20)})
  gain = paired_comparison.compare(first, second)['medium']
  loss = paired_comparison.compare(second, first)['medium']
  assert gain.is_significant
  assert loss.is_significant
  assert gain.interval.mean == pytest.approx(-loss.interval.mean)
  assert gain.won == loss.lost
  # Equal gains stay in the order of the queries.
  assert gain.won[:3] == [2, 5, 8]


def test_nothing_to_compare():
  found = paired_comparison.compare(metrics({'a': None}), metrics({'a': None}))['medium']
  assert (found.queries, found.won, found.lost, found.tied) == ((), [], [], [])
  assert math.isnan(found.interval.mean)
  assert not found.is_significant


def test_other_queries_are_refused_with_both():
  with pytest.raises(ValueError, match=r"2 queries in the first, 3 in the second; 'b' only in the f"):
    paired_comparison.compare(metrics({'a': 1, 'b': 1}), metrics({'a': 1, 'c': 1, 'd': 1}))


def test_another_ground_truth_is_refused_with_both():
  with pytest.raises(ValueError, match=r"'a' has 3 positives \(medium\) in the first, 4 in the second"):
    paired_comparison.compare(metrics({'a': 1}), metrics({'a': 1}, positives=4))


def test_protocols_that_one_lacks_are_left_out():
  assert not paired_comparison.compare(metrics({'a': 1}), metrics({'a': 1}, protocol='hard'))
