import numpy as np
import pytest

from delf_d2r.report.match_views import Choice, Pair, choose

LETTERS = {'r': 'right', 'w': 'wrong', 'j': 'junk', 'q': 'query'}


def chosen(*rankings, count=100, scores=None):
  labels = [np.array([LETTERS[letter] for letter in ranking], '<U5') for ranking in rankings]
  if scores is None:
    scores = [np.linspace(1, 0, len(ranking), dtype=np.float32) for ranking in rankings]
  return choose(labels, scores, count=count)


def test_nothing_to_choose_from():
  assert chosen() == chosen('') == chosen('jq') == chosen('rw', count=0) == Choice((), (), ())


def test_the_reasons():
  found = chosen('qrwjrww')
  assert found == Choice((Pair(0, 1),), (Pair(0, 2),), (Pair(0, 4),))


def test_a_perfect_ranking_has_no_failures():
  assert chosen('rrrwww') == Choice((Pair(0, 0),), (), ())


def test_a_query_whose_objects_are_not_ranked_at_all():
  assert chosen('jwww') == Choice((), (Pair(0, 1),), ())


def test_no_pair_is_chosen_twice():
  """The only right result, below a wrong one, is the first and the last; it is shown as the last."""
  assert chosen('wwr') == Choice((), (Pair(0, 0),), (Pair(0, 2),))


def test_most_telling_first():
  found = chosen('wrr', 'rwrr', 'rrwwwr')
  assert [pair.query for pair in found.first_right] == [1, 2, 0]
  assert [pair.query for pair in found.first_wrong] == [0, 1, 2]
  assert found.last_right == (Pair(2, 5), Pair(1, 3), Pair(0, 2))


def test_equal_ranks_stand_by_score_then_by_query():
  scores = [np.array(values, np.float32) for values in ([1, 0.5], [3, 0.5], [3, 0.5])]
  assert [pair.query for pair in chosen('rw', 'rw', 'rw', scores=scores).first_right] == [1, 2, 0]


@pytest.mark.parametrize('count', range(10))
def test_reasons_share_the_count_evenly(count):
  found = chosen('rwr', 'rwr', 'rwr', count=count)
  lengths = list(map(len, (found.first_right, found.first_wrong, found.last_right)))
  assert sum(lengths) == count
  assert max(lengths) - min(lengths) <= 1


def test_what_one_reason_lacks_is_left_to_the_others():
  found = chosen('rw', 'rw', 'rw', 'rwr', count=5)
  assert list(map(len, (found.first_right, found.first_wrong, found.last_right))) == [3, 1, 1]
