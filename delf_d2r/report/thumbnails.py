"""Photos made small: JPEG thumbnails as data URIs."""

import base64
import dataclasses
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

LONG_SIDE = 200
QUALITY = 68

Photo = Path | Image.Image | np.ndarray

# What Pillow raises on files that are damaged, foreign or too large to decode safely.
_DECODING_ERRORS = (
  OSError,
  ValueError,
  SyntaxError,
  EOFError,
  Image.DecompressionBombError,
  Image.DecompressionBombWarning,
)


class PhotoError(ValueError):
  """No thumbnail can be made; the message is a short reason fit for the page."""


@dataclasses.dataclass(frozen=True)
class Thumbnail:
  """A small JPEG: its size in pixels and its bytes."""

  width: int
  height: int
  jpeg: bytes

  @property
  def data_uri(self) -> str:
    return f'data:image/jpeg;base64,{base64.b64encode(self.jpeg).decode("ascii")}'


def make_thumbnail(photo: Photo, *, long_side: int = LONG_SIDE, quality: int = QUALITY) -> Thumbnail:
  """A thumbnail of at most `long_side` pixels, upright (EXIF orientation applied), never enlarged.

  JPEG files are decoded at a fraction of their size, so memory follows the thumbnail, not the photo.

  Args:
    photo: a file, an image, or uint8 [H, W, 3] (or [H, W]).
    long_side: pixels.
    quality: of the JPEG, 1 to 95.

  Raises:
    PhotoError: the photo is missing or cannot be decoded.
  """
  if isinstance(photo, Image.Image):
    return _encode(_shrink(photo.copy(), long_side), quality)
  if isinstance(photo, np.ndarray):
    return _encode(_shrink(Image.fromarray(photo), long_side), quality)
  if not photo.is_file():
    raise PhotoError('photo not found')
  try:
    with Image.open(photo) as image:
      return _encode(_shrink(image, long_side), quality)
  except _DECODING_ERRORS as error:
    raise PhotoError('photo cannot be decoded') from error


def _shrink(image: Image.Image, long_side: int) -> Image.Image:
  # Both sides are bounded alike, so the orientation may wait until few pixels are left to turn.
  if image.mode == 'P':
    image = image.convert('RGBA')  # palettes cannot be averaged
  image.thumbnail((long_side, long_side), Image.Resampling.LANCZOS)
  return _flatten(ImageOps.exif_transpose(image))


def _flatten(image: Image.Image) -> Image.Image:
  """RGB on a white ground; 16-bit and float grey is stretched to its own range."""
  if image.mode.startswith(('I', 'F')):
    grey = np.asarray(image, np.float64)
    low, high = grey.min(), grey.max()
    image = Image.fromarray(np.uint8(np.round((grey - low) * (255 / max(high - low, 1e-12)))))
  if image.has_transparency_data:
    image = image.convert('RGBA')
    image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
  return image.convert('RGB')


def _encode(image: Image.Image, quality: int) -> Thumbnail:
  buffer = io.BytesIO()
  # A pixel array carries no EXIF, ICC profile or comment along: nothing of the photo's owner leaks.
  pixels = Image.fromarray(np.asarray(image))
  pixels.save(buffer, 'JPEG', quality=quality, optimize=True, progressive=True, subsampling='4:2:0')
  return Thumbnail(image.width, image.height, buffer.getvalue())
