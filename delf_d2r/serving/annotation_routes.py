"""The API for drawing boxes on the photos of a folder, which are identified by their numbers."""

import asyncio
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from delf_d2r.errors import ImageError, UserError
from delf_d2r.serving.annotations import Annotations, rounded_box
from delf_d2r.serving.decoding import DecodingBudget
from delf_d2r.serving.executor import RequestExecutor
from delf_d2r.serving.jpeg_cache import PREVIEW_SIDE, JpegCache, response
from delf_d2r.serving.problems import Problem


class Progress(BaseModel):
  """The progress of annotating."""

  total: int
  done: int = Field(description='Photos that have a box or are labelled as showing no object.')
  output: str = Field(description='The file that the boxes are saved in.')
  next: int | None = Field(description='The next photo without label; null if all have one.')


class Annotation(BaseModel):
  """The label of one photo."""

  number: int
  name: str
  box: list[float] | None = Field(description='[ymin, xmin, ymax, xmax], normalised.')
  done: bool = Field(description='Whether the photo is labelled; with a box of null as showing no object.')


class Change(BaseModel):
  """The new label of a photo."""

  box: Annotated[list[float], Field(min_length=4, max_length=4)] | None = Field(
    description='[ymin, xmin, ymax, xmax], normalised; null if the photo shows no object.'
  )


def router(annotations: Annotations, execute: RequestExecutor, decoding: DecodingBudget) -> APIRouter:
  """Returns the routes for the annotations of one folder."""
  routes = APIRouter(prefix='/api/annotate', tags=['annotate'])
  jpegs = JpegCache(decoding)

  def checked(number: int) -> int:
    if not 0 <= number < len(annotations):
      raise Problem(404, f'the folder has {len(annotations)} photos, none with number {number}')
    return number

  def state(number: int) -> Annotation:
    box = annotations.box(number)
    return Annotation(
      number=number,
      name=annotations.photos.names[number],
      box=None if box is None else list(box),
      done=annotations.is_labelled(number),
    )

  async def preview(number: int, request: Request) -> bytes:
    path = annotations.photos.path(annotations.photos.names[checked(number)])
    try:
      return await execute(request, jpegs.get, path, PREVIEW_SIDE)
    except ImageError as error:
      raise Problem(
        422,
        str(error),
        'It cannot have a box: label it as showing no object, or continue with the next photo.',
      ) from error

  async def saved(change: Callable[..., None], *args: object) -> None:
    try:
      await asyncio.to_thread(change, *args)
    except UserError as error:
      raise Problem(507, str(error), 'The box is not saved. Put the file right and try again.') from error

  @routes.get('')
  async def progress(
    start: Annotated[int, Query(ge=0, description='Look for the next photo from this one on.')] = 0,
  ) -> Progress:
    """Returns the progress, and the next photo without label."""
    return Progress(
      total=len(annotations),
      done=annotations.num_labelled,
      output=str(annotations.output),
      next=await asyncio.to_thread(annotations.next_unlabelled, start),
    )

  @routes.get('/{number}')
  async def read(number: int) -> Annotation:
    """Returns the label of a photo."""
    return state(checked(number))

  @routes.put('/{number}')
  async def write(number: int, change: Change, request: Request) -> Annotation:
    """Sets the box of a photo, or labels it as showing no object; it is saved before the response."""
    if change.box is None:
      await saved(annotations.set_no_object, checked(number))
    else:
      box = rounded_box(change.box, 'box')
      # A photo that cannot be decoded gets no box: no detector can be trained on it. Whoever draws on a photo
      # has loaded it, so it is in the cache.
      await preview(number, request)
      await saved(annotations.set_box, number, box)
    return state(number)

  @routes.delete('/{number}')
  async def clear(number: int) -> Annotation:
    """Removes the label of a photo."""
    await saved(annotations.clear, checked(number))
    return state(number)

  @routes.get('/{number}/photo', response_class=Response)
  async def photo(number: int, request: Request) -> Response:
    """Returns the photo as a JPEG, at most 1,280 pixels wide and high."""
    return response(await preview(number, request), request)

  return routes
