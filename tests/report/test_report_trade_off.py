"""The page of a threshold curve: positions of points, axes that enclose them, undefined values."""

import itertools
import math
import re
from xml.etree import ElementTree

import pytest

from delf_d2r.report import trade_off_page
from delf_d2r.report.trade_off_page import TradeOffPoint, TradeOffView


def point(threshold, boxes, medium, hard=0.5):
  return TradeOffPoint(
    threshold, boxes, 1000 + 200 * boxes, 1e4 * (1 + boxes), {'medium': medium, 'hard': hard}
  )


def pictures(*points):
  page = trade_off_page.render(TradeOffView('Title & more', 'Subtitle', points))
  return page, [ElementTree.fromstring(svg) for svg in re.findall(r'<svg[^>]*role="img".*?</svg>', page)]


def test_points_stand_where_their_values_are():
  page, (medium, hard, index) = pictures(point(0.1, 4, 0.5), point(0.5, 2, 0.7), point(0.9, 0, 0.6))
  assert 'Title &amp; more' in page
  for picture in (medium, hard, index):
    circles = picture.findall('circle')
    across = [float(circle.get('cx')) for circle in circles]
    assert across[0] > across[1] > across[2]
    assert across[0] - across[1] == pytest.approx(across[1] - across[2], abs=0.2)
  up = [-float(circle.get('cy')) for circle in medium.findall('circle')]
  assert up[1] > up[2] > up[0]
  assert up[2] - up[0] == pytest.approx(up[1] - up[2], abs=0.2)
  labels = [label.text for label in medium.findall('text') if label.get('class') == 'label']
  assert labels == ['0.1', '0.5', '0.9']
  assert medium.find('circle/title').text == 'threshold 0.1: 4.00 boxes, 50.00'
  # The line goes through the points from left to right.
  xs = [float(x) for x in re.findall(r'[ML]([\d.]+) ', medium.find('path').get('d'))]
  assert xs == sorted(xs)
  assert len(xs) == 3


def test_value_that_is_undefined_is_left_out():
  page, (medium, hard, _) = pictures(point(0.1, 4, 0.5, math.nan), point(0.5, 2, 0.7, 0.4))
  assert (len(medium.findall('circle')), len(hard.findall('circle'))) == (2, 1)
  assert 'nan' not in page.lower().split('</style>')[1]
  page, (medium, _) = pictures(point(0.1, 4, 0.5, math.nan))
  assert 'no query has a positive image' in page


def test_one_point_has_axes_too():
  _, (medium, *_) = pictures(point(0.1, 0, 0))
  assert len(medium.findall('line')) >= 2


@pytest.mark.parametrize(
  'values', [[0.0], [5.0], [0, 1], [12.1, 12.3], [0.02, 97], [61_234, 61_235], [-3, -1], [1e-5, 3e-5]]
)
def test_ticks_are_few_round_and_enclose_the_values(values):
  ticks = trade_off_page._ticks(values)
  assert 2 <= len(ticks) <= 7
  assert ticks[0] <= min(values)
  assert ticks[-1] >= max(values)
  steps = {round(b - a, 9) for a, b in itertools.pairwise(ticks)}
  assert len(steps) == 1
