"""Photos reduced to JPEGs for the web page, cached in memory."""

import collections
import dataclasses
import hashlib
import pathlib
import threading

import numpy as np
from fastapi import Request, Response

from delf_d2r.data.photos import images
from delf_d2r.errors import ImageError
from delf_d2r.report import thumbnails
from delf_d2r.report.thumbnails import Thumbnail
from delf_d2r.serving.decoding import DecodingBudget
from delf_d2r.serving.options import Options

THUMBNAIL_SIDE = 320
PREVIEW_SIDE = 1280
_QUALITY = 82
_CACHED_BYTES = 64_000_000
_ENTRY_BYTES = 1000  # of keys and objects, about

# Modification time, size and number of a file, which change when it is replaced.
_Version = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Entry:
  version: _Version
  jpeg: bytes

  @property
  def nbytes(self) -> int:
    return len(self.jpeg) + _ENTRY_BYTES


class JpegCache:
  """Reduced photos; the least recently used are dropped first. Threads may share it.

  A photo whose file was replaced is read again.
  """

  def __init__(
    self,
    decoding: DecodingBudget | None = None,
    *,
    upright: bool = True,
    max_bytes: int = _CACHED_BYTES,
  ):
    """Starts empty.

    Args:
      decoding: bounds the photos that are decoded at the same time; None for bounds of its own.
      upright: whether to turn photos by their EXIF orientation.
      max_bytes: the size of the cache.
    """
    default = Options()
    self._decoding = decoding or DecodingBudget(default.max_decoded_megapixels, seconds=default.wait_seconds)
    self._upright = upright
    self._max_bytes = max_bytes
    self._entries: collections.OrderedDict[tuple[pathlib.Path, int], _Entry] = collections.OrderedDict()
    self._bytes = 0
    self._lock = threading.Lock()

  def get(self, path: pathlib.Path, long_side: int) -> bytes:
    """Returns the photo at `path` as a JPEG of at most `long_side` pixels in width and height.

    Raises:
      ImageError: the photo cannot be decoded.
    """
    key = (path, long_side)
    version = _version(path)
    with self._lock:
      found = self._entries.get(key)
      if found is not None and found.version == version:
        self._entries.move_to_end(key)
        return found.jpeg
    with self._decoding.of_photo(path):
      jpeg = _reduced(path, long_side, self._upright).jpeg
    # One that was replaced meanwhile is returned once, but not kept.
    if version is not None and version == _version(path):
      self._keep(key, _Entry(version, jpeg))
    return jpeg

  def _keep(self, key: tuple[pathlib.Path, int], entry: _Entry) -> None:
    with self._lock:
      before = self._entries.pop(key, None)
      self._bytes += entry.nbytes - (before.nbytes if before else 0)
      self._entries[key] = entry
      while self._bytes > self._max_bytes and len(self._entries) > 1:
        self._bytes -= self._entries.popitem(last=False)[1].nbytes


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


def public_version(path: pathlib.Path | None) -> str:
  """Returns a text that changes when the file of a photo does; '' if there is no file.

  A page adds it to the addresses of pictures: browsers do not ask again for one that a page has shown.
  """
  version = _version(path) if path else None
  return hashlib.sha256(repr(version).encode()).hexdigest()[:12] if version else ''


def _version(path: pathlib.Path) -> _Version | None:
  """Returns the version of a file; None if there is none."""
  try:
    status = path.stat()
  except OSError:
    return None
  return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def _reduced(path: pathlib.Path, long_side: int, upright: bool) -> Thumbnail:
  with images.open_image(path):  # Checks the size before anything is decoded.
    pass
  photo = path if upright else images.load_image(path, apply_exif_orientation=False)
  try:
    return thumbnails.make_thumbnail(photo, long_side=long_side, quality=_QUALITY)
  except thumbnails.PhotoError as error:
    raise ImageError(f'{path.name}: {error}') from error
