"""Photos reduced to JPEGs for the web page, cached in memory."""

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
  """Reduced photos; the least recently used are dropped first. Threads may share it."""

  def __init__(self, *, upright: bool = True, max_bytes: int = _CACHED_BYTES):
    """Starts empty.

    Args:
      upright: whether to turn photos by their EXIF orientation.
      max_bytes: the size of the cache.
    """
    self._upright = upright
    self._max_bytes = max_bytes
    self._jpegs: collections.OrderedDict[tuple[pathlib.Path, int], bytes] = collections.OrderedDict()
    self._bytes = 0
    self._lock = threading.Lock()

  def get(self, path: pathlib.Path, long_side: int) -> bytes:
    """Returns the photo at `path` as a JPEG of at most `long_side` pixels in width and height.

    Raises:
      ImageError: the photo cannot be decoded.
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
  """Returns the response with a JPEG, or 304 if the browser has it already.

  Browsers ask each time, since another index may have been served at this address before.
  """
  tag = f'"{hashlib.sha256(jpeg).hexdigest()[:24]}"'
  headers = {'Cache-Control': 'private, no-cache', 'ETag': tag}
  if request.headers.get('if-none-match') == tag:
    return Response(status_code=304, headers=headers)
  return Response(jpeg, media_type='image/jpeg', headers=headers)


def preview(pixels: np.ndarray) -> bytes:
  """Returns a photo uint8 [H, W, 3] as a JPEG of at most PREVIEW_SIDE pixels in width and height."""
  return thumbnails.make_thumbnail(pixels, long_side=PREVIEW_SIDE, quality=_QUALITY).jpeg


def _reduced(path: pathlib.Path, long_side: int, upright: bool) -> Thumbnail:
  with images.open_image(path):  # Checks the size before anything is decoded.
    pass
  photo = path if upright else images.load_image(path, apply_exif_orientation=False)
  try:
    return thumbnails.make_thumbnail(photo, long_side=long_side, quality=_QUALITY)
  except thumbnails.PhotoError as error:
    raise ImageError(f'{path.name}: {error}') from error
