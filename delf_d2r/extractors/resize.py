"""Resizing of photos to a size that an extractor works well on."""

import numpy as np
from PIL import Image


def target_size(height: int, width: int, *, max_size: int, min_size: int) -> tuple[int, int]:
  """Returns (height, width) after resizing (docs/reference.md 3.1): the aspect ratio is kept up to rounding.

  Args:
    height, width: of the photo, in pixels.
    max_size: a longer long side is reduced to this; 0 = never.
    min_size: a shorter long side is enlarged to this; 0 = never.
  """
  longest = max(height, width)
  if max_size and longest > max_size:
    scale = max_size / longest
  elif min_size and longest < min_size:
    scale = min_size / longest
  else:
    return height, width
  return max(round(height * scale), 1), max(round(width * scale), 1)


def resize(image: np.ndarray, *, max_size: int, min_size: int) -> np.ndarray:
  """Returns uint8 [H, W, 3] resized to `target_size`, by Pillow's antialiased bilinear filter."""
  height, width = image.shape[:2]
  wanted = target_size(height, width, max_size=max_size, min_size=min_size)
  if wanted == (height, width):
    return image
  resized = Image.fromarray(image).resize(wanted[::-1], Image.Resampling.BILINEAR)
  return np.asarray(resized)
