"""The engine asked with photos and boxes of every bad kind: each has a stated answer."""

import re

import numpy as np
import pytest
from PIL import Image
from support.odd_photos import REFUSED, encoded, kinds

from delf_d2r.errors import ImageError, UserError


@pytest.fixture(scope='module')
def photo(query_path):
  return Image.open(query_path).convert('RGB').resize((300, 240))


@pytest.mark.parametrize(('data', 'says'), REFUSED)
def test_what_is_no_photo_is_refused(engine, tmp_path, data, says):
  path = tmp_path / 'photo.jpg'
  path.write_bytes(data)
  for given in (path, data):
    with pytest.raises(ImageError, match=re.escape(says)):
      engine.search(given)


def test_odd_photos_find_what_the_plain_one_finds(engine, photo):
  plain = engine.search(encoded(photo, 'PNG'), top_k=1).results[0]
  for kind, data in kinds(photo).items():
    answer = engine.search(data, top_k=1)
    assert (answer.features.width, answer.features.height) == photo.size, kind
    assert answer.results[0].name == plain.name, kind


@pytest.mark.parametrize('size', [(1, 1), (9, 200), (200, 200)])
@pytest.mark.parametrize('verify', [False, True])
def test_a_query_without_features_scores_nothing(engine, size, verify):
  answer = engine.search(encoded(Image.new('RGB', size, 'grey'), 'PNG'), top_k=5, verify=verify)
  assert answer.num_features == 0
  assert {(result.score, result.inliers) for result in answer.results} == {(0, 0 if verify else None)}


def test_a_box_without_features_scores_nothing(engine, photo):
  answer = engine.search(encoded(photo, 'PNG'), box=(0.5, 0.5, 0.501, 0.501), top_k=3, verify=True)
  assert answer.num_features == 0
  assert {result.score for result in answer.results} == {0}


@pytest.mark.parametrize(
  'box',
  [
    (-5, -5, -4, -4),
    (0, 0, 1.2, 1),
    (0.5, 0.5, 0.5, 0.5),
    (0.9, 0.9, 0.1, 0.1),
    (float('nan'), 0, 1, 1),
    (0, 0, 30, 40),
  ],
)
def test_a_box_outside_empty_or_inverted_is_refused(engine, photo, box):
  with pytest.raises(UserError, match='0 <= min < max <= 1'):
    engine.search(encoded(photo, 'PNG'), box=box)


@pytest.mark.parametrize('box', [(0, 0, 1), 'abcd', 0.5, (0, 0, 1, None)])
def test_a_box_that_is_not_four_numbers_is_refused(engine, photo, box):
  with pytest.raises(UserError, match='box: expected four numbers'):
    engine.search(encoded(photo, 'PNG'), box=box)


@pytest.mark.parametrize('like', [np.zeros((20, 20)), np.zeros((20, 20, 4), np.uint8), np.ones((9, 9, 3))])
def test_an_array_that_is_no_photo_is_refused(engine, like):
  with pytest.raises(UserError, match=r'expected uint8 \[H, W, 3\] RGB, found'):
    engine.search(like)
  with pytest.raises(UserError, match='expected uint8'):
    engine.add({'new.jpg': like})
