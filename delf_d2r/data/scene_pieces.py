"""What scenes are composed of: parts of photos, their edges, the boxes of what is seen, and the camera."""

import functools
import pathlib
from collections.abc import Sequence

import cv2
import numpy as np

from delf_d2r.data.photos.images import load_image
from delf_d2r.data.scenes import pasting
from delf_d2r.protos import detection_data_pb2

_KEPT_PHOTOS = 64
# Pixels of each side that an object must show to be labelled.
_MIN_SEEN = 4


@functools.lru_cache(maxsize=_KEPT_PHOTOS)
def load(path: pathlib.Path, long_side: int) -> np.ndarray:
  """A photo, read-only, scaled down to a long side."""
  pixels = load_image(path)
  factor = long_side / max(pixels.shape[:2])
  if factor < 1:
    pixels = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
  pixels = np.ascontiguousarray(pixels)
  pixels.setflags(write=False)
  return pixels


def resized(pixels: np.ndarray, aspect: float, long_side: int) -> np.ndarray:
  """Scaled to a long side and to `aspect`, width over height: float32 [H, W, 3]."""
  width, height = (long_side, long_side / aspect) if aspect >= 1 else (long_side * aspect, long_side)
  size = max(round(width), 2), max(round(height), 2)
  shrinks = size[0] * size[1] < pixels.shape[0] * pixels.shape[1]
  interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
  return cv2.resize(pixels, size, interpolation=interpolation).astype(np.float32)


def with_margin(pixels: np.ndarray, box: Sequence[float], margin: float) -> tuple[np.ndarray, np.ndarray]:
  """A box's pixels and some around it, as far as the photo goes.

  Returns:
    uint8 [h, w, 3], and the box in it: `[top, left, bottom, right]` as shares of its sides.
  """
  size = np.array(pixels.shape[:2])
  low, high = np.reshape(box, (2, 2)) * size
  sides = high - low
  outer_low = np.floor(np.maximum(low - margin * sides, 0)).astype(int)
  outer_high = np.ceil(np.minimum(high + margin * sides, size)).astype(int)
  extent = outer_high - outer_low
  inner = np.concatenate([(low - outer_low) / extent, (high - outer_low) / extent])
  return pixels[outer_low[0] : outer_high[0], outer_low[1] : outer_high[1]], inner


def transformed(inner: np.ndarray, quad: np.ndarray) -> np.ndarray:
  """The corners in the scene of a box inside a piece that goes to `quad`."""
  top, left, bottom, right = inner
  corners = np.array([[(left, top), (right, top), (right, bottom), (left, bottom)]])
  return cv2.perspectiveTransform(corners, pasting.homography((1, 1), quad))[0]


def soft_edges(shape: tuple[int, ...], *, exponent: float, width: float) -> np.ndarray:
  """float32 [h, w]: opacity that falls to 0 at the edges of a superellipse |x|^p + |y|^p = 1.

  Args:
    shape: of the piece.
    exponent: p; a large one is nearly a rectangle.
    width: of the slope, as a share of half a side.
  """
  y, x = (np.abs((np.arange(side) + 0.5) / side * 2 - 1) for side in shape[:2])
  radius = (x[None] ** exponent + y[:, None] ** exponent) ** (1 / exponent)
  return ((1 - radius) / width).clip(0, 1).astype(np.float32)


def box_around(mask: np.ndarray) -> tuple[float, float, float, float] | None:
  """The smallest box around pixels covered by half at least; None if hardly any are."""
  rows, columns = (np.flatnonzero((mask >= 0.5).any(axis=axis)) for axis in (1, 0))
  if len(rows) < _MIN_SEEN or len(columns) < _MIN_SEEN:
    return None
  height, width = mask.shape
  return rows[0] / height, columns[0] / width, (rows[-1] + 1) / height, (columns[-1] + 1) / width


def developed(
  canvas: np.ndarray, config: detection_data_pb2.DetectionScenesConfig, rng: np.random.Generator
) -> np.ndarray:
  """A scene as a camera would have taken it: light, blur, noise.

  Args:
    canvas: float32 [H, W, 3], RGB from 0 to 255.
    config: how strong each may be.
    rng: how strong each is.

  Returns:
    uint8 [H, W, 3].
  """
  pixels = pasting.relight(rng, np.rint(canvas).clip(0, 255).astype(np.uint8), strength=config.relight)
  if config.max_blur and rng.uniform() < 0.5:
    pixels = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.1, 1) * config.max_blur)
  if config.max_noise and rng.uniform() < 0.5:
    noise = rng.normal(0, 255 * rng.uniform(0, config.max_noise), pixels.shape)
    pixels = np.rint(pixels + noise).clip(0, 255).astype(np.uint8)
  return pixels
