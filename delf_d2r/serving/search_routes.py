"""The API of the search: photos in, ranked index images and the reasons why they matched out."""

import asyncio
import contextlib
from typing import Annotated, Any, BinaryIO

import numpy as np
from fastapi import APIRouter, File, Form, Query, Request, UploadFile
from fastapi.responses import Response

from delf_d2r.data.boxes.csv_file import check_box
from delf_d2r.data.photos.photo_folders import PhotoFolders
from delf_d2r.engine import SearchEngine
from delf_d2r.report import scores
from delf_d2r.serving import schemas
from delf_d2r.serving.decoding import DecodingBudget
from delf_d2r.serving.executor import RequestExecutor
from delf_d2r.serving.jpeg_cache import PREVIEW_SIDE, THUMBNAIL_SIDE, response
from delf_d2r.serving.options import Options
from delf_d2r.serving.problems import Problem
from delf_d2r.serving.searches import Photo, Searches

_JPEG: dict[int | str, dict[str, Any]] = {200: {'content': {'image/jpeg': {}}, 'description': 'A JPEG.'}}


def router(
  engine: SearchEngine,
  options: Options,
  execute: RequestExecutor,
  decoding: DecodingBudget,
  folders: PhotoFolders | None,
  *,
  annotates: bool,
) -> APIRouter:
  """Returns the routes of a search engine.

  Args:
    engine: the search engine.
    options: the limits of the server.
    execute: runs the searches.
    decoding: bounds the photos that are decoded at the same time.
    folders: the folders of the indexed photos, if they have moved.
    annotates: whether the server also has the page for drawing boxes.
  """
  routes = APIRouter(prefix='/api', tags=['search'])
  searches = Searches(engine, options, decoding, folders)
  photos = searches.photos

  @routes.get('/limits')
  async def limits() -> schemas.Limits:
    """Returns the limits and abilities of the server."""
    await asyncio.to_thread(engine.refresh)
    return schemas.Limits(
      images=len(photos),
      photos_at_hand=photos.can_be_shown,
      annotates=annotates,
      verifies=engine.verifies,
      cannot_verify=engine.why_unverifiable,
      score_meanings=scores.meanings(engine.fusion),
      inliers_meaning=scores.INLIERS,
      max_upload_bytes=options.max_upload_bytes,
      max_megapixels=options.max_megapixels,
      max_results=options.max_results,
    )

  @routes.post('/search')
  async def search(
    request: Request,
    photo: Annotated[UploadFile | None, File(description='A photo.')] = None,
    indexed: Annotated[str | None, Form(description='Instead, the name of an indexed photo.')] = None,
    query: Annotated[str | None, Form(description='Instead, the id of an earlier search.')] = None,
    box: Annotated[
      str | None, Form(description='ymin,xmin,ymax,xmax in [0, 1], the part of the photo to search for.')
    ] = None,
    top_k: Annotated[int, Form(ge=0, description='Number of results; 0 for the maximum.')] = 24,
    verify: Annotated[
      bool, Form(description='Rank by the matches that agree on one transform between the photos (slower).')
    ] = False,
  ) -> schemas.SearchAnswer:
    """Returns the index images most similar to a photo or to a box of it."""
    if sum(given is not None for given in (photo, indexed, query)) != 1:
      raise Problem(422, 'give one of photo, indexed and query', 'Send exactly one of the three fields.')
    corners = _parse_box(box)
    source: BinaryIO | Photo
    if photo is not None:
      source, name = photo.file, _base_name(photo.filename)
    elif indexed is not None:
      await asyncio.to_thread(engine.refresh)
      source, name = photos.path(photos.id_of(indexed)), indexed
    else:
      earlier = searches.queries.get(query or '')
      source, name = earlier.photo, earlier.name
    return await execute(request, searches.search, source, name, corners, top_k, verify=verify)

  @routes.get('/query/{query}/photo', responses=_JPEG, response_class=Response)
  async def query_photo(query: str, request: Request) -> Response:
    """Returns the photo of a search as a JPEG."""
    return response(searches.queries.get(query).preview, request)

  @routes.get('/match')
  async def match(
    request: Request,
    query: Annotated[str, Query(description='Id of a search.')],
    image: Annotated[int, Query(description='Id of one of its results.')],
  ) -> schemas.Match:
    """Returns why an index image matched: the exact share of each visual word in its score."""
    found = searches.queries.get(query)
    if image not in found.regions:
      raise Problem(404, f'image {image} is not among the results of this search')
    return await execute(request, searches.match, found, image)

  @routes.get('/images')
  async def list_images(
    filter: Annotated[str, Query(max_length=200, description='Part of the name, ignoring case.')] = '',
    start: Annotated[int, Query(ge=0)] = 0,
    count: Annotated[int, Query(ge=1, le=1000)] = 60,
  ) -> schemas.Images:
    """Returns the indexed photos, a page at a time."""

    def find() -> schemas.Images:
      engine.refresh()
      total, found = photos.find(filter, start, count)
      images = [schemas.Image(id=i, name=name, version=searches.version(name)) for i, name in found]
      return schemas.Images(total=total, images=images)

    return await asyncio.to_thread(find)

  @routes.get('/photo/{image}', responses=_JPEG, response_class=Response)
  async def photo(image: int, request: Request) -> Response:
    """Returns an indexed photo as a JPEG, at most 1,280 pixels wide and high."""
    return response(await execute(request, searches.jpeg, image, PREVIEW_SIDE), request)

  @routes.get('/photo/{image}/thumbnail', responses=_JPEG, response_class=Response)
  async def thumbnail(image: int, request: Request) -> Response:
    """Returns an indexed photo as a JPEG, at most 320 pixels wide and high."""
    return response(await execute(request, searches.jpeg, image, THUMBNAIL_SIDE), request)

  return routes


def _parse_box(text: str | None) -> tuple[float, ...] | None:
  if not text:
    return None
  box: tuple[float, ...] = ()
  with contextlib.suppress(ValueError):
    box = tuple(float(part) for part in text.split(','))
  if len(box) != 4:
    raise Problem(
      422, f'box={text[:100]}: not a box', 'Send four numbers ymin,xmin,ymax,xmax, like 0.1,0.2,0.8,0.9.'
    )
  check_box(box, 'box')
  # Rounded to float32, like the boxes of the index.
  return tuple(np.array(box, np.float32).tolist())


def _base_name(filename: str | None) -> str:
  return (filename or 'photo').replace('\\', '/').rsplit('/', 1)[-1][:200] or 'photo'
