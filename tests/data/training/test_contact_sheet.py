"""Contact sheets: the positions of pictures and boxes."""

import io

import numpy as np
from PIL import Image

from delf_d2r.data.training import contact_sheet


def test_pictures_stand_in_rows_with_their_boxes():
  pictures = [np.full((20, 40, 3), value, np.uint8) for value in (10, 60, 110)]
  boxes = [np.zeros((0, 4)), np.array([[0, 0.5, 1, 1]]), np.zeros((0, 4))]
  sheet = contact_sheet.draw(pictures, boxes, columns=2, side=80)
  assert sheet.shape == (2 * 84 + 4, 2 * 84 + 4, 3)
  assert (sheet[4:44, 4:84] == 10).all()
  assert (sheet[88:128, 4:84] == 110).all()
  assert (sheet[88:, 88:] == 255).all()
  second = sheet[4:44, 88:168]
  yellow = np.argwhere((second == (255, 220, 0)).all(axis=2))
  # The right half: from column 39.5 of 80 to the last.
  assert yellow[:, 0].min() == 0
  assert yellow[:, 0].max() == 39
  assert abs(yellow[:, 1].min() - 39.5) <= 1
  assert yellow[:, 1].max() == 79
  assert (second[5:35, 5:35] == 60).all()


def test_no_pictures():
  assert (contact_sheet.draw([], []) == 255).all()


def test_png_keeps_the_pixels():
  pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
  decoded = Image.open(io.BytesIO(contact_sheet.encode_png(pixels)))
  assert decoded.format == 'PNG'
  np.testing.assert_array_equal(np.asarray(decoded), pixels)
