"""Decodes photos: every file that Pillow reads becomes RGB, everything else one clear error."""

import contextlib
import dataclasses
import io
import pathlib
import threading
import warnings
from collections.abc import Iterator

import numpy as np
from absl import logging
from PIL import Image

from delf_d2r.data.photos import deep_colours, greys, photo_formats, photo_state
from delf_d2r.data.photos.photo_state import PhotoState
from delf_d2r.errors import ImageError, PhotoUnavailableError

photo_formats.register()

MAX_MEGAPIXELS = 200
JPEG_FORMATS = ('JPEG', 'MPO')

_ORIENTATION = 0x0112
_TURNS = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}
_INVERSE = {
  Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
  Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
}
_SWAPS_SIDES = frozenset((5, 6, 7, 8))

# A JPEG without its end is used if no more of its blocks than this share are missing.
_MOST_MISSING = 0.25
_END_OF_IMAGE = b'\xff\xd9'
_BLOCK = 8
# libjpeg sets the coefficients of missing blocks to 0.
_MISSING_VALUE = 128


@dataclasses.dataclass(frozen=True)
class Photo:
  """A decoded photo.

  Attributes:
    pixels: uint8 [H, W, 3], RGB.
    state: the identity of the bytes that were decoded.
    is_truncated: whether the end of the file is missing, so that the last rows are grey.
  """

  pixels: np.ndarray
  state: PhotoState
  is_truncated: bool = False


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
    PhotoUnavailableError: the file is missing or cannot be read now, or memory is short.
    ImageError: the photo is empty, too large or no image, reading it is not permitted, or the body cannot
      decode it.
  """
  path = name or (photo if isinstance(photo, str | pathlib.Path) else 'photo')
  with _image_errors(path), contextlib.ExitStack() as stack:
    stream = io.BytesIO(photo) if isinstance(photo, bytes) else stack.enter_context(open(photo, 'rb'))
    if not stream.seekable():  # A pipe, which can be read only once and in order.
      stream = io.BytesIO(stream.read())
    if not stream.read(1):
      raise ImageError(f'{path}: the file is empty (0 bytes)')
    stream.seek(0)
    # Pillow warns about unusual metadata (EXIF, palettes) of photos that it decodes correctly.
    stack.enter_context(warnings.catch_warnings())
    warnings.simplefilter('ignore')
    try:
      image = Image.open(stream)
    except Image.DecompressionBombError:
      stack.enter_context(_PIXEL_LIMIT.lifted())
      stream.seek(0)
      image = Image.open(stream)
    stack.enter_context(image)
    pixels = image.width * image.height
    if pixels > max_megapixels * 1_000_000:
      raise ImageError(
        f'{path}: {image.width} x {image.height} is {pixels / 1e6:.0f} megapixels, more than'
        f' max_megapixels {max_megapixels}. Reduce the photo or raise the limit'
      )
    yield image


@contextlib.contextmanager
def _image_errors(path: object) -> Iterator[None]:
  """Converts errors of the body: those of the system to PhotoUnavailableError, others to ImageError."""
  try:
    yield
  except ImageError:
    raise
  except MemoryError as error:
    raise PhotoUnavailableError(
      f'{path}: there is not enough memory to decode it. Run again with fewer --workers or more memory, or'
      ' reduce the photo'
    ) from error
  except Image.UnidentifiedImageError:
    raise ImageError(f'{path}: not an image that Pillow can read') from None
  except OSError as error:
    # Errors of the system have a number, those of decoders have none.
    if error.errno is None:
      raise ImageError(f'{path}: cannot be decoded ({error})') from error
    if photo_state.is_permanent(error, str(path)):
      raise ImageError(f'{path}: cannot be read ({error.strerror}). Check its permissions') from error
    raise photo_state.unavailable(path, error) from error
  except Exception as error:
    # Decoders raise various exceptions on damaged files: SyntaxError, struct.error, ...
    raise ImageError(f'{path}: cannot be decoded ({error})') from error


class _PixelLimit:
  """The limit of Pillow, which is a global variable of the program that uses this library.

  `open_image` checks the size itself, with the numbers in its message. Only while it decodes a photo that is
  larger than Pillow would allow, the limit is lifted.
  """

  def __init__(self) -> None:
    self._lock = threading.Lock()
    self._users = 0
    self._limit: int | None = None

  @contextlib.contextmanager
  def lifted(self) -> Iterator[None]:
    with self._lock:
      if not self._users:
        self._limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
      self._users += 1
    try:
      yield
    finally:
      with self._lock:
        self._users -= 1
        if not self._users:
          Image.MAX_IMAGE_PIXELS = self._limit


_PIXEL_LIMIT = _PixelLimit()


def read_photo(
  path: str | pathlib.Path,
  *,
  apply_exif_orientation: bool = True,
  max_megapixels: int = MAX_MEGAPIXELS,
) -> Photo:
  """Reads a photo once, and decodes the bytes that its state is a digest of; see `load_image`."""
  data, state = read_bytes(path, max_megapixels=max_megapixels)
  with open_image(data, name=str(path), max_megapixels=max_megapixels) as image:
    rgb, is_truncated = decode(image, apply_exif_orientation=apply_exif_orientation)
    return Photo(np.asarray(rgb), state, is_truncated)


def read_bytes(path: str | pathlib.Path, *, max_megapixels: int = MAX_MEGAPIXELS) -> tuple[bytes, PhotoState]:
  """Returns the bytes of a photo and their state; errors as of `open_image`."""
  with open_image(path, max_megapixels=max_megapixels):
    pass  # Files of other kinds and photos that are too large are not read to their end.
  with _image_errors(path):
    return photo_state.read(path)


def load_image(
  photo: str | pathlib.Path | bytes,
  *,
  name: str = '',
  apply_exif_orientation: bool = True,
  max_megapixels: int = MAX_MEGAPIXELS,
) -> np.ndarray:
  """Decodes a photo: the first frame if there are several, transparent pixels on white.

  A JPEG file whose end is missing is decoded, with a warning, if at most a quarter of it is missing; the
  missing part is grey.

  Args:
    photo: the path of a file, or its content.
    name: the name of the photo in messages; by default its path.
    apply_exif_orientation: rotates the photo upright, as viewers show it. All coordinates are in this frame.
    max_megapixels: larger photos are refused before they are decoded.

  Returns:
    uint8 [H, W, 3], RGB.

  Raises:
    PhotoUnavailableError: the file is missing or cannot be read now, or memory is short.
    ImageError: the photo is empty, truncated, too large or no image, or reading it is not permitted.
  """
  with open_image(photo, name=name, max_megapixels=max_megapixels) as image:
    rgb, is_truncated = decode(image, apply_exif_orientation=apply_exif_orientation)
    if is_truncated:
      logging.warning('%s: truncated; the end of the file is missing', name or _path_or(photo, 'photo'))
    return np.asarray(rgb)


def _path_or(photo: str | pathlib.Path | bytes, otherwise: str) -> str:
  return otherwise if isinstance(photo, bytes) else str(photo)


def decode(image: Image.Image, *, apply_exif_orientation: bool = True) -> tuple[Image.Image, bool]:
  """Decodes an image that was opened by `open_image`.

  Args:
    image: the image. Calls of its `draft` and `thumbnail` are respected.
    apply_exif_orientation: whether to turn it upright.

  Returns:
    The image in RGB, and whether the end of its file is missing.
  """
  stream = getattr(image, 'fp', None)
  has_deep_colours = stream is not None and deep_colours.are_in(image, stream)
  turn = remaining_turn(image, apply_exif_orientation=apply_exif_orientation)
  image, is_truncated = load(image)
  if stream is not None and has_deep_colours and deep_colours.are_lost(image):
    image = deep_colours.decode(stream, image)
  rgb = to_rgb(image)
  return (rgb if turn is None else rgb.transpose(turn)), is_truncated


def remaining_turn(image: Image.Image, *, apply_exif_orientation: bool = True) -> Image.Transpose | None:
  """Returns how to transpose an image, which is not decoded yet, after Pillow has decoded it.

  Pillow itself turns TIFF files upright when it decodes them, and no others. It takes no other metadata of
  the file then.
  """
  orientation = exif_orientation(image)
  turn = _TURNS.get(orientation)
  if not hasattr(image, 'tag_v2'):
    return turn if apply_exif_orientation else None
  _keep_orientation_only(image, orientation)
  return None if apply_exif_orientation or turn is None else _INVERSE.get(turn, turn)


def _keep_orientation_only(image: Image.Image, orientation: int) -> None:
  """Replaces the metadata that Pillow reads after it has decoded a TIFF file, and that may be damaged."""
  exif = Image.Exif()
  exif[_ORIENTATION] = orientation
  setattr(image, 'getexif', lambda: exif)  # noqa: B010 - mypy refuses an assignment to a method.
  for key in ('xmp', 'XML:com.adobe.xmp', 'exif'):
    image.info.pop(key, None)


def exif_orientation(image: Image.Image) -> int:
  """Returns the EXIF orientation of an image that is not decoded yet, 1 to 8; 1 if there is no valid one.

  Raises:
    OSError: the image had to be decoded for it and cannot be.
  """
  if image.format == 'PNG' and 'exif' not in image.info:
    image.load()  # The metadata may come after the pixels. An error of these is no error of the metadata.
  try:
    # Orientation is all that is used of EXIF, so that no other tag can make a photo unusable.
    value = image.getexif().get(_ORIENTATION, 1)
    return int(value) if value in _TURNS else 1
  except Exception:  # Damaged metadata raises nearly any exception.
    return 1


def stored_size(image: Image.Image) -> tuple[int, int]:
  """Returns (width, height) of an image as it is stored, which is not decoded yet."""
  tags = getattr(image, 'tag_v2', None)
  # Pillow gives the size of a TIFF file upright.
  return (tags[256], tags[257]) if tags is not None else image.size


def load(image: Image.Image) -> tuple[Image.Image, bool]:
  """Decodes an image; returns it, and whether the end of its file is missing.

  Raises:
    OSError: it cannot be decoded.
  """
  stream = getattr(image, 'fp', None)
  greys.note_depth(image)
  try:
    image.load()
    return image, False
  except OSError as error:
    if 'out of memory' in str(error):
      _require_memory(image)
    if image.format not in JPEG_FORMATS or 'truncated' not in str(error):
      raise
    whole = _complete(image, stream)
    if whole is None:
      raise
    return whole, True


def _complete(image: Image.Image, stream) -> Image.Image | None:
  """Returns a truncated JPEG whose missing blocks are grey; None if too many are missing."""
  stream.seek(0)
  data = stream.read()
  whole = Image.open(io.BytesIO(data + _END_OF_IMAGE))
  whole.draft(image.mode, image.size)
  try:
    whole.load()
  except OSError:
    return None
  if _progressive_passes(data) == 0 or _missing_share(np.asarray(whole.convert('L'))) > _MOST_MISSING:
    return None
  return whole


def _missing_share(grey: np.ndarray) -> float:
  """Returns the share of the blocks of uint8 [H, W] that have the value of missing blocks."""
  height, width = grey.shape
  rows, columns = np.arange(0, height, _BLOCK), np.arange(0, width, _BLOCK)
  is_other = grey != _MISSING_VALUE
  blocks = np.logical_or.reduceat(np.logical_or.reduceat(is_other, rows, 0), columns, 1)
  return 1 - float(blocks.mean())


def _progressive_passes(data: bytes) -> int:
  """Returns how many scans of a progressive JPEG have all bits of some frequency; 1 of other JPEGs.

  The first scans of a progressive JPEG have the upper bits of its coarse structure alone.
  """
  if b'\xff\xc2' not in data:
    return 1
  complete, start = 0, data.find(b'\xff\xda')
  while start >= 0:
    header = data[start + 4 : start + 2 + int.from_bytes(data[start + 2 : start + 4], 'big')]
    if len(header) >= 3:
      first, low = header[-3], header[-1] & 15
      complete += int(first > 0 and low == 0)
    start = data.find(b'\xff\xda', start + 2)
  return complete


def _require_memory(image: Image.Image) -> None:
  """Raises MemoryError if there is not enough memory for an image: damaged files give the same message."""
  bytearray(16 * image.width * image.height)


def to_rgb(image: Image.Image) -> Image.Image:
  """Converts a decoded image of any mode to RGB: greys of any depth to 8 bits, transparency over white."""
  if greys.is_deep(image):
    return Image.fromarray(greys.to_eight_bits(image)).convert('RGB')
  if image.mode in ('RGBA', 'LA', 'PA') or 'transparency' in image.info:
    image = image.convert('RGBA')
    return Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image).convert('RGB')
  # A copy of a large photo would take as much memory again.
  return image if image.mode == 'RGB' else image.convert('RGB')


def image_size(path: str | pathlib.Path, *, apply_exif_orientation: bool = True) -> tuple[int, int]:
  """Returns (height, width) of a photo in pixels, from its header.

  Raises:
    ImageError: as `open_image`.
  """
  with open_image(path) as image:
    width, height = stored_size(image)
    is_transposed = apply_exif_orientation and exif_orientation(image) in _SWAPS_SIDES
    return (width, height) if is_transposed else (height, width)
