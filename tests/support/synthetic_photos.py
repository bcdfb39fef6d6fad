"""Synthetic photos with known features."""

import cv2
import numpy as np


def blobs(height, width, places, sigma=4.0):
  """Draws bright Gaussians at `places`, `(y, x)` with pixel centres at i + 0.5: uint8 [H, W, 3]."""
  y, x = np.mgrid[:height, :width] + 0.5
  image = sum(np.exp(-((y - py) ** 2 + (x - px) ** 2) / (2 * sigma**2)) for py, px in places)
  return np.repeat(np.rint(40 + 180 * image).astype(np.uint8)[:, :, None], 3, 2)


def texture(height=160, width=200, seed=0):
  noise = np.random.default_rng(seed).integers(0, 255, (height // 4, width // 4, 3), np.uint8)
  return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
