"""Two views of one photo with known geometry: training pairs that need no labels.

A view is a square that a homography cuts from the photo. Points are `(y, x)` in continuous pixels: the centre
of the first pixel is at 0.5.
"""

import cv2
import numpy as np

from delf_d2r.protos import training_pb2


def view_pair(
  image: np.ndarray, seed: tuple[int, ...], config: training_pb2.WarpedPairsConfig, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns two views of a photo.

  The first is an upright square; the second differs by zoom, rotation, shift and perspective.

  Args:
    image: uint8 [H, W, 3].
    seed: decides the views.
    config: how large and how different they are.
    size: side of a view, in pixels.

  Returns:
    uint8 [size, size, 3] twice, and float32 [3, 3], the homography on `(x, y, 1)` from the first view to the
    second.
  """
  generator = np.random.default_rng(seed)
  height, width = image.shape[:2]
  side = min(height, width) * generator.uniform(config.min_side, 1.0)
  centre = np.array([generator.uniform(side / 2, extent - side / 2) for extent in (width, height)])
  first = centre + side * _square()
  zoom = np.exp(generator.uniform(-1, 1) * np.log(config.max_zoom))
  angle = np.deg2rad(generator.uniform(-config.max_rotation, config.max_rotation))
  rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
  second = _square() + generator.uniform(-config.perspective, config.perspective, (4, 2))
  shift = generator.uniform(-config.max_shift, config.max_shift, 2)
  second = centre + side * (shift + zoom * second @ rotation.T)
  photo_to_first, photo_to_second = (_to_square(corners, size) for corners in (first, second))
  # Reflection continues the photo beyond its edge by one and the same function for both views.
  views = [_cut(image, homography, size) for homography in (photo_to_first, photo_to_second)]
  first_to_second = photo_to_second @ np.linalg.inv(photo_to_first)
  return *views, (first_to_second / first_to_second[2, 2]).astype(np.float32)


def _square() -> np.ndarray:
  """Returns the corners `(x, y)` of the unit square around the origin, clockwise from the top left."""
  return np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])


def _to_square(corners: np.ndarray, size: int) -> np.ndarray:
  target = (_square() + 0.5) * size
  return cv2.getPerspectiveTransform(corners.astype(np.float32), target.astype(np.float32))


def _cut(image: np.ndarray, homography: np.ndarray, size: int) -> np.ndarray:
  """Returns the view at `size` x `size`, cut finer and averaged where it would skip pixels of the photo."""
  # Area of a pixel of the view in the photo, at its centre.
  inverse = np.linalg.inv(homography)
  corners = np.array([[[0, 0], [1, 0], [0, 1]]], np.float32) + size / 2
  origin, right, down = cv2.perspectiveTransform(corners, inverse)[0].astype(np.float64)
  (a, b), (c, d) = right - origin, down - origin
  oversampling = int(np.clip(np.ceil(np.sqrt(abs(a * d - b * c))), 1, 4))
  finer = np.diag([oversampling, oversampling, 1.0]) @ homography
  # OpenCV's pixel centres have whole coordinates.
  half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
  finer = np.linalg.inv(half) @ finer @ half
  extent = (size * oversampling,) * 2
  view = cv2.warpPerspective(image, finer, extent, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
  return view if oversampling == 1 else cv2.resize(view, (size, size), interpolation=cv2.INTER_AREA)
