"""Greys of more than 8 bits: 9 to 32 bits, signed, or floats; whether 0 is black or white.

Files rarely say how many of their bits are used: 12 bits of a scanner lie in 16, and floats are in [0, 1] or
in the range of some integer. Where the file does not say, the depth is the smallest usual one that holds the
brightest pixel.
"""

import numpy as np
from PIL import Image

_MODES = ('I', 'I;16', 'I;16B', 'I;16L', 'I;16N', 'F')
_USUAL_DEPTHS = (8, 10, 12, 14, 16, 24, 32)

# Floats in [0, 1] may lie a little outside, after sharpening or scaling.
_OVERSHOOT = 0.5

# The key in `info` of an image of a PPM file that says 65,535, which any depth fits into.
_SAYS_NO_DEPTH = 'delf_d2r.says_no_depth'

# Tags of TIFF.
_BITS = 258
_PHOTOMETRIC = 262
_MAX_SAMPLE = 281
_SAMPLE_FORMAT = 339
_WHITE_IS_ZERO = 0
_UNSIGNED = 1


def is_deep(image: Image.Image) -> bool:
  """Returns whether an image is grey with more than 8 bits, which Pillow clips instead of scaling."""
  return image.mode in _MODES


def note_depth(image: Image.Image) -> None:
  """Notes, before it is decoded, whether an image is of a PPM file that says no depth: Pillow forgets it."""
  tile = getattr(image, 'tile', None)
  if image.format == 'PPM' and image.mode == 'I' and tile:
    decoder, arguments = tile[0][0], tile[0][3]
    # The raw decoder takes whole words; the others scale by the maximum, their last argument.
    image.info[_SAYS_NO_DEPTH] = decoder == 'raw' or arguments[-1] == 65535


def to_eight_bits(image: Image.Image) -> np.ndarray:
  """Scales the greys of a deep image to 8 bits.

  Args:
    image: a decoded image for which `is_deep` is true.

  Returns:
    uint8 [H, W]; 0 is black.

  Raises:
    ValueError: there are pixels that are not finite.
  """
  tags = getattr(image, 'tag_v2', {})
  values = np.asarray(image)
  if values.dtype == np.int32 and _first(tags, _BITS) == 32 and _first(tags, _SAMPLE_FORMAT, 1) == _UNSIGNED:
    values = values.view(np.uint32)
  if values.dtype.kind == 'f' and not np.isfinite(values).all():
    raise ValueError('it has pixels that are NaN or infinite')
  scaled: np.ndarray
  low, high = float(values.min()), float(values.max())
  if low < -_OVERSHOOT and not _is_overshoot(low, high):
    # Signed values have no black or white of their own.
    scaled = np.round((values - low) * (255 / (high - low or 1)))
  elif values.dtype.kind == 'f' and high <= 1 + _OVERSHOOT:
    scaled = np.round(values.astype(np.float64) * 255)
  elif values.dtype.kind == 'f':
    scaled = np.floor(values * 0.5 ** (_depth(image, tags, high) - 8))
  else:
    scaled = values >> (_depth(image, tags, high) - 8)
  eight = scaled.clip(0, 255).astype(np.uint8)
  # Pillow inverts 8 bits only. A file without the tag is meant as usual.
  return 255 - eight if _first(tags, _PHOTOMETRIC) == _WHITE_IS_ZERO else eight


def _is_overshoot(low: float, high: float) -> bool:
  return -low <= 0.05 * high


def _depth(image: Image.Image, tags, high: float) -> int:
  """Returns how many bits white has."""
  if image.format == 'PPM' and image.mode == 'I' and not image.info.get(_SAYS_NO_DEPTH):
    return 16  # Pillow has scaled it by the maximum that the file says.
  declared = _first(tags, _BITS, 16)
  largest = _first(tags, _MAX_SAMPLE, 0)
  if image.mode != 'F' and largest >= high > 0:
    return max(int(largest).bit_length(), 8)
  if 8 <= declared < 16:
    return declared
  return next((depth for depth in _USUAL_DEPTHS if high < 2**depth), 32)


def _first(tags, number: int, default: int | None = None):
  """Returns the first value of a tag."""
  value = tags.get(number, default)
  return value[0] if isinstance(value, tuple) and value else value
