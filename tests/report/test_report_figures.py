import re

import numpy as np
import pytest

from delf_d2r.report.figures import PhotoSheet


def test_a_photo_is_embedded_once(make_photo, parse):
  sheet = PhotoSheet()
  path, other = make_photo('a.jpg'), make_photo('b.jpg')
  drawings = [parse(sheet.draw(photo, alt='x')) for photo in (path, other, path)]
  images = parse(sheet.symbols()).all('image')
  assert len(images) == 2
  targets = [drawing.all('use')[0]['href'] for drawing in drawings]
  assert targets == [f'#{images[0]["id"]}', f'#{images[1]["id"]}', f'#{images[0]["id"]}']


def rectangles(paths):
  """The corners (left, top, right, bottom) of the rectangles that some paths draw."""
  steps = r'M([\d.]+) ([\d.]+)H([\d.]+)V([\d.]+)H\1z'
  return [tuple(map(float, corners)) for path in paths for corners in re.findall(steps, path['d'])]


def test_boxes_lie_in_the_frame_of_the_thumbnail(make_photo, parse):
  drawing = parse(
    PhotoSheet().draw(
      make_photo(size=(800, 400)),
      alt='x',
      boxes=np.array([[0.0, 0.5, 0.25, 1.0], [0.5, 0.0, 1.0, 0.1]], np.float32),
      best_box=np.array([0.1, 0.2, 0.3, 0.4], np.float32),
    )
  )
  assert drawing.all('svg')[0]['viewbox'] == '0 0 200 100'
  boxes = rectangles(drawing.all('path', class_='box'))
  assert boxes == [pytest.approx((100, 0, 200, 25)), pytest.approx((0, 50, 20, 100))]
  assert rectangles(drawing.all('path', class_='box best')) == [pytest.approx((40, 10, 80, 30))]


def test_no_boxes_no_lines(make_photo, parse):
  assert parse(PhotoSheet().draw(make_photo(), alt='x')).all('path') == []


def test_alternative_text_is_escaped(make_photo, parse):
  svg = parse(PhotoSheet().draw(make_photo(), alt='a "b" <c>')).all('svg')[0]
  assert (svg['role'], svg['aria-label']) == ('img', 'a "b" <c>')


def test_placeholder_says_why(tmp_path, parse):
  sheet = PhotoSheet()
  (tmp_path / 'bad.jpg').write_bytes(b'bad')
  reasons = {
    None: 'no photo',
    tmp_path / 'gone.jpg': 'photo not found',
    tmp_path / 'bad.jpg': 'photo cannot be decoded',
  }
  for path, reason in reasons.items():
    drawing = parse(sheet.draw(path, alt='Rank 1', boxes=[[0, 0, 1, 1]]))
    assert drawing.text == reason
    assert drawing.all('svg')[0]['aria-label'] == f'Rank 1 ({reason})'
    assert drawing.all('path') == []
  assert parse(sheet.symbols()).all('image') == []
