import numpy as np

from delf_d2r.report.figures import PhotoSheet


def test_a_photo_is_embedded_once(make_photo, parse):
  sheet = PhotoSheet()
  path, other = make_photo('a.jpg'), make_photo('b.jpg')
  drawings = [parse(sheet.draw(photo, alt='x')) for photo in (path, other, path)]
  images = parse(sheet.symbols()).all('image')
  assert len(images) == 2
  targets = [drawing.all('use')[0]['href'] for drawing in drawings]
  assert targets == [f'#{images[0]["id"]}', f'#{images[1]["id"]}', f'#{images[0]["id"]}']


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
  assert [path['d'] for path in drawing.all('path', class_='box')] == [
    'M100.0 0.0H200.0V25.0H100.0zM0.0 50.0H20.0V100.0H0.0z'
  ]
  assert [path['d'] for path in drawing.all('path', class_='box best')] == ['M40.0 10.0H80.0V30.0H40.0z']


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
