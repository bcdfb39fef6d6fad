"""Pastes pieces of photos into pictures: warps them by a homography, relights and blends them.

Frames: quadrilaterals are float [4, 2], `(x, y)` in pixels of the picture (OpenCV's order), clockwise from
the top left corner; pixel i covers [i, i + 1).
"""

import cv2
import numpy as np


def tilted_quad(rng: np.random.Generator, aspect: float, *, tilt: float, perspective: float) -> np.ndarray:
  """Returns a rectangle of width `aspect` and height 1 around the origin, rotated, in random perspective.

  Args:
    rng: source of every random choice.
    aspect: width over height.
    tilt: greatest rotation, in degrees.
    perspective: greatest shift of a corner, as a share of the sides.

  Returns:
    float64 [4, 2].
  """
  rectangle = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
  distorted = (rectangle + rng.uniform(-perspective, perspective, (4, 2))) * (aspect, 1)
  angle = np.deg2rad(rng.uniform(-tilt, tilt))
  rotation = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
  return distorted @ rotation.T


def corner_rectangle(rng: np.random.Generator, area: float) -> np.ndarray:
  """Returns a rectangle, float [4, 2], that covers `area` of the unit square from a random corner."""
  width = rng.uniform(np.sqrt(area), 1)
  size = np.array([width, area / width])
  origin = rng.integers(0, 2, 2) * (1 - size)
  return origin + size * [(0, 0), (1, 0), (1, 1), (0, 1)]


def polygon_area(quad: np.ndarray) -> float:
  """Returns the area of a quadrilateral [4, 2]."""
  x, y = quad.T
  return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def homography(size: tuple[int, int], quad: np.ndarray) -> np.ndarray:
  """Returns the homography, float64 [3, 3], that maps a picture of `size` (width, height) to `quad`."""
  corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float32) * np.array(size, np.float32)
  return cv2.getPerspectiveTransform(corners, quad.astype(np.float32))


def shrink(pixels: np.ndarray, quad: np.ndarray) -> np.ndarray:
  """Shrinks a picture by area averaging to about the size of `quad`, because the warp alone would alias."""
  height, width = pixels.shape[:2]
  factor = min(1.0, float(np.sqrt(polygon_area(quad) / (height * width))))
  size = max(2, round(width * factor)), max(2, round(height * factor))
  return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def relight(rng: np.random.Generator, pixels: np.ndarray, *, strength: float = 1.0) -> np.ndarray:
  """Applies random exposure, contrast, gamma and colour cast, by one lookup table for each channel.

  Args:
    rng: source of every random choice.
    pixels: uint8 [H, W, 3].
    strength: scales the ranges. 1: gamma from 0.75 to 1.35, contrast from 0.65 to 1.1, colour cast of up to
      12 %; 0: no change.

  Returns:
    uint8 [H, W, 3].
  """
  neutral = np.array((1, 1, 0))
  low, high = neutral + strength * (np.array([(0.75, 0.65, -0.08), (1.35, 1.1, 0.08)]) - neutral)
  gamma, contrast, exposure = rng.uniform(low, high)
  cast = rng.uniform(1 - 0.12 * strength, 1 + 0.12 * strength, 3)
  levels = np.linspace(0, 1, 256)[:, None] ** gamma
  table = ((levels - 0.5) * contrast + 0.5 + exposure) * cast
  table = np.rint(255 * table.clip(0, 1)).astype(np.uint8)
  return cv2.LUT(np.ascontiguousarray(pixels), table[:, None])


# OpenCV's coordinate of the centre of the first pixel is 0; in this module it is 0.5.
_TO_OPENCV = np.array([(1, 0, -0.5), (0, 1, -0.5), (0, 0, 1)])
_FROM_OPENCV = np.linalg.inv(_TO_OPENCV)


