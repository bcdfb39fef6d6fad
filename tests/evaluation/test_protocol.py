import math
import pathlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import evaluation_oracle

from delf_d2r.data.ground_truth import ground_truth
from delf_d2r.data.ground_truth.ground_truth import ResolvedQuery
from delf_d2r.evaluation import protocol

REVISITED = pathlib.Path(__file__).resolve().parents[3] / 'shared/data/revisited_ground_truth'
needs_revisited = pytest.mark.skipif(
  not REVISITED.is_dir(), reason='../shared/data is not beside the checkout'
)
NAN3 = [math.nan] * 3


def ids(*values):
  return np.array(values, np.int64)


def query(name, easy=(), hard=(), junk=()):
  return ResolvedQuery(name, ids(*easy), ids(*hard), ids(*junk))


def test_no_queries():
  metrics = protocol.evaluate([], [])
  for values in metrics.protocols.values():
    assert values.num_queries == 0
    assert math.isnan(values.mean_average_precision)
    assert values.average_precisions.shape == (0,)


def test_empty_ranking_scores_zero():
  result = protocol.evaluate_query([], ids(3, 4), ids(5))
  assert (result.average_precision, result.num_positives, result.num_missing) == (0, 2, 2)
  np.testing.assert_array_equal(result.precision, [0, 0, 0])
  np.testing.assert_array_equal(result.recall, [0, 0, 0])


def test_no_positives_is_nan():
  result = protocol.evaluate_query(ids(0, 1), ids(), ids(0))
  assert math.isnan(result.average_precision)
  np.testing.assert_array_equal(result.precision, NAN3)
  np.testing.assert_array_equal(result.recall, NAN3)
  assert (result.num_positives, result.num_missing) == (0, 0)


def test_all_retrieved_is_junk():
  result = protocol.evaluate_query(ids(0, 1), ids(2), ids(0, 1))
  assert (result.average_precision, result.num_missing) == (0, 1)


def test_one_query_by_hand():
  # Without junk 9 and 8: 4, 0, 5, 1, 2; the positives 0 and 2 have ranks 2 and 5.
  result = protocol.evaluate_query(ids(9, 4, 0, 8, 5, 1, 2), ids(2, 0), ids(8, 9), ks=(1, 2, 5, 10))
  assert result.average_precision == pytest.approx(((0 / 1 + 1 / 2) / 2 + (1 / 4 + 2 / 5) / 2) / 2)
  np.testing.assert_allclose(result.precision, [0, 1 / 2, 2 / 5, 2 / 5])
  np.testing.assert_allclose(result.recall, [0, 1 / 2, 1, 1])


def test_precision_stops_at_the_last_positive():
  result = protocol.evaluate_query(ids(0, 3, 1, 2), ids(0), ids())
  np.testing.assert_array_equal(result.precision, [1, 1, 1])
  # A missing positive counts as if it came after the end, so that k is not reduced.
  result = protocol.evaluate_query(ids(0, 3, 1, 2), ids(0, 7), ids())
  np.testing.assert_array_equal(result.precision, [1, 1 / 5, 1 / 10])
  np.testing.assert_array_equal(result.recall, [1 / 2, 1 / 2, 1 / 2])


def test_test_vectors_of_the_research_code():
  rankings = [ids(4, 2, 0, 1, 3), ids(0, 2, 4, 1, 3), ids(0, 1, 2, 3, 4)]
  queries = [query('a', easy=(0, 1), junk=(2,)), query('b', easy=(0, 4)), query('c')]
  metrics = protocol.evaluate(rankings, queries, ks=(1, 2, 5)).protocols['medium']
  assert metrics.mean_average_precision == pytest.approx(0.604167, abs=1e-6)
  np.testing.assert_allclose(metrics.mean_precision, [0.5, 0.5, 0.666667], atol=1e-6)
  np.testing.assert_allclose(metrics.mean_recall, [0.25, 0.5, 1.0])
  np.testing.assert_allclose(metrics.average_precisions, [0.416667, 0.791667, np.nan], atol=1e-6)
  np.testing.assert_allclose(metrics.queries[0].precision, [0, 0.5, 0.666667], atol=1e-6)
  np.testing.assert_allclose(metrics.queries[1].precision, [1, 0.5, 0.666667], atol=1e-6)
  np.testing.assert_array_equal(metrics.queries[2].precision, NAN3)
  np.testing.assert_allclose(metrics.queries[0].recall, [0, 0.5, 1])
  np.testing.assert_allclose(metrics.queries[1].recall, [0.5, 0.5, 1])
  assert metrics.num_queries == 2


