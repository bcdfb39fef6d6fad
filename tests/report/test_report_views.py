import numpy as np
import pytest

from delf_d2r.report import views


@pytest.mark.parametrize(
  'labels, expected',
  [
    ((), False),
    (('right', 'right'), False),
    (('right', 'wrong'), False),
    (('wrong', 'right'), True),
    (('right', 'wrong', 'right'), True),
    (('wrong', 'wrong'), True),
    (('query', 'junk', 'right', 'junk', 'wrong'), False),
    (('junk',), False),
    ((None, None), False),
  ],
)
def test_misranks(make_query, make_result, labels, expected):
  query = make_query(results=[make_result(rank, label=label) for rank, label in enumerate(labels, start=1)])
  assert query.has_misranking is expected


def test_is_labelled(make_query, make_result):
  assert not make_query(results=[make_result()]).is_labelled
  assert make_query(results=[make_result(label='junk')]).is_labelled
  assert make_query(precision={'easy': None}).is_labelled


def test_result_refuses_unknown_label(make_result):
  with pytest.raises(ValueError, match=r"a\.jpg: expected a label of .*, found 'good'"):
    make_result(name='a.jpg', label='good')


def test_result_refuses_boxes_of_another_shape():
  with pytest.raises(ValueError, match=r'expected boxes of shape \(R, 4\), found \(4,\)'):
    views.ResultView('a.jpg', None, 0.0, None, np.zeros(4, np.float32), -1, 1)


@pytest.mark.parametrize('best_region', [-2, 2])
def test_result_refuses_a_region_that_is_not_there(make_result, best_region):
  with pytest.raises(ValueError, match=f'number of boxes \\(1\\), found {best_region}'):
    make_result(boxes=[[0, 0, 1, 1]], best_region=best_region)


def test_table_refuses_rows_of_another_length():
  with pytest.raises(ValueError, match='expected 2 cells'):
    views.TableView(('a', 'b'), ((1,),))
