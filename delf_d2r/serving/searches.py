"""Searches of the web page: runs them on the engine, remembers their queries, explains their results."""

import collections
import dataclasses
import pathlib
import secrets
import sys
import threading
import time
from typing import BinaryIO

import numpy as np

from delf_d2r.data.photos import images
from delf_d2r.data.photos.photo_folders import PhotoFolders
from delf_d2r.engine import Answer, SearchEngine, SearchResult
from delf_d2r.engine.attribution import explain
from delf_d2r.errors import ArtefactError, ImageError
from delf_d2r.index import IndexFormatError
from delf_d2r.report.match_views import match_document
from delf_d2r.serving import schemas
from delf_d2r.serving.decoding import DecodingBudget
from delf_d2r.serving.indexed_photos import IndexedPhotos
from delf_d2r.serving.jpeg_cache import JpegCache, preview, public_version
from delf_d2r.serving.options import Options
from delf_d2r.serving.problems import Problem
from delf_d2r.structures import FEATURE_ARRAYS, ImageFeatures

# The accepted formats of uploads. Pillow decodes some others by running external programs, EPS by
# Ghostscript.
_FORMATS = frozenset(
  ('AVIF', 'BMP', 'DIB', 'GIF', 'HEIF', 'JPEG', 'JPEG2000', 'MPO', 'PNG', 'PPM', 'TGA', 'TIFF', 'WEBP')
)
_NO_FEATURES = (
  'No local features were found in the query: the photo or its box is too small or too smooth. Choose a'
  ' larger box, or another photo.'
)
_FOUND_BY_GLOBAL = (
  'No local features were found in the query: the photo or its box is too small or too smooth. Photos are'
  ' ranked by the global part of the score alone.'
)

# The memory of objects beside their contents, about: of a query, of an array and of a number.
_QUERY_BYTES = 1500
_ARRAY_BYTES = 150
_NUMBER_BYTES = 32

# The contents of an upload, or the path of an indexed photo.
Photo = bytes | pathlib.Path


@dataclasses.dataclass(frozen=True)
class Query:
  """A query that was searched for.

  Attributes:
    name: the name of the photo.
    photo: the contents of the upload, or the path of an indexed photo.
    preview: the photo as a JPEG, which any browser can show.
    features: the local features of the query.
    regions: for each result, by its id, the region that scored best.
  """

  name: str
  photo: Photo
  preview: bytes
  features: ImageFeatures
  regions: dict[int, int]

  @property
  def nbytes(self) -> int:
    """The memory of the query in bytes, that of its objects included."""
    features = self.features
    arrays = [getattr(features.features, name) for name in FEATURE_ARRAYS]
    arrays += [value for value in vars(features).values() if isinstance(value, np.ndarray)]
    texts = sum(map(sys.getsizeof, (self.name, self.preview, self.photo)))
    return _QUERY_BYTES + texts + sum(map(_array_bytes, arrays)) + self._region_bytes

  @property
  def _region_bytes(self) -> int:
    return sys.getsizeof(self.regions) + _NUMBER_BYTES * len(self.regions)


def _array_bytes(array: np.ndarray) -> int:
  """Returns the memory of an array in bytes; of a view, that of the whole array that it keeps in memory."""
  base = array
  while isinstance(base.base, np.ndarray):
    base = base.base
  return max(base.nbytes, array.nbytes) + _ARRAY_BYTES


class QueryCache:
  """Past queries by an id that cannot be guessed; the least recently used are dropped first."""

  def __init__(self, max_bytes: int):
    """Starts empty; queries of more than `max_bytes` in total are dropped."""
    self._max_bytes = max_bytes
    self._queries: collections.OrderedDict[str, Query] = collections.OrderedDict()
    self._bytes = 0
    self._lock = threading.Lock()

  def add(self, query: Query) -> str:
    """Adds a query and returns its id. The newest query is kept whatever its size."""
    key = secrets.token_urlsafe(12)
    with self._lock:
      self._queries[key] = query
      self._bytes += query.nbytes
      while self._bytes > self._max_bytes and len(self._queries) > 1:
        _, dropped = self._queries.popitem(last=False)
        self._bytes -= dropped.nbytes
    return key

  def get(self, key: str) -> Query:
    """Returns the query of an id.

    Raises:
      Problem: 410, there is no such query or it was dropped.
    """
    with self._lock:
      if key not in self._queries:
        raise Problem(410, f'query {key[:40]!r} is not remembered (any more)', 'Search with the photo again.')
      self._queries.move_to_end(key)
      return self._queries[key]


