"""The API of drawing boxes: one photo of the folder after the other, by its number."""

import asyncio
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from delf_d2r.errors import ImageError, UserError
from delf_d2r.serving.annotations import Annotations, as_kept
from delf_d2r.serving.photos import PREVIEW_SIDE, JpegCache, response
from delf_d2r.serving.problems import Problem
from delf_d2r.serving.work import Work


class Progress(BaseModel):
  """How far the work is."""

  total: int
  done: int = Field(description='Photos with a box, and photos found to show no object.')
  output: str = Field(description='The file of the boxes.')
  next: int | None = Field(description='The first photo that is not done; null when all are.')


class Annotation(BaseModel):
  """What is said of one photo."""

  number: int
  name: str
  box: list[float] | None = Field(description='[ymin, xmin, ymax, xmax], normalised.')
  done: bool = Field(description='With a box of null: it was found to show no object.')


class Change(BaseModel):
  """What to say of a photo."""

  box: Annotated[list[float], Field(min_length=4, max_length=4)] | None = Field(
    description='[ymin, xmin, ymax, xmax], normalised; null: it shows no object.'
  )


def router(annotations: Annotations, work: Work) -> APIRouter:
  """The routes of the boxes of one folder."""
  routes = APIRouter(prefix='/api/annotate', tags=['annotate'])
  jpegs = JpegCache()

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
      done=annotations.is_done(number),
    )

  async def preview(number: int, request: Request) -> bytes:
    path = annotations.photos.path(annotations.photos.names[checked(number)])
    try:
      return await work(request, jpegs.get, path, PREVIEW_SIDE)
    except ImageError as error:
      raise Problem(422, str(error), 'It can have no box: say that it shows no object, or go on.') from error

  async def saved(change: Callable, *args) -> None:
    try:
      await asyncio.to_thread(change, *args)
    except UserError as error:
      raise Problem(507, str(error), 'Mend the place of the file; the box is not saved.') from error

  @routes.get('')
  async def progress(
    start: Annotated[int, Query(ge=0, description='Look for the next from here.')] = 0,
  ) -> Progress:
    """How far the work is, and what comes next."""
    return Progress(
      total=len(annotations),
      done=annotations.num_done,
      output=str(annotations.output),
      next=await asyncio.to_thread(annotations.next_undone, start),
    )

  @routes.get('/{number}')
  async def read(number: int) -> Annotation:
    """What is said of a photo."""
    return state(checked(number))

  @routes.put('/{number}')
  async def write(number: int, change: Change, request: Request) -> Annotation:
    """Gives a photo its box, or says that it shows no object; on the disk when answered."""
    if change.box is None:
      await saved(annotations.set_no_object, checked(number))
    else:
      box = as_kept(change.box, 'box')
      # No box for what nobody can see, nor a detector train from. Whoever saw it left it in the cache.
      await preview(number, request)
      await saved(annotations.set_box, number, box)
    return state(number)

  @routes.delete('/{number}')
  async def clear(number: int) -> Annotation:
    """Forgets what was said of a photo."""
    await saved(annotations.clear, checked(number))
    return state(number)

  @routes.get('/{number}/photo', response_class=Response)
  async def photo(number: int, request: Request) -> Response:
    """The photo, at most 1,280 pixels wide or high."""
    return response(await preview(number, request), request)

  return routes
