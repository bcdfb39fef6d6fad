import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import evaluation_oracle

from delf_d2r.evaluation.average_precision import average_precision


def test_no_positives_is_nan():
  assert math.isnan(average_precision([]))


def test_nothing_found_is_zero():
  assert average_precision([], 3) == 0


@pytest.mark.parametrize(
  ('ranks', 'num_positives', 'expected'),
  [
    ([0], None, 1.0),
    ([0, 1, 2], None, 1.0),
    ([1], None, (0 / 1 + 1 / 2) / 2),
    ([3], None, (0 / 3 + 1 / 4) / 2),
    ([0, 2, 5], None, 0.677778),  # From the tests of the DELF code (docs/reference.md 4.8).
    ([0, 3], None, (1 + (1 / 3 + 2 / 4) / 2) / 2),
    ([0], 4, 1 / 4),
    ([1, 2], 4, ((0 / 1 + 1 / 2) + (1 / 2 + 2 / 3)) / 2 / 4),
  ],
)
def test_cases_by_hand(ranks, num_positives, expected):
  assert average_precision(ranks, num_positives) == pytest.approx(expected, abs=1e-6)


@given(st.sets(st.integers(0, 300), min_size=1, max_size=40), st.integers(0, 5))
def test_equals_the_definition(ranks, num_missing):
  positives = sorted(ranks) + list(range(1000, 1000 + num_missing))
  expected = evaluation_oracle.average_precision(range(301), positives, junk=[])
  assert average_precision(sorted(ranks), len(positives)) == pytest.approx(expected, abs=1e-12)


def test_a_better_rank_is_worth_more():
  values = [average_precision([0, rank]) for rank in range(1, 50)]
  assert values == sorted(values, reverse=True)
  assert len(set(values)) == len(values)


@pytest.mark.parametrize('ranks', [[1, 0], [2, 2], [-1, 3]])
def test_ranks_out_of_order_are_refused(ranks):
  with pytest.raises(ValueError, match='ascend'):
    average_precision(ranks)


def test_more_ranks_than_positives_are_refused():
  with pytest.raises(ValueError, match='num_positives = 1 ranks, found 2'):
    average_precision([0, 1], 1)
