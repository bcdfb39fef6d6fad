"""Requests that fail: every failure is answered by `{"error": what happened, "remedy": what to do}`."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from delf_d2r.errors import ArtefactError, ImageError, PhotoUnavailableError, UnavailableError, UserError

_REMEDIES = {
  403: 'Open the page from this server itself.',
  404: 'GET /openapi.json describes all paths.',
  405: 'GET /openapi.json describes all paths.',
  408: 'Send the photo again, or a smaller one.',
  413: 'Send a smaller file.',
  503: 'Try again in a moment.',
}
_DEFAULT_REMEDY = 'GET /openapi.json describes the expected requests.'


class ProblemBody(BaseModel):
  """The answer to a request that failed."""

  error: str = Field(description='What happened.')
  remedy: str = Field(description='What to do.')


class Problem(HTTPException):
  """Ends a request with a status, an error and a remedy.

  Attributes:
    remedy: what the user can do; by default a text that depends on the status.
  """

  def __init__(self, status: int, error: str, remedy: str = ''):
    super().__init__(status, error)
    self.remedy = remedy or _REMEDIES.get(status, _DEFAULT_REMEDY)


def problem_response(status: int, error: str, remedy: str = '') -> JSONResponse:
  """Returns the response to a request that failed."""
  remedy = remedy or _REMEDIES.get(status, _DEFAULT_REMEDY)
  headers = {'Retry-After': '5'} if status == 503 else {}
  return JSONResponse({'error': error, 'remedy': remedy}, status, headers)


def install(app: FastAPI) -> None:
  """Makes `app` answer all expected failures in this form; guard.py does so for unexpected ones."""

  @app.exception_handler(HTTPException)
  async def _on_http(_: Request, error: HTTPException) -> JSONResponse:
    return problem_response(error.status_code, str(error.detail), getattr(error, 'remedy', ''))

  @app.exception_handler(RequestValidationError)
  async def _on_invalid(_: Request, error: RequestValidationError) -> JSONResponse:
    first = error.errors()[0]
    place = '.'.join(str(part) for part in first['loc'] if part not in ('body', 'query', 'path'))
    return problem_response(422, f'{place or "request"}: {first["msg"]}')

  @app.exception_handler(UserError)
  async def _on_user_error(_: Request, error: UserError) -> JSONResponse:
    if isinstance(error, ArtefactError):
      return problem_response(500, str(error), 'Repair the index, or build it again.')
    if isinstance(error, UnavailableError | PhotoUnavailableError):
      return problem_response(503, str(error))
    if isinstance(error, ImageError):
      return problem_response(
        422, str(error), 'Send another photo: JPEG, PNG, WebP, HEIC, AVIF, TIFF, GIF or BMP.'
      )
    return problem_response(422, str(error), 'Correct the request and send it again.')