def test_protocols_split_as_in_the_research_code():
  example = query('q', easy=(10, 56, 100), hard=(0,), junk=(6, 90))
  expected = {
    'easy': ((10, 56, 100), (6, 90, 0)),
    'medium': ((10, 56, 100, 0), (6, 90)),
    'hard': ((0,), (6, 90, 10, 56, 100)),
  }
  assert tuple(expected) == protocol.PROTOCOLS
  for name, (positives, junk) in expected.items():
    found = protocol.positives_and_junk(example, name)
    np.testing.assert_array_equal(found[0], positives)
    np.testing.assert_array_equal(found[1], junk)


def test_three_protocols_of_one_ranking_by_hand():
  # easy 0, hard 1, junk 2, negative 3; ranking 2 1 3 0.
  metrics = protocol.evaluate([ids(2, 1, 3, 0)], [query('q', (0,), (1,), (2,))], ks=(1,))
  found = {name: values.mean_average_precision for name, values in metrics.protocols.items()}
  assert found['easy'] == pytest.approx((0 / 1 + 1 / 2) / 2)  # 3 0
  assert found['medium'] == pytest.approx((1 + (1 / 2 + 2 / 3) / 2) / 2)  # 1 3 0
  assert found['hard'] == 1  # 1 3


@st.composite
def cases(draw):
  num_images = draw(st.integers(1, 40))
  ranking = draw(st.permutations(range(num_images)))
  labels = draw(st.lists(st.sampled_from('ehjn'), min_size=num_images, max_size=num_images))
  split = {label: [i for i in range(num_images) if labels[i] == label] for label in 'ehj'}
  return np.array(ranking), query('q', split['e'], split['h'], split['j'])


@given(cases())
def test_full_rankings_equal_the_definition(case):
  ranking, labelled = case
  metrics = protocol.evaluate([ranking], [labelled])
  for name, values in metrics.protocols.items():
    lists = evaluation_oracle.positives_and_junk(labelled.easy, labelled.hard, labelled.junk, name)
    assert values.num_queries == bool(lists[0])
    assert values.num_missing == 0
    if lists[0]:
      expected = evaluation_oracle.average_precision(ranking, *lists)
      assert values.mean_average_precision == pytest.approx(expected, abs=1e-12)
      for j, k in enumerate(metrics.ks):
        assert values.mean_precision[j] == evaluation_oracle.precision_at(ranking, *lists, k)
        assert values.mean_recall[j] == evaluation_oracle.recall_at(ranking, *lists, k)


@given(cases(), st.data())
def test_a_cut_ranking_gives_a_lower_bound_and_exact_values_above_the_cut(case, data):
  ranking, labelled = case
  positives, junk = protocol.positives_and_junk(labelled, 'medium')
  if not len(positives):
    return
  cut = data.draw(st.integers(0, len(ranking)))
  depth = int(np.sum(~np.isin(ranking[:cut], junk)))
  full = protocol.evaluate_query(ranking, positives, junk)
  short = protocol.evaluate_query(ranking[:cut], positives, junk)
  assert short.average_precision <= full.average_precision
  assert short.num_missing == np.sum(np.isin(ranking[cut:], positives))
  assert short.average_precision == pytest.approx(
    evaluation_oracle.average_precision(ranking[:cut], positives, junk), abs=1e-12
  )
  for j, k in enumerate(protocol.KS):
    if k <= depth:
      assert (short.precision[j], short.recall[j]) == (full.precision[j], full.recall[j])


