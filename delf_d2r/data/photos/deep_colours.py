"""Colours of 8 to 12 bits that lie in 16: Pillow keeps the upper 8 bits alone, which are nearly nothing."""

from typing import BinaryIO

import numpy as np
from PIL import Image

# The place of the bit depth in a PNG file.
_PNG_DEPTH = 24
_TIFF_BITS = 258
_DEPTHS = (8, 10, 12)


def are_in(image: Image.Image, stream: BinaryIO) -> bool:
  """Returns whether an image, not decoded yet, is a PNG or TIFF file with 16 bits for each colour."""
  if image.mode not in ('RGB', 'RGBA'):
    return False
  if image.format == 'TIFF':
    bits = getattr(image, 'tag_v2', {}).get(_TIFF_BITS, ())
    return isinstance(bits, tuple) and set(bits) == {16}
  if image.format != 'PNG' or stream.closed:
    return False
  place = stream.tell()
  stream.seek(_PNG_DEPTH)
  depth = stream.read(1)
  stream.seek(place)
  return depth == b'\x10'


def are_lost(rgb: Image.Image) -> bool:
  """Returns whether all colours are so dark that they must have lain in the lower bits."""
  highest = max(high for _, high in rgb.getextrema())  # type: ignore[misc]  # A pair for each band of RGB.
  return bool(highest < 1 << (_DEPTHS[-1] - 8))


def decode(stream: BinaryIO, rgb: Image.Image) -> Image.Image:
  """Decodes the lower bits of a file: of the depth that holds the brightest colour.

  Args:
    stream: the file.
    rgb: its upper bits, as Pillow gives them; returned if the file cannot be decoded otherwise.
  """
  if stream.closed:
    return rgb
  import cv2  # Rarely needed, and not by commands that decode no photo.

  stream.seek(0)
  try:
    bgr: np.ndarray | None = cv2.imdecode(np.frombuffer(stream.read(), np.uint8), cv2.IMREAD_UNCHANGED)
  except cv2.error:
    return rgb
  # Files that Pillow has turned have another shape, or are another picture.
  if bgr is None or bgr.dtype != np.uint16 or bgr.ndim != 3 or bgr.shape[1::-1] != rgb.size:
    return rgb
  values = bgr[..., 2::-1].astype(np.uint16, copy=False)
  if bgr.shape[2] == 3 and not np.array_equal(values >> 8, np.asarray(rgb)):
    return rgb
  highest = int(values.max())
  depth = next((depth for depth in _DEPTHS if highest < 1 << depth), 16)
  return Image.fromarray((values >> (depth - 8)).astype(np.uint8))
