import pytest

from delf_d2r.report import charts
from delf_d2r.report.views import MethodView


def test_protocols_keep_their_order():
  assert charts.protocols_of([{'easy': 1.0}, {'hard': None, 'easy': 0.1}]) == ('easy', 'hard')


def test_comparison_bars_and_best(parse):
  methods = (
    MethodView('ASMK*', {'easy': 0.9, 'hard': None}),
    MethodView('<R-ASMK*>', {'easy': 0.9621, 'hard': 0.5}),
    MethodView('Regional', {'easy': 0.9619}),
  )
  markup = charts.comparison(methods)
  page = parse(markup)
  widths = [float(bar['width']) for bar in page.all('rect', class_='bar')]
  assert widths == pytest.approx([90, 0, 96.2, 50, 96.2, 0], abs=0.1)
  assert markup.count('<strong>96.2</strong>') == 2  # Equal after rounding.
  assert '<strong>50.0</strong>' in markup
  assert '<R-ASMK*>' in page.text


def test_a_single_method_is_not_the_best():
  assert '<strong>' not in charts.comparison((MethodView('a', {'easy': 0.5}),))


def test_no_methods_no_comparison():
  assert charts.comparison(()) == ''


def test_distribution_is_sorted_and_linked(make_query, parse):
  values = (0.25, None, 1.0, 0.0)
  queries = tuple(make_query(f'{i}<', precision={'hard': value}) for i, value in enumerate(values))
  page = parse(charts.distribution(queries, {i: f'q{i}' for i in range(4)}))
  assert [link['href'] for link in page.all('a')] == ['#q2', '#q0', '#q3']
  # No bar is lower than 1, so that a query with AP 0 is visible.
  heights = [float(bar['height']) for bar in page.all('rect', class_='bar')]
  assert heights == pytest.approx([100, 25, 1], abs=0.1)
  assert 'Hard 3 queries, median 25.0, lowest 0.0' in page.text
  assert '0<: 25.0' in page.text


def test_distribution_without_a_positive(make_query, parse):
  page = parse(charts.distribution((make_query(precision={'hard': None}),), {0: 'q0'}))
  assert 'no query has a positive image' in page.text
  assert page.all('svg') == []


def test_no_ground_truth_no_distribution(make_query):
  assert charts.distribution((make_query(),), {0: 'q0'}) == ''
