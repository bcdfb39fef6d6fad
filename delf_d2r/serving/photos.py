"""Photos as JPEGs of some size, made once."""

import collections
import hashlib
import pathlib
import threading

import numpy as np
from fastapi import Request, Response

from delf_d2r.data.photos import images
from delf_d2r.errors import ImageError
from delf_d2r.report import thumbnails
from delf_d2r.report.thumbnails import Thumbnail

THUMBNAIL_SIDE = 320
PREVIEW_SIDE = 1280
_QUALITY = 82
_CACHED_BYTES = 64_000_000


class JpegCache:
  """Reduced photos, the most recently used ones."""

  def __init__(self, *, upright: bool = True, max_bytes: int = _CACHED_BYTES):
    """`upright`: turn photos as their EXIF orientation says."""
    self._upright = upright
    self._max_bytes = max_bytes
    self._jpegs: collections.OrderedDict[tuple, bytes] = collections.OrderedDict()
    self._bytes = 0
    self._lock = threading.Lock()

  def get(self, path: pathlib.Path, long_side: int) -> bytes:
    """The photo at `path` as a JPEG of at most `long_side` pixels.

    Raises:
      ImageError: it cannot be decoded.
    """
    key = (path, long_side)
    with self._lock:
      if key in self._jpegs:
        self._jpegs.move_to_end(key)
        return self._jpegs[key]
    jpeg = _reduced(path, long_side, self._upright).jpeg
    with self._lock:
      if key not in self._jpegs:
        self._jpegs[key] = jpeg
        self._bytes += len(jpeg)
      while self._bytes > self._max_bytes and len(self._jpegs) > 1:
        self._bytes -= len(self._jpegs.popitem(last=False)[1])
    return jpeg


def response(jpeg: bytes, request: Request) -> Response:
  """A JPEG, or that the browser has it already: another index may have been served at its address before."""
  tag = f'"{hashlib.sha256(jpeg).hexdigest()[:24]}"'
  headers = {'Cache-Control': 'private, no-cache', 'ETag': tag}
  if request.headers.get('if-none-match') == tag:
    return Response(status_code=304, headers=headers)
  return Response(jpeg, media_type='image/jpeg', headers=headers)


def of_pixels(pixels: np.ndarray) -> bytes:
  """The JPEG of a photo uint8 [H, W, 3] for the page."""
  return thumbnails.make_thumbnail(pixels, long_side=PREVIEW_SIDE, quality=_QUALITY).jpeg


def _reduced(path: pathlib.Path, long_side: int, upright: bool) -> Thumbnail:
  with images.open_image(path):  # Checks its size before anything is decoded.
    pass
  photo = path if upright else images.load_image(path, apply_exif_orientation=False)
  try:
    return thumbnails.make_thumbnail(photo, long_side=long_side, quality=_QUALITY)
  except thumbnails.PhotoError as error:
    raise ImageError(f'{path.name}: {error}') from error
