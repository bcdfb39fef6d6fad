import dataclasses

import numpy as np
import pytest

from delf_d2r.report import parts, scores
from delf_d2r.report.views import TableView


@pytest.mark.parametrize(
  'seconds, expected',
  [
    (0.0, '0 µs'),
    (0.000123, '123 µs'),
    (0.0009996, '1 ms'),
    (0.0123, '12.3 ms'),
    (0.9996, '1 s'),
    (12.34, '12.3 s'),
    (99.97, '100 s'),
    (1234.5, '1234 s'),
  ],
)
def test_duration(seconds, expected):
  assert parts.duration(seconds) == expected


def test_per_cent():
  assert [parts.per_cent(value) for value in (0.8564, 1.0, 0.0, None)] == ['85.6', '100.0', '0.0', '\u2013']


def test_table_cells(parse):
  view = TableView(
    ('<Method>', 'mAP', 'bytes', 'time', 'note'),
    (('a & b', 85.64, 14820, '12.1 ms', 'x'), ('c', np.float32(100.0), np.int64(7), None, '3')),
    'Caption',
  )
  page = parse(parts.table(view))
  assert [th.get('class') for th in page.all('th', scope='col')] == [None, 'number', 'number', 'number', None]
  assert page.text == 'Caption<Method>mAPbytestimenotea & b85.6414,82012.1 msxc100.07\u20133'


def test_table_without_rows(parse):
  page = parse(parts.table(TableView(('a', 'b'), ())))
  assert page.text == 'ab'
  assert page.all('th', class_='number') == []


@pytest.mark.parametrize(
  'scores, expected',
  [
    ((0.4, 0.03), ['0.4000', '0.0300']),
    ((123.4, 7.0), ['123.4', '7.0']),
    ((4321.0, 2.0), ['4321', '2']),
    ((0.00012345, 0.0), ['0.0001234', '0.0000000']),
    ((0.0,), ['0.0000']),
    ((float('nan'), 0.5), ['nan', '0.5000']),
    ((-0.5,), ['-0.5000']),
  ],
)
def test_scores_of_a_list_align(make_query, make_result, parse, scores, expected):
  results = [make_result(rank, score=score) for rank, score in enumerate(scores, start=1)]
  body = parts.query_body(make_query(results=results), parts.PhotoSheet())
  shown = [piece.split('<')[0] for piece in body.split('class="score">')[1:]]
  assert shown == expected


def test_labels_are_words_signs_and_frames(make_query, make_result, parse):
  labels = ('right', 'wrong', 'junk', 'query', None)
  results = [make_result(rank, label=label) for rank, label in enumerate(labels, start=1)]
  page = parse(parts.query_body(make_query(results=results), parts.PhotoSheet()))
  assert [item['class'] for item in page.all('li')] == ['right', 'wrong', 'junk', 'query', 'unlabelled']
  for words in ('✓ right', '✕ wrong', '○ junk', '◆ query'):
    assert page.text.count(words) == 1
  alts = [svg['aria-label'] for svg in page.all('svg')[1:]]
  assert alts[1] == 'Rank 2, wrong: index.jpg (no photo)'
  assert alts[4] == 'Rank 5: index.jpg (no photo)'


def test_best_region(make_photo, make_query, make_result, parse):
  boxes = [[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]
  path = make_photo(size=(100, 100))
  results = [make_result(r + 2, path=path, boxes=boxes, best_region=r) for r in (-1, 0, 1, 2)]
  page = parse(parts.query_body(make_query(results=results), parts.PhotoSheet()))
  first, second = 'M0.0 0.0H50.0V50.0H0.0z', 'M50.0 50.0H100.0V100.0H50.0z'
  drawn = [path['d'] for path in page.all('path', class_='box')]
  assert drawn == [first + second, first + second, second, first]
  assert [path['d'] for path in page.all('path', class_='box best')] == [first, second]
  assert page.text.count('best: whole image') == 1
  assert 'best: box 1 of 2' in page.text
  assert 'box 2 of 2' in page.text


def test_legend_shows_what_occurs(make_query, make_result, parse):
  assert parts.legend((make_query(results=[make_result()]),)) == ''
  page = parse(parts.legend((make_query(results=[make_result(label='junk')]),)))
  assert 'junk' in page.text
  assert 'right' not in page.text
  assert 'box' not in page.text
  with_box = parse(parts.legend((make_query(box=np.array([0, 0, 1, 1], np.float32)),)))
  assert with_box.text.strip() == 'box that was searched'
  one_box = make_query(results=[make_result(boxes=[[0, 0, 1, 1]], best_region=1)])
  assert parse(parts.legend((one_box,))).text.strip() == 'box that matches best'
  two_boxes = [make_result(boxes=[[0, 0, 1, 1], [0, 0, 1, 0.5]], best_region=best) for best in (0, 1)]
  assert parse(parts.legend((make_query(results=two_boxes[:1]),))).text.strip() == 'boxes'
  assert 'other boxes' in parse(parts.legend((make_query(results=two_boxes[1:]),))).text
  verified = dataclasses.replace(make_result(), inliers=0)
  assert scores.INLIERS in parse(parts.legend((make_query(results=[verified]),))).text


def test_a_fused_score_and_its_parts(make_query, make_result, parse):
  """A query that finds itself takes the decimals of no other photo; what rounds to zero has no sign."""
  values = ((1808.0, 1807.8, 28.8), (-0.04, 1.26, -1.3), (6.23, 1.3, 6.1))
  results = tuple(
    dataclasses.replace(make_result(rank, score=score), local_score=local, global_score=whole, inliers=rank)
    for rank, (score, local, whole) in enumerate(values, start=1)
  )
  query = dataclasses.replace(make_query(results=results), score_meanings={'local': 'of <details>'})
  body = parts.query_body(query, parts.PhotoSheet())
  assert [piece.split('<')[0] for piece in body.split('class="score">')[1:]] == ['1808.0', '0.0', '6.2']
  text = parse(body).text
  assert 'local 1807.8, global 28.8' in text
  assert 'local 1.3, global -1.3' in text
  assert '2 inliers' in text
  assert 'local of <details>' in parse(parts.legend((query,))).text
  assert 'details' not in parse(parts.legend((make_query(results=[make_result()]),))).text