@pytest.mark.parametrize(
  ('ranking', 'labelled', 'message'),
  [
    (ids(3, 1, 3), query('clock', (1,)), r"query 'clock': .*once in the ranking, found \[3\]"),
    (ids(-1, 1), query('clock', (1,)), "query 'clock': .*from 0 in the ranking, found -1"),
    (np.array([0.0, 1.0]), query('clock', (1,)), "query 'clock': .*whole numbers, found float64"),
    (np.int64(1), query('clock', (1,)), r"query 'clock': .*a list of whole numbers, found int64 \(\)"),
    (ids(0, 1), query('clock', (1, 1)), r'once in the positives, found \[1\]'),
    (ids(0, 1), query('clock', (1,), (), (1,)), r'disjoint, found images \[1\]'),
  ],
)
def test_bad_input_is_refused(ranking, labelled, message):
  with pytest.raises(ValueError, match=message):
    protocol.evaluate([ranking], [labelled])


@pytest.mark.parametrize('ks', [(0, 1), (1.5,), ()])
def test_bad_ks_are_refused(ks):
  with pytest.raises(ValueError, match='ks to be whole numbers from 1'):
    protocol.evaluate_query(ids(0), ids(0), ids(), ks)


def test_one_ranking_for_each_query():
  with pytest.raises(ValueError, match='each of the 2 queries, found 1'):
    protocol.evaluate([ids(0)], [query('a'), query('b')])


@pytest.fixture(scope='module', params=['roxford5k', 'rparis6k'])
def revisited(request):
  truth = ground_truth.load(REVISITED / f'gnd_{request.param}.pkl')
  return truth, ground_truth.resolve(truth, truth.index_images)


def perfect_ranking(labelled, num_images):
  """Junk first, then easy, hard and the rest."""
  head = np.concatenate([labelled.junk, labelled.easy, labelled.hard])
  return np.concatenate([head, np.setdiff1d(np.arange(num_images), head)])


@needs_revisited
def test_perfect_rankings_of_revisited_score_one(revisited):
  truth, queries = revisited
  # Images that are junk under a protocol make no difference at any rank.
  metrics = protocol.evaluate([perfect_ranking(q, len(truth.index_images)) for q in queries], queries)
  for name, values in metrics.protocols.items():
    positives = [protocol.positives_and_junk(q, name)[0] for q in queries]
    assert values.mean_average_precision == 1
    np.testing.assert_array_equal(values.mean_precision, [1, 1, 1])
    expected = np.mean([[min(1, k / len(p)) for k in protocol.KS] for p in positives if len(p)], axis=0)
    np.testing.assert_allclose(values.mean_recall, expected)


@needs_revisited
def test_queries_without_easy_positives_do_not_count(revisited):
  truth, queries = revisited
  rankings = [np.arange(len(truth.index_images))] * len(queries)
  metrics = protocol.evaluate(rankings, queries)
  found = {name: values.num_queries for name, values in metrics.protocols.items()}
  assert found == {'easy': 68 if truth.name == 'roxford5k' else 70, 'medium': 70, 'hard': 70}


@needs_revisited
@pytest.mark.parametrize('order', ['reversed', 'random', 'cut'])
def test_rankings_of_revisited_equal_the_definition(revisited, order):
  truth, queries = revisited
  rng = np.random.default_rng(20180622)
  rankings, chosen = [], queries[::7]
  for labelled in chosen:
    ranking = perfect_ranking(labelled, len(truth.index_images))
    if order == 'reversed':
      ranking = ranking[::-1]
    else:  # Shuffled, the positives more likely near the head.
      ranking = ranking[np.argsort(np.arange(len(ranking)) + rng.normal(scale=300, size=len(ranking)))]
    rankings.append(ranking[:100] if order == 'cut' else ranking)
  metrics = protocol.evaluate(rankings, chosen)
  for name, values in metrics.protocols.items():
    expected = []
    for ranking, q in zip(rankings, chosen, strict=True):
      positives, junk = evaluation_oracle.positives_and_junk(q.easy, q.hard, q.junk, name)
      if positives:
        expected.append(evaluation_oracle.average_precision(ranking.tolist(), positives, junk))
    assert values.mean_average_precision == pytest.approx(np.mean(expected), abs=1e-12)
    assert 0 < values.mean_average_precision < 1