class Searches:
  """Searches for photos, explains the results and shows the photos.

  Attributes:
    photos: the indexed photos.
    queries: the queries of past searches.
  """

  def __init__(
    self,
    engine: SearchEngine,
    options: Options,
    decoding: DecodingBudget,
    photos: PhotoFolders | None,
  ):
    """Takes the engine, the limits, and the folders of the indexed photos if they have moved."""
    if photos is not None:
      engine.photos = photos
    self.photos = IndexedPhotos(engine)
    self.queries = QueryCache(options.query_cache_bytes)
    self._engine = engine
    self._options = options
    self._decoding = decoding
    self._jpegs = JpegCache(decoding, upright=engine.artefact.config.extraction.apply_exif_orientation)

  def search(
    self, photo: BinaryIO | Photo, name: str, box: tuple[float, ...] | None, top_k: int, *, verify: bool
  ) -> schemas.SearchAnswer:
    """Returns the index images most similar to a photo or to a box of it.

    Args:
      photo: an open upload, its contents, or the path of an indexed photo.
      name: the name of the photo.
      box: `(ymin, xmin, ymax, xmax)` normalised to [0, 1], or None for the whole photo.
      top_k: number of results; 0 for as many as the options allow.
      verify: whether to verify the results spatially.

    Raises:
      UserError: the photo or the box cannot be used.
    """
    if not isinstance(photo, bytes | pathlib.Path):
      photo = photo.read()  # Read only now, so that waiting uploads take no memory.
    if isinstance(photo, bytes):
      self._check_upload(photo, name)
    top_k = min(top_k or self._options.max_results, self._options.max_results)
    with self._decoding.of_photo(photo, name=name):
      start = time.perf_counter()
      pixels = self._engine.load_photo(photo, name=name)
      decoded = time.perf_counter() - start
      answer = self._engine.search(pixels, box=box, top_k=top_k, verify=verify)
      shown = preview(pixels)
      del pixels
    image_ids = [self.photos.id_of_result(result.name) for result in answer.results]
    regions = {
      image_id: result.best_region for image_id, result in zip(image_ids, answer.results, strict=True)
    }
    key = self.queries.add(Query(name, photo, shown, answer.features, regions))
    results = zip(answer.results, image_ids, strict=True) if answer.can_find else ()
    return schemas.SearchAnswer(
      query=key,
      name=name,
      height=answer.features.height,
      width=answer.features.width,
      box=list(box) if box else None,
      num_features=answer.num_features,
      note=_note(answer),
      seconds=answer.seconds | {'decode': decoded},
      results=[_result(*result, self.version(result[0].name)) for result in results],
      missing_shards=list(answer.missing_shards),
    )

  def match(self, query: Query, image_id: int) -> schemas.Match:
    """Returns the reasons why one of the results of a query matched.

    Raises:
      Problem: 404, the image was removed; 503, the index has changed meanwhile.
    """
    self._engine.refresh()
    index, position = self._engine.index, self.photos.position(image_id)
    region = query.regions[image_id]
    try:
      image = self._engine.features(position)
      why = explain(self._engine, query.features, position, image, region=region)
      match = self._engine.match(query.features.features, position)
    except (ArtefactError, IndexFormatError):
      self._engine.refresh(wait=True)  # Another process may have removed the files.
      raise
    finally:
      if self._engine.index is not index:  # The position may belong to another image by now.
        raise Problem(503, 'the index has changed meanwhile')
    document = match_document(query.features, image, why, match, region=region)
    return schemas.Match(id=image_id, version=self.version(document['name']), **document)

  def version(self, name: str) -> str:
    """Returns a text that changes when the file of an indexed photo does; '' if it cannot be found."""
    return public_version(self._engine.photos.find(name))

  def jpeg(self, image_id: int, long_side: int) -> bytes:
    """Returns an indexed photo as a JPEG of at most `long_side` pixels in width and height."""
    self._engine.refresh()
    return self._jpegs.get(self.photos.path(image_id), long_side)

  def _check_upload(self, photo: bytes, name: str) -> None:
    with images.open_image(photo, name=name, max_megapixels=self._options.max_megapixels) as image:
      if image.format not in _FORMATS:
        raise ImageError(f'{name}: photos of format {image.format} are not accepted')


def _note(answer: Answer) -> str | None:
  """Returns what a user should know about an answer."""
  if not answer.num_features:
    return _FOUND_BY_GLOBAL if answer.can_find else _NO_FEATURES
  if answer.missing_shards:
    numbers = ', '.join(map(str, answer.missing_shards))
    return f'Incomplete: the shards {numbers} of the index did not answer; their photos were not searched.'
  return None


def _result(result: SearchResult, image_id: int, version: str) -> schemas.Result:
  return schemas.Result(
    rank=result.rank,
    id=image_id,
    name=result.name,
    version=version,
    score=result.score,
    local_score=result.local_score,
    global_score=result.global_score,
    boxes=result.boxes.tolist(),
    best_region=None if result.best_region < 0 else result.best_region,
    inliers=result.inliers,
  )
