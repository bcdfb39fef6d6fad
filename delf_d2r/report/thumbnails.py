"""Thumbnails of photos: small JPEG images as data URIs."""

import base64
import dataclasses
import io
from pathlib import Path

import numpy as np
from PIL import Image

from delf_d2r.data.photos import greys, images
from delf_d2r.errors import ImageError

LONG_SIDE = 200
QUALITY = 68

Photo = Path | Image.Image | np.ndarray


class PhotoError(ValueError):
  """A thumbnail cannot be made; the message is a short reason that the page can show."""


@dataclasses.dataclass(frozen=True)
class Thumbnail:
  """A small JPEG image.

  Attributes:
    width, height: in pixels.
    jpeg: the bytes of the file.
  """

  width: int
  height: int
  jpeg: bytes

  @property
  def data_uri(self) -> str:
    return f'data:image/jpeg;base64,{base64.b64encode(self.jpeg).decode("ascii")}'


def make_thumbnail(photo: Photo, *, long_side: int = LONG_SIDE, quality: int = QUALITY) -> Thumbnail:
  """Returns a thumbnail of at most `long_side` pixels, upright (EXIF orientation applied), never enlarged.

  JPEG files are decoded at a fraction of their size, so that memory depends on the thumbnail, not the photo.

  Args:
    photo: a file, an image, or uint8 [H, W, 3] (or [H, W]).
    long_side: in pixels.
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
    with images.open_image(photo) as image:
      return _encode(_shrink(image, long_side), quality)
  except ImageError as error:
    raise PhotoError('photo cannot be decoded') from error


def _shrink(image: Image.Image, long_side: int) -> Image.Image:
  # Both sides have the same limit, so that the orientation can be applied to the few pixels of the thumbnail.
  turn = images.remaining_turn(image)
  size = (long_side, long_side)
  try:
    if image.mode == 'P':
      image = image.convert('RGBA')  # Palettes cannot be averaged.
    image.thumbnail(size, Image.Resampling.LANCZOS)
  except OSError:
    # A JPEG without its end is shown, too. Others decode silently at the second attempt, and wrongly.
    if image.format not in images.JPEG_FORMATS:
      raise
    image, _ = images.load(image)
    image.thumbnail(size, Image.Resampling.LANCZOS)
  flat = _flatten(image)
  return flat if turn is None else flat.transpose(turn)


def _flatten(image: Image.Image) -> Image.Image:
  """Returns RGB on white background; 16-bit and float grey is stretched to its own range."""
  if greys.is_deep(image):
    grey = greys.to_eight_bits(image).astype(np.float64)
    low, high = grey.min(), grey.max()
    image = Image.fromarray(np.uint8(np.round((grey - low) * (255 / max(high - low, 1e-12)))))
  if image.has_transparency_data:
    image = image.convert('RGBA')
    image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
  return image.convert('RGB')


def _encode(image: Image.Image, quality: int) -> Thumbnail:
  buffer = io.BytesIO()
  # A pixel array has no EXIF, ICC profile or comment, so that no data of the photo's owner leaks.
  pixels = Image.fromarray(np.asarray(image))
  pixels.save(buffer, 'JPEG', quality=quality, optimize=True, progressive=True, subsampling='4:2:0')
  return Thumbnail(image.width, image.height, buffer.getvalue())
