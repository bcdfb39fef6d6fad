"""Colours of 8 to 12 bits that lie in 16: Pillow keeps the upper 8 bits alone, which are nearly nothing."""

from typing import Any, BinaryIO

import numpy as np
from PIL import Image

# The place of the bit depth in a PNG file.
_PNG_DEPTH = 24
_TIFF_BITS = 258
_DEPTHS = (8, 10, 12)
_MAX_WORD = 65535


def are_in(image: Image.Image, stream: BinaryIO) -> bool:
  """Returns whether an image, not decoded yet, is of a file that may have 16 bits for each colour."""
  if image.mode not in ('RGB', 'RGBA'):
    return False
  if image.format == 'TIFF':
    bits = getattr(image, 'tag_v2', {}).get(_TIFF_BITS, ())
    return isinstance(bits, tuple) and set(bits) == {16}
  if image.format == 'PPM':
    tile: Any = getattr(image, 'tile', None)
    arguments = tile[0][3] if tile else None
    return isinstance(arguments, tuple) and bool(arguments[-1] == _MAX_WORD)
  if image.format == 'JPEG2000':
    return True  # Pillow does not say; OpenCV does.
  if image.format != 'PNG' or stream.closed:
    return False
  place = stream.tell()
  stream.seek(_PNG_DEPTH)
  depth = stream.read(1)
  stream.seek(place)
  return depth == b'\x10'


def are_lost(image: Image.Image) -> bool:
  """Returns whether all colours are so dark that they must have lain in the lower bits."""
  highest = max(high for _, high in image.getextrema()[:3])  # type: ignore[misc]  # A pair for each band.
  # Some decoders of Pillow round, others cut off.
  return bool(highest <= 1 << (_DEPTHS[-1] - 8))


def decode(stream: BinaryIO, image: Image.Image) -> Image.Image:
  """Decodes the lower bits of a file: of the depth that holds the brightest colour.

  Args:
    stream: the file.
    image: its upper bits, as Pillow gives them in RGB or RGBA; returned if the file cannot be decoded
      otherwise.
  """
  if stream.closed:
    return image
  import cv2  # Rarely needed, and not by commands that decode no photo.

  stream.seek(0)
  try:
    found: np.ndarray | None = cv2.imdecode(np.frombuffer(stream.read(), np.uint8), cv2.IMREAD_UNCHANGED)
  except cv2.error:
    return image
  # Files that Pillow has turned have another shape, or are another picture.
  if found is None or found.dtype != np.uint16 or found.ndim != 3 or found.shape[1::-1] != image.size:
    return image
  colours = found[..., 2::-1]
  difference = (colours >> 8).astype(np.int16) - np.asarray(image)[..., :3]
  if np.abs(difference).max(initial=0) > 1:
    return image
  bands = [_eight_bits(colours)]
  if image.mode == 'RGBA' and found.shape[2] == 4:
    bands.append(_eight_bits(found[..., 3:]))
  return Image.fromarray(np.concatenate(bands, axis=2))


def _eight_bits(values: np.ndarray) -> np.ndarray:
  """Returns values of uint16 as uint8, from the depth that holds the largest."""
  highest = int(values.max(initial=0))
  depth = next((depth for depth in _DEPTHS if highest < 1 << depth), 16)
  return (values >> (depth - 8)).astype(np.uint8)
