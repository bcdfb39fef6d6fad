"""The connections of a server: every one has a deadline, and a bounded number exists at the same time.

uvicorn closes connections only after an answered request. A client that sends nothing, half a request line or
half a header, or that does not read its answer, would occupy a connection for ever.
"""

import asyncio
import math
from typing import Any

import h11
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from delf_d2r.serving.problems import problem_response

# A connection that has waited for its client for less than this is not closed in favour of a new one.
_GRACE_SECONDS = 1.0
# When the server stops, a request that is on its way may still arrive for this long.
_LAST_REQUEST_SECONDS = 0.5

SECURITY_HEADERS = {
  # Nothing from other hosts and nothing inline.
  'Content-Security-Policy': (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
  ),
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Cross-Origin-Opener-Policy': 'same-origin',
}


class Connection(H11Protocol):
  """One connection of a client.

  If a new connection exceeds the number that is allowed, the one is closed that has waited for its client for
  longest: for a request, for the rest of one, or for a response to be read. If there is none, requests of the
  new one are refused with status 503.

  Attributes:
    header_seconds: how long a client may take to send the header of a request, from the beginning of the
      connection or the end of the previous response on.
    request_seconds: how long a request may take in total, from its header to the last byte of its response.
    most: number of connections.
    most_refused: number of further connections whose requests are refused; connections beyond them are
      closed at once.
  """

  header_seconds = 15.0
  request_seconds = 300.0
  most = 512
  most_refused = 128

  def __init__(self, *args: Any, **options: Any):
    super().__init__(*args, **options)
    self._deadline: asyncio.TimerHandle | None = None
    self._waits_since = math.inf
    self._unread = 0  # bytes of the response that the client had not read at the latest deadline
    self._is_stopping = False

  def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
    super().connection_made(transport)
    self._expect_request()
    if len(self.connections) <= self.most or self._close_longest_waiting():
      return
    if len(self.connections) > self.most + self.most_refused:
      transport.abort()
    else:
      self.app = _refuse  # type: ignore[assignment]  # uvicorn has its own types of ASGI

  def connection_lost(self, exc: Exception | None) -> None:
    self._end_by(None)
    super().connection_lost(exc)

  def handle_events(self) -> None:
    before = self.cycle
    super().handle_events()
    if self.cycle is not before and not self.cycle.response_complete:
      self._waits_since = self.loop.time()
      self._end_by(self.request_seconds)
      if self._is_stopping:
        self.cycle.keep_alive = False

  def on_response_complete(self) -> None:
    self._expect_request()
    super().on_response_complete()

  def send_400_response(self, msg: str) -> None:
    """Answers what is not HTTP, in the form of all failures."""
    if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):  # The response to something else has begun.
      self.transport.abort()
      return
    refusal = problem_response(400, msg, 'Send a request of HTTP/1.1.')
    headers = [*refusal.raw_headers, (b'Connection', b'close')]
    headers += [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
    for event in (
      h11.Response(status_code=400, headers=headers, reason=b'Bad Request'),
      h11.Data(data=bytes(refusal.body)),
      h11.EndOfMessage(),
    ):
      self.transport.write(self.conn.send(event))
    if self.cycle is not None:  # The app has begun with a request whose body is not HTTP. It is answered.
      self.cycle.disconnected = True
      self.cycle.message_event.set()
    self.transport.close()

  def shutdown(self) -> None:
    """Ends the connection after the request in progress, or after one that is on its way."""
    self._is_stopping = True
    if self._has_request:
      super().shutdown()
    else:
      self._end_by(_LAST_REQUEST_SECONDS)

  @property
  def _has_request(self) -> bool:
    return self.cycle is not None and not self.cycle.response_complete

  @property
  def _waits_for_client(self) -> bool:
    return not self._has_request or self.cycle.more_body or self.flow.write_paused

  def _close_longest_waiting(self) -> bool:
    """Closes the connection that has waited for its client for longest; returns whether there is one."""
    latest = self.loop.time() - _GRACE_SECONDS
    waiting = [
      other
      for other in self.connections
      if isinstance(other, Connection) and other._waits_for_client and other._waits_since < latest
    ]
    if not waiting:
      return False
    min(waiting, key=lambda other: other._waits_since).end()
    return True

  def _expect_request(self) -> None:
    self._waits_since = self.loop.time()
    self._unread = self.transport.get_write_buffer_size()
    self._end_by(_LAST_REQUEST_SECONDS if self._is_stopping else self.header_seconds)

  def _end_by(self, seconds: float | None) -> None:
    """Replaces the deadline of the connection by one in `seconds` from now, or by none."""
    if self._deadline is not None:
      self._deadline.cancel()
    self._deadline = None if seconds is None else self.loop.call_later(seconds, self._on_deadline)

  def _on_deadline(self) -> None:
    unread, before = self.transport.get_write_buffer_size(), self._unread
    is_late = self.loop.time() > self._waits_since + self.request_seconds
    if self._has_request or is_late or not 0 < unread < before:
      self.end()
    else:  # The client still reads the response.
      self._unread = unread
      self._end_by(self.header_seconds)

  def end(self) -> None:
    """Closes the connection at once, without waiting for its client to read what is left of a response."""
    self.connections.discard(self)
    self.transport.abort()


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
  """An app that refuses every request, since there are too many connections."""
  headers = {**SECURITY_HEADERS, 'Cache-Control': 'no-store', 'Connection': 'close'}
  refusal = problem_response(503, 'the server is busy: it has too many connections')
  refusal.headers.update(headers)
  await refusal(scope, receive, send)
