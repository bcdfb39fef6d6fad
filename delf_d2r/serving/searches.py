"""What the API's routes do with the engine, on threads."""

import dataclasses
import math
import pathlib
import time
from typing import BinaryIO

from delf_d2r.data.photos import images
from delf_d2r.data.photos.photo_folders import PhotoFolders
from delf_d2r.engine import SearchEngine
from delf_d2r.engine.attribution import explain
from delf_d2r.errors import ImageError
from delf_d2r.report.match_views import match_document
from delf_d2r.serving import answers, schemas
from delf_d2r.serving.indexed_photos import IndexedPhotos
from delf_d2r.serving.options import Options
from delf_d2r.serving.photos import JpegCache, of_pixels
from delf_d2r.serving.problems import Problem
from delf_d2r.serving.queries import Query, QueryStore

# What is taken from strangers: Pillow decodes some other formats by running programs, EPS by Ghostscript.
_FORMATS = frozenset(
  ('AVIF', 'BMP', 'DIB', 'GIF', 'JPEG', 'JPEG2000', 'MPO', 'PNG', 'PPM', 'TGA', 'TIFF', 'WEBP')
)

Photo = bytes | pathlib.Path


class Searches:
  """Searches, explains and shows photos."""

  def __init__(self, engine: SearchEngine, options: Options, photos: PhotoFolders | None):
    if photos is not None:
      engine.photos = photos
    self.photos = IndexedPhotos(engine)
    self.queries = QueryStore(options.remembered_bytes)
    self._engine = engine
    self._options = options
    self._jpegs = JpegCache(upright=engine.artefact.config.extraction.apply_exif_orientation)

  def search(
    self, photo: BinaryIO | Photo, name: str, box: tuple[float, ...] | None, top_k: int, *, verify: bool
  ) -> schemas.SearchAnswer:
    """The index images most similar to a photo or a box of it.

    Args:
      photo: an open upload, what is in one, or the path of an indexed photo.
      name: what it is called.
      box: `(ymin, xmin, ymax, xmax)`, normalised, or None.
      top_k: number of results; 0 for as many as the options allow.
      verify: put first what one transform confirms, most inliers ahead.
    """
    if not isinstance(photo, bytes | pathlib.Path):
      photo = photo.read()  # Only now, so that uploads that wait for their turn take no memory.
    if isinstance(photo, bytes):
      self._check_upload(photo, name)
    start = time.perf_counter()
    pixels = self._engine.load_photo(photo, name=name)
    decoded = time.perf_counter() - start
    top_k = min(top_k or math.inf, self._options.max_results)
    answer = self._engine.search(pixels, box=box, top_k=top_k, verify=verify)
    answer = dataclasses.replace(answer, seconds=answer.seconds | {'decode': decoded})
    image_ids = [self.photos.id_of_result(result.name) for result in answer.results]
    regions = {
      image_id: result.best_region for image_id, result in zip(image_ids, answer.results, strict=True)
    }
    key = self.queries.add(Query(name, photo, of_pixels(pixels), answer.features, regions))
    return answers.search_answer(key, name, box, answer, image_ids)

  def match(self, query: Query, image_id: int) -> schemas.Match:
    """Why one of the results of a query matched."""
    index, position = self._engine.index, self.photos.position(image_id)
    try:
      image = self._engine.features(position)
      why = explain(self._engine, query.features, position, image, region=query.regions[image_id])
      match = self._engine.match(query.features.features, position)
    finally:
      if self._engine.index is not index:  # It may have been another image.
        raise Problem(503, 'the index has changed meanwhile')
    return schemas.Match(id=image_id, **match_document(query.features, image, why, match))

  def jpeg(self, image_id: int, long_side: int) -> bytes:
    """An indexed photo of at most `long_side` pixels."""
    return self._jpegs.get(self.photos.path(image_id), long_side)

  def _check_upload(self, photo: bytes, name: str) -> None:
    with images.open_image(photo, name=name, max_megapixels=self._options.max_megapixels) as image:
      if image.format not in _FORMATS:
        raise ImageError(f'{name}: photos of format {image.format} are not taken')
