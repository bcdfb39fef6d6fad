"""TensorFlow's antialiased bilinear resizing without TensorFlow.

Each axis is resized by a sparse matrix of the triangle filter, whose weights are computed in float32 in the
order of TensorFlow's ScaleAndTranslate: results differ by the order of sums alone.
"""

import functools

import numpy as np
import scipy.sparse

# Matrices that are kept: a pyramid has two for each level.
_KEPT = 64


def resize(pixels: np.ndarray, size: tuple[int, int], *, antialias: bool = True) -> np.ndarray:
  """Returns float32 [H, W, C] resized to [*size, C], as `tf.image.resize(pixels, size, antialias)` does.

  Enlarging is the same with and without antialiasing.
  """
  height, width, channels = pixels.shape
  if (height, width) == tuple(size):
    return pixels
  # Both axes are resized with all channels and the other axis as the columns of one product.
  rows = _matrix(height, size[0], antialias) @ pixels.reshape(height, width * channels)
  columns = np.ascontiguousarray(rows.reshape(size[0], width, channels).transpose(1, 0, 2))
  resized = _matrix(width, size[1], antialias) @ columns.reshape(width, size[0] * channels)
  return resized.reshape(size[1], size[0], channels).transpose(1, 0, 2)


@functools.lru_cache(_KEPT)
def _matrix(length: int, wanted: int, antialias: bool) -> scipy.sparse.csr_array:
  """Returns the weights float32 [wanted, length] of the samples along an axis."""
  one, half = np.float32(1), np.float32(0.5)
  inverse = np.float32(length) / np.float32(wanted)
  if antialias:
    # Its own way from the scale there and back.
    inverse = one / (np.float32(wanted) / np.float32(length))
  radius = max(inverse, one) if antialias else one
  centers = (np.arange(wanted, dtype=np.float32) + half) * inverse
  first = np.ceil(centers - radius - half).astype(np.int64)
  span = int(2 * np.ceil(radius)) + 1
  sources = first[:, None] + np.arange(span)
  weights = np.maximum(one - np.abs(sources.astype(np.float32) + half - centers[:, None]) / radius, 0)
  weights = np.where((sources >= 0) & (sources < length), weights, np.float32(0))
  weights /= weights.sum(axis=1, keepdims=True)
  rows, spans = np.nonzero(weights)
  return scipy.sparse.csr_array(
    (weights[rows, spans], (rows, sources[rows, spans])), shape=(wanted, length), dtype=np.float32
  )
