"""Photos as JPEGs of some size, made once; and the indexed photos, found by id or name and never by path."""

import collections
import functools
import hashlib
import pathlib
import threading

import numpy as np
from fastapi import Request, Response

from delf_d2r.data import images
from delf_d2r.engine import SearchEngine
from delf_d2r.errors import ImageError
from delf_d2r.report import thumbnails
from delf_d2r.report.thumbnails import Thumbnail
from delf_d2r.serving.problems import Problem

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


class IndexedPhotos:
  """The photos of an index.

  A request names a photo by its id or its name in the index; what is not there is not found, so no request
  can lead to another file.
  """

  def __init__(self, engine: SearchEngine, folder: pathlib.Path | None):
    self._engine = engine
    self.folder = folder if folder is not None and folder.is_dir() else None

  def __len__(self) -> int:
    return len(self._engine)

  @property
  def names(self):
    return self._engine.index.image_names

  @functools.cached_property
  def _ids(self) -> dict[str, int]:
    return {name: image_id for image_id, name in enumerate(self.names)}

  def id_of(self, name: str) -> int:
    """The image id of a name; Problem 404 if the index does not have it."""
    if name not in self._ids:
      raise Problem(404, f'the index has no photo {name[:200]!r}', 'GET /api/images lists all names.')
    return self._ids[name]

  def path(self, image_id: int) -> pathlib.Path:
    """The file of an indexed photo; Problem 404 if there is no such image or its photo is not at hand."""
    if not 0 <= image_id < len(self):
      raise Problem(404, f'the index has {len(self)} photos, none with id {image_id}')
    name = self.names[image_id]
    # An index may come from someone else.
    stays_inside = not name.startswith('/') and '..' not in name.split('/')
    path = self.folder / name if self.folder and stays_inside else None
    if path is None or not path.is_file():
      raise Problem(
        404,
        f'the photo {name} is not at hand',
        'Start the server with --images=FOLDER, where the photos are now.',
      )
    return path

  def find(self, text: str, start: int, count: int) -> tuple[int, list[int]]:
    """How many names contain `text`, in any case, and the image ids of `count` of them from `start`."""
    if not text:
      return len(self), list(range(len(self))[start : start + count])
    wanted = text.casefold()
    found = [image_id for image_id, name in enumerate(self.names) if wanted in name.casefold()]
    return len(found), found[start : start + count]
