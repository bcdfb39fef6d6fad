"""The page of compared runs: positions of bars, links, escaped names, undefined values."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from delf_d2r.evaluation import paired_comparison
from delf_d2r.evaluation.protocol import Metrics, ProtocolMetrics, QueryMetrics
from delf_d2r.report import experiment_page, paired_page
from delf_d2r.report.paired_page import PairedView, RunView
from delf_d2r.report.views import ExperimentView


def metrics(*aps):
  """AP of each query, named by number; NaN is a query without positives."""
  queries = tuple(QueryMetrics(ap, np.zeros(1), np.zeros(1), int(ap == ap), 0) for ap in aps)
  names = tuple(f'<q> & {i}' for i in range(len(aps)))
  return Metrics((1,), names, {'medium': ProtocolMetrics((1,), queries)})


def page(first, second, links=None):
  found = paired_comparison.compare(metrics(*first), metrics(*second))
  runs = RunView('one & two', {}, {}), RunView('three', found, links or {})
  return paired_page.render(PairedView('Title', 'Subtitle', runs[0], (runs[1],)))


def bars(text):
  (picture,) = (ElementTree.fromstring(svg) for svg in re.findall(r'<svg[^>]*role="img".*?</svg>', text))
  groups = [element for element in picture if element.tag in ('a', 'g')]
  return picture, [(g.find('title').text, g.findall('rect')[1], g.get('href')) for g in groups]


def test_bars_rise_for_gains_and_hang_for_losses(parse):
  text = page([0.5, 0.5, 0.5, 0.5], [0.54, 0.42, 0.5, 0.7], {'<q> & 3': 'run/index.html#q1'})
  parse(text)
  picture, drawn = bars(text)
  assert [title for title, *_ in drawn] == [
    '<q> & 3: +20.0',
    '<q> & 0: +4.0',
    '<q> & 2: +0.0',
    '<q> & 1: -8.0',
  ]
  assert [float(bar.get('height')) for _, bar, _ in drawn] == [20, 4, 0, 8]
  assert [float(bar.get('y')) for _, bar, _ in drawn] == [-20, -4, 0, 0]
  # The axis ends at the first round number that is large enough for all.
  assert picture.get('viewBox') == '0 -20 4 40'
  assert [href for *_, href in drawn] == ['run/index.html#q1', None, None, None]


def test_gains_and_losses_by_name(parse):
  text = page([0.5, 0.5, 0.5], [0.54, 0.42, 0.5])
  shown = parse(text).text
  for part in ('Medium: largest gains', 'Medium: largest losses', 'Won (1): <q> & 0', 'Lost (1): <q> & 1'):
    assert part in shown
  assert 'Tied (1): <q> & 2' in shown
  assert '+4.0' in shown


def test_no_query_counts(parse):
  text = page([math.nan], [math.nan])
  # The page after the style sheet.
  assert 'nan' not in parse(text).text.lower().rsplit('}', 1)[1]
  assert 'role="img"' not in text


def test_anchors_are_those_of_the_reports_page(make_query, parse):
  names = ('a "b" & <c>', 'plain.jpg', 'é')
  queries = tuple(make_query(name, precision={'medium': 0.5}) for name in names)
  source = experiment_page.render(ExperimentView('Title', 'Subtitle', queries=queries))
  anchors = paired_page.query_anchors(source)
  assert anchors.keys() == set(names)
  for name, anchor in anchors.items():
    (section,) = parse(source).all('section', id=anchor)
    assert section['data-name'] == name


@pytest.mark.parametrize(
  ('fraction', 'text'), [(0.1234, '+12.3'), (-0.1, '-10.0'), (-0.0001, '+0.0'), (0, '+0.0')]
)
def test_differences_have_a_sign(fraction, text):
  assert paired_page.signed(fraction) == text
