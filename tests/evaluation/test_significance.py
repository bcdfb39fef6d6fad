import math

import numpy as np
import pytest

from delf_d2r.evaluation.significance import bootstrap_interval


def test_no_query_counts():
  interval = bootstrap_interval([], seed=1)
  assert interval.num_queries == 0
  assert math.isnan(interval.mean)
  assert bootstrap_interval([math.nan], [0.5], seed=1).num_queries == 0


def test_one_query_has_no_spread():
  interval = bootstrap_interval([0.25], seed=1, samples=10)
  assert (interval.mean, interval.low, interval.high) == (0.25, 0.25, 0.25)


def test_one_sample_has_no_spread():
  interval = bootstrap_interval([0.25, 0.5, 1.0], seed=1, samples=1)
  assert interval.low == interval.high


def test_the_same_seed_gives_the_same_interval():
  values = np.random.default_rng(0).random(70)
  assert bootstrap_interval(values, seed=5) == bootstrap_interval(values, seed=5)
  assert bootstrap_interval(values, seed=5) != bootstrap_interval(values, seed=6)


def test_pairing_sees_a_small_difference_that_all_queries_share():
  rng = np.random.default_rng(0)
  b = rng.random(70)
  a = b + 0.02 + rng.normal(scale=0.01, size=70)
  paired = bootstrap_interval(a, b, seed=1)
  assert paired.mean == pytest.approx(np.mean(a - b))
  assert 0 < paired.low < paired.mean < paired.high
  alone = bootstrap_interval(a, seed=1), bootstrap_interval(b, seed=1)
  assert alone[0].low < alone[1].high  # Unpaired, the intervals overlap.


def test_a_method_against_itself_is_exactly_zero():
  values = np.random.default_rng(0).random(30)
  interval = bootstrap_interval(values, values, seed=1)
  assert (interval.mean, interval.low, interval.high) == (0, 0, 0)


def test_queries_that_are_nan_in_either_are_left_out():
  interval = bootstrap_interval([0.5, math.nan, 0.25, 1.0], [0.25, 0.5, math.nan, 0.5], seed=1)
  assert interval.num_queries == 2
  assert interval.mean == pytest.approx((0.25 + 0.5) / 2)


def test_width_follows_the_standard_error():
  values = np.random.default_rng(3).normal(0.5, 0.1, size=400)
  interval = bootstrap_interval(values, seed=1, level=0.95)
  standard_error = np.std(values) / math.sqrt(len(values))
  assert interval.high - interval.low == pytest.approx(2 * 1.96 * standard_error, rel=0.05)


def test_the_interval_covers_the_truth_as_often_as_it_says():
  rng = np.random.default_rng(7)
  covered = 0
  for seed in range(200):
    interval = bootstrap_interval(rng.random(60), seed=seed, samples=500, level=0.8)
    covered += interval.low <= 0.5 <= interval.high
  assert 0.7 < covered / 200 < 0.9


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'per_query_ap_b': [0.5, 0.5]}, r'found \(3,\) and \(2,\)'),
    ({'per_query_ap_b': [0.5, 0.5, 0.5, 0.5]}, r'found \(3,\) and \(4,\)'),
    ({'samples': 0}, 'found 0 and 0.95'),
    ({'level': -0.5}, 'found 10000 and -0.5'),
    ({'level': 1.0}, 'found 10000 and 1.0'),
  ],
)
def test_bad_arguments_are_refused(arguments, message):
  with pytest.raises(ValueError, match=message):
    bootstrap_interval([0.1, 0.2, 0.3], seed=1, **arguments)
