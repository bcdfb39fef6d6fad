"""Sizes after resizing: the grid of docs/reference.md 3.1 and its edges."""

import numpy as np
import pytest

from delf_d2r.extractors.resize import resize, target_size


@pytest.mark.parametrize(
  ('size', 'limits', 'expected'),
  [
    ((4, 2), (2, 0), (2, 1)),
    ((4, 2), (0, 8), (8, 4)),
    ((3, 2), (2, 0), (2, 1)),  # 1.33 to 1
    ((4, 2), (4, 0), (4, 2)),
    ((4, 2), (0, 4), (4, 2)),
    ((4, 2), (0, 0), (4, 2)),
    ((4, 2), (4, 4), (4, 2)),
    ((768, 1024), (640, 480), (480, 640)),
    ((768, 1024), (2048, 1500), (1125, 1500)),
    ((5, 2), (4, 0), (4, 2)),  # 1.6 to 2
    ((20, 5), (10, 0), (10, 2)),  # 2.5 to 2: half to even, as Python rounds
    ((20, 7), (10, 0), (10, 4)),  # 3.5 to 4
    ((1000, 1), (100, 0), (100, 1)),  # Never zero.
    ((1, 1), (0, 300), (300, 300)),
  ],
)
def test_target_size(size, limits, expected):
  assert target_size(*size, max_size=limits[0], min_size=limits[1]) == expected
  assert target_size(*size[::-1], max_size=limits[0], min_size=limits[1]) == expected[::-1]


def test_photo_of_the_right_size_is_not_copied():
  image = np.zeros((4, 6, 3), np.uint8)
  assert resize(image, max_size=6, min_size=6) is image


@pytest.mark.parametrize('limits', [(20, 0), (0, 200)])
def test_resize_keeps_a_ramp_in_place(limits):
  # Pixel centres lie at i + 0.5 before and after: a linear ramp stays the same function of the position.
  ramp = np.repeat(np.repeat((np.arange(60) + 0.5)[None, :, None] * 4, 40, 0), 3, 2).astype(np.uint8)
  found = resize(ramp, max_size=limits[0], min_size=limits[1])
  width = found.shape[1]
  expected = (np.arange(width) + 0.5) * 60 / width * 4
  inner = slice(width // 10, -width // 10)
  assert found.dtype == np.uint8
  assert found.shape == (round(width * 2 / 3), width, 3)
  assert np.abs(found[5, inner, 0] - expected[inner]).max() <= 1.5


def test_reducing_averages():
  board = np.indices((64, 64)).sum(0) % 2 * 255
  board = np.repeat(board[:, :, None], 3, 2).astype(np.uint8)
  found = resize(board, max_size=16, min_size=0)
  assert np.abs(found.astype(int) - 127).max() < 10