def paste(
  canvas: np.ndarray, pixels: np.ndarray, quad: np.ndarray, *, opacity: np.ndarray | None = None
) -> np.ndarray:
  """Draws a picture into a quadrilateral of a canvas, in place, clipped to the canvas.

  Args:
    canvas: float32 [H, W, 3], drawn into.
    pixels: uint8 [h, w, 3].
    quad: float [4, 2], the corners of the picture in pixels of the canvas.
    opacity: float32 [h, w] in [0, 1], the opacity of the picture; None: opaque.

  Returns:
    float32 [H, W], the share of each pixel of the canvas that the picture covers.
  """
  coverage = np.zeros(canvas.shape[:2], np.float32)
  window = _window(canvas.shape, quad)
  if window is None:
    return coverage
  pixels = shrink(pixels, quad)
  if opacity is None:
    opacity = np.ones(pixels.shape[:2], np.float32)
  else:
    opacity = shrink(opacity, quad)
    pixels = pixels * opacity[..., None]
  coverage[window] = _warp(opacity, quad, window)
  # The warped picture fades to black at its edges: it is already multiplied by its coverage.
  canvas[window] *= 1 - coverage[window][..., None]
  canvas[window] += _warp(pixels, quad, window)
  return coverage


def coverage_mask(shape: tuple[int, ...], quad: np.ndarray) -> np.ndarray:
  """Returns the share of each pixel of a canvas that a quadrilateral covers.

  Args:
    shape: shape of the canvas, (H, W, ...).
    quad: float [4, 2], in pixels of the canvas.

  Returns:
    float32 [H, W], in [0, 1].
  """
  coverage = np.zeros(shape[:2], np.float32)
  window = _window(shape, quad)
  if window is not None:
    width, height = np.maximum(np.ceil(np.ptp(quad, axis=0)).astype(int), 2)
    coverage[window] = _warp(np.ones((height, width), np.float32), quad, window)
  return coverage


def mask_box(mask: np.ndarray, *, min_side: int = 1) -> tuple[float, float, float, float] | None:
  """Returns the smallest box around the true pixels of a mask.

  Args:
    mask: bool [H, W].
    min_side: least number of rows, and of columns, that must have a true pixel.

  Returns:
    `(ymin, xmin, ymax, xmax)`, normalised; None if fewer rows or columns than `min_side` have a true pixel.
  """
  rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
  if len(rows) < min_side or len(columns) < min_side:
    return None
  height, width = mask.shape
  return (
    float(rows[0] / height),
    float(columns[0] / width),
    float((rows[-1] + 1) / height),
    float((columns[-1] + 1) / width),
  )


def _window(shape: tuple[int, ...], quad: np.ndarray) -> tuple[slice, slice] | None:
  """Returns the window of a canvas that a quadrilateral can touch; None if it lies outside."""
  height, width = shape[:2]
  left, top = np.clip(np.floor(quad.min(axis=0)), 0, (width, height)).astype(int)
  right, bottom = np.clip(np.ceil(quad.max(axis=0)), 0, (width, height)).astype(int)
  return None if left == right or top == bottom else np.s_[top:bottom, left:right]


def _warp(picture: np.ndarray, quad: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
  """Warps a picture to `quad` and returns the window of the result; black outside the quadrilateral."""
  rows, columns = window
  size = int(columns.stop - columns.start), int(rows.stop - rows.start)
  matrix = homography(picture.shape[1::-1], quad - (columns.start, rows.start))
  return cv2.warpPerspective(picture, _TO_OPENCV @ matrix @ _FROM_OPENCV, size)


def encode_jpeg(pixels: np.ndarray, quality: int) -> bytes:
  """Encodes `pixels` (uint8 [H, W, 3], RGB) as JPEG; every setting that affects the bytes is given."""
  options = [
    *(cv2.IMWRITE_JPEG_QUALITY, quality),
    *(cv2.IMWRITE_JPEG_PROGRESSIVE, 0),
    *(cv2.IMWRITE_JPEG_OPTIMIZE, 0),
    *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420),
  ]
  _, encoded = cv2.imencode('.jpg', cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
  return encoded.tobytes()
