"""Requests that fail: one form of answer for all, `{"error": what happened, "remedy": what to do}`."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from delf_d2r.errors import ArtefactError, ImageError, UnavailableError, UserError

_REMEDIES = {
  403: 'Open the page from this server itself.',
  404: 'GET /openapi.json describes all that there is.',
  405: 'GET /openapi.json describes all that there is.',
  408: 'Send the photo again, or a smaller one.',
  413: 'Send a smaller file.',
  503: 'Try again in a moment.',
}


class ProblemBody(BaseModel):
  """A request that failed."""

  error: str = Field(description='What happened.')
  remedy: str = Field(description='What to do.')


class Problem(HTTPException):
  """Ends a request with a status, what happened and what to do."""

  def __init__(self, status: int, error: str, remedy: str = ''):
    super().__init__(status, error)
    self.remedy = remedy or _REMEDIES.get(status, 'See /openapi.json for what is expected.')


def answer(status: int, error: str, remedy: str = '') -> JSONResponse:
  """The response for a problem."""
  remedy = remedy or _REMEDIES.get(status, 'See /openapi.json for what is expected.')
  headers = {'Retry-After': '5'} if status == 503 else {}
  return JSONResponse({'error': error, 'remedy': remedy}, status, headers)


def install(app: FastAPI) -> None:
  """Has every failure of `app` that is foreseen answered in that form; guard.py has all others."""

  @app.exception_handler(HTTPException)
  async def _on_http(_: Request, error: HTTPException) -> JSONResponse:
    return answer(error.status_code, str(error.detail), getattr(error, 'remedy', ''))

  @app.exception_handler(RequestValidationError)
  async def _on_invalid(_: Request, error: RequestValidationError) -> JSONResponse:
    first = error.errors()[0]
    place = '.'.join(str(part) for part in first['loc'] if part not in ('body', 'query', 'path'))
    return answer(422, f'{place or "request"}: {first["msg"]}')

  @app.exception_handler(UserError)
  async def _on_user_error(_: Request, error: UserError) -> JSONResponse:
    if isinstance(error, ArtefactError):
      return answer(500, str(error), 'Mend the index, or make it anew.')
    if isinstance(error, UnavailableError):
      return answer(503, str(error))
    if isinstance(error, ImageError):
      return answer(422, str(error), 'Send another photo: JPEG, PNG, WebP, TIFF, GIF or BMP.')
    return answer(422, str(error), 'Correct the request and send it again.')
