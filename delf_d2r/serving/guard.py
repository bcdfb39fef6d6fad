"""Checks host, origin and size of every request, and sets the security headers of every response.

It is written for ASGI directly, so that too large a body is refused while it is being received.
"""

import asyncio
import urllib.parse

from absl import logging
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from delf_d2r.serving.connections import SECURITY_HEADERS
from delf_d2r.serving.drain import Drain
from delf_d2r.serving.options import Options
from delf_d2r.serving.problems import Problem, problem_response

_SAFE_METHODS = ('GET', 'HEAD', 'OPTIONS')
# A refused body is read up to this many times the limit, so that the client, which is still sending, receives
# the response.
_DRAINED = 4


class Guard:
  """The outermost middleware of the app."""

  def __init__(self, app: ASGIApp, options: Options, drain: Drain):
    """Wraps an app with the limits of the server, whose end `drain` announces."""
    self._app = app
    self._options = options
    self._drain = drain

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    if scope['type'] != 'http':
      await self._app(scope, receive, send)
      return

    started = False

    async def send_with_headers(message: Message) -> None:
      nonlocal started
      started = True
      if message['type'] == 'http.response.start':
        headers = MutableHeaders(scope=message)
        for name, value in SECURITY_HEADERS.items():
          headers[name] = value
        headers.setdefault('Cache-Control', 'no-store')
      await send(message)

    try:
      problem = self._objection(scope['method'], Headers(scope=scope))
      if problem:
        if problem.status_code == 413:
          await self._drop_body(receive)
        refusal = problem_response(problem.status_code, problem.detail, problem.remedy)
        await refusal(scope, receive, send_with_headers)
        return
      await self._app(
        # HEAD is like GET; uvicorn leaves out the body.
        {**scope, 'method': 'GET'} if scope['method'] == 'HEAD' else scope,
        receive if scope['method'] in _SAFE_METHODS else self._limited(receive),
        send_with_headers,
      )
    except ClientDisconnect:
      return  # While it sent the body: there is nobody to answer.
    except Exception:
      # Unexpected: it is logged, and the server continues.
      if started:
        raise
      logging.exception('%s %s failed', scope['method'], scope['path'])
      failure = problem_response(
        500, 'The server failed at this request.', 'Its log says why. Other requests are answered.'
      )
      await failure(scope, receive, send_with_headers)

  def _objection(self, method: str, headers: Headers) -> Problem | None:
    """Returns the reason to refuse a request by its headers; None if there is none."""
    host = headers.get('host', '')
    if not self._options.answers_for(host):
      own = self._options.allowed_hosts
      return Problem(
        403,
        f'this server does not answer for the host {host[:200]!r}',
        f'Use http://{own[0]}, or start the server with --allowed_hosts.' if own else '',
      )
    if method not in _SAFE_METHODS:
      # Browsers send the origin of the page that makes a request: pages of other sites must not write.
      for origin in headers.getlist('origin'):
        if _host_of(origin) != host.lower():
          return Problem(403, f'the request comes from a page of {origin[:200]}, not of this server')
      length = headers.get('content-length', '')
      # So many digits are too many anyway, and Python refuses to convert thousands of them.
      if length.isdecimal() and int(length[:30]) > self._options.max_upload_bytes:
        return self._too_large(int(length[:30]))
    return None

  def _limited(self, receive: Receive) -> Receive:
    """Returns `receive` with limits on the size of the body and on the time that it takes."""
    received, is_complete = 0, False
    deadline: float | None = None

    async def receive_limited() -> Message:
      nonlocal received, is_complete, deadline
      now = asyncio.get_running_loop().time()
      deadline = deadline or now + self._options.upload_seconds
      if is_complete:  # The next message is the end of the connection.
        return await receive()
      try:
        message = await self._drain.answer(receive(), seconds=max(deadline - now, 0))
      except TimeoutError:
        raise Problem(408, f'the request was not sent within {self._options.upload_seconds:g} s') from None
      received += len(message.get('body', b''))
      if received > self._options.max_upload_bytes:
        raise self._too_large(received)
      is_complete = not message.get('more_body', False)
      return message

    return receive_limited

  async def _drop_body(self, receive: Receive) -> None:
    """Reads the body of a refused request and drops it."""
    left = _DRAINED * self._options.max_upload_bytes
    try:
      async with asyncio.timeout(self._options.upload_seconds):
        while left > 0:
          message = await receive()
          left -= len(message.get('body', b''))
          if not message.get('more_body', False):
            return
    except TimeoutError:
      return

  def _too_large(self, found: int) -> Problem:
    most = self._options.max_upload_bytes
    return Problem(413, f'the request has {found:,} bytes or more, at most {most:,} are accepted')


def _host_of(origin: str) -> str | None:
  """Returns the host and port of an origin in lower case; None if it is no page of a server."""
  try:
    parts = urllib.parse.urlsplit(origin)
  except ValueError:
    return None
  return parts.netloc.lower() if parts.scheme in ('http', 'https') else None
