"""Decodes photos: every file that Pillow reads becomes RGB, everything else one clear error."""

import contextlib
import io
import pathlib
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps

from delf_d2r.errors import ImageError

MAX_MEGAPIXELS = 200
_DEEP_MODES = ('I', 'I;16', 'I;16B', 'I;16L', 'I;16N')

# open_image checks the size in the header, with the numbers in the message; the limit of Pillow would warn at
# half of it.
Image.MAX_IMAGE_PIXELS = None


@contextlib.contextmanager
def open_image(
  photo: str | pathlib.Path | bytes, *, name: str = '', max_megapixels: int = MAX_MEGAPIXELS
) -> Iterator[Image.Image]:
  """Opens a photo and checks its size, without decoding it. Every error of the body is an ImageError.

  Args:
    photo: the path of a file, or its content.
    name: the name of the photo in messages; by default its path.
    max_megapixels: larger photos are refused.

  Raises:
    ImageError: the photo is missing, unreadable, empty, too large or no image, or the body cannot decode it.
  """
  path = name or (photo if isinstance(photo, str | pathlib.Path) else 'photo')
  try:
    size = len(photo) if isinstance(photo, bytes) else pathlib.Path(photo).stat().st_size
    if size == 0:
      raise ImageError(f'{path}: the file is empty (0 bytes)')
    with warnings.catch_warnings():
      # Pillow warns about unusual metadata (EXIF, palettes) of photos that it decodes correctly.
      warnings.simplefilter('ignore')
      with Image.open(io.BytesIO(photo) if isinstance(photo, bytes) else photo) as image:
        pixels = image.width * image.height
        if pixels > max_megapixels * 1_000_000:
          raise ImageError(
            f'{path}: {image.width} x {image.height} is {pixels / 1e6:.0f} megapixels, more than'
            f' max_megapixels {max_megapixels}. Reduce the photo or raise the limit'
          )
        yield image
  except ImageError:
    raise
  except Image.UnidentifiedImageError:
    raise ImageError(f'{path}: not an image that Pillow can read') from None
  except Exception as error:
    # Decoders raise various exceptions on damaged files: OSError, SyntaxError, struct.error, ...
    raise ImageError(f'{path}: cannot be decoded ({error})') from error


def load_image(
  photo: str | pathlib.Path | bytes,
  *,
  name: str = '',
  apply_exif_orientation: bool = True,
  max_megapixels: int = MAX_MEGAPIXELS,
) -> np.ndarray:
  """Decodes a photo: the first frame if there are several, transparent pixels on white.

  Args:
    photo: the path of a file, or its content.
    name: the name of the photo in messages; by default its path.
    apply_exif_orientation: rotates the photo upright, as viewers show it. All coordinates are in this frame.
    max_megapixels: larger photos are refused before they are decoded.

  Returns:
    uint8 [H, W, 3], RGB.

  Raises:
    ImageError: the photo is missing, unreadable, empty, truncated, too large or no image.
  """
  with open_image(photo, name=name, max_megapixels=max_megapixels) as image:
    if apply_exif_orientation:
      image = ImageOps.exif_transpose(image)
    return np.asarray(to_rgb(image))


def to_rgb(image: Image.Image) -> Image.Image:
  """Converts an image of any mode to RGB: scales 16 bits to 8, composes transparency over white."""
  if image.mode in _DEEP_MODES:
    # The conversion of Pillow clips at 255 instead of scaling.
    return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)).convert(
      'RGB'
    )
  if image.mode in ('RGBA', 'LA', 'PA') or 'transparency' in image.info:
    image = image.convert('RGBA')
    return Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image).convert('RGB')
  return image.convert('RGB')


def image_size(path: str | pathlib.Path, *, apply_exif_orientation: bool = True) -> tuple[int, int]:
  """Returns (height, width) of a photo in pixels, from its header.

  Raises:
    ImageError: as `open_image`.
  """
  with open_image(path) as image:
    width, height = image.size
    is_transposed = apply_exif_orientation and image.getexif().get(0x0112) in (5, 6, 7, 8)
    return (width, height) if is_transposed else (height, width)
