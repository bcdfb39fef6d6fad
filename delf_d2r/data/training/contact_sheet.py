"""Draws contact sheets: pictures of a training set with their boxes on one page."""

from collections.abc import Sequence

import cv2
import numpy as np

_GAP = 4
_HALO, _LINE = (0, 0, 0), (255, 220, 0)


def draw(
  pictures: Sequence[np.ndarray], boxes: Sequence[np.ndarray], *, columns: int = 6, side: int = 240
) -> np.ndarray:
  """Draws pictures in rows, with their boxes.

  Args:
    pictures: n pictures, uint8 [h, w, 3].
    boxes: the boxes of each picture, float [R, 4], `[ymin, xmin, ymax, xmax]`, normalised.
    columns: number of pictures in a row.
    side: side of the square that each picture is scaled to fit into, in pixels.

  Returns:
    uint8 [H, W, 3].
  """
  pitch = side + _GAP
  rows = max(-(-len(pictures) // columns), 1)
  sheet = np.full((rows * pitch + _GAP, columns * pitch + _GAP, 3), 255, np.uint8)
  for number, (picture, own) in enumerate(zip(pictures, boxes, strict=True)):
    row, column = divmod(number, columns)
    top, left = row * pitch + _GAP, column * pitch + _GAP
    drawn = _with_boxes(picture, own, side)
    sheet[top : top + drawn.shape[0], left : left + drawn.shape[1]] = drawn
  return sheet


def _with_boxes(picture: np.ndarray, boxes: np.ndarray, side: int) -> np.ndarray:
  factor = side / max(picture.shape[:2])
  height, width = (max(round(length * factor), 1) for length in picture.shape[:2])
  interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
  drawn = cv2.resize(picture, (width, height), interpolation=interpolation)
  for ymin, xmin, ymax, xmax in boxes:
    corners = (round(xmin * (width - 1)), round(ymin * (height - 1)))
    opposite = (round(xmax * (width - 1)), round(ymax * (height - 1)))
    # A dark halo keeps the line visible on any picture.
    for colour, thickness in ((_HALO, 3), (_LINE, 1)):
      cv2.rectangle(drawn, corners, opposite, colour, thickness)
  return drawn


def encode_png(pixels: np.ndarray) -> bytes:
  """Encodes `pixels` (uint8 [H, W, 3], RGB) as PNG."""
  _, encoded = cv2.imencode('.png', cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
  return encoded.tobytes()
