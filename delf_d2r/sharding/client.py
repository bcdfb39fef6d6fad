"""Sends queries to all shards at the same time, with bounds on the time and size of their responses."""

import asyncio
import concurrent.futures
import contextlib
import logging as python_logging
import threading
import time
from collections.abc import Callable, Sequence

from absl import logging

from delf_d2r.errors import UserError
from delf_d2r.sharding.messages import MAX_RESPONSE_BYTES, ShardResponse

try:
  import httpx
except ModuleNotFoundError as error:
  raise UserError(
    f"asking shards needs {error.name}, which is missing: pip install 'delf_d2r[serve]'"
  ) from None

# By default it logs every request.
python_logging.getLogger('httpx').setLevel(python_logging.WARNING)

SEARCH = '/shard/search'
_CONNECT_SECONDS = 1.0
# A shard that failed is not asked for this long, so that searches do not pile up in front of one that hangs.
_BACK_OFF_SECONDS = 1.0
# A shard has at most this many requests at the same time; further ones wait for them, within their deadline.
_MOST_REQUESTS = 64
_FAILURES = (ValueError, TimeoutError, httpx.HTTPError)
# A response is compared with what it may have, so a small one must not grow.
_HEADERS = {'Accept-Encoding': 'identity', 'Content-Type': 'application/octet-stream'}


class ShardClient:
  """Posts one request to many addresses. Threads may share it.

  One thread of its own exchanges all bytes, whatever the number of searches and of shards that hang: every
  request has one deadline, from its connection to the last byte of its response.

  Attributes:
    timeout: seconds that one search may take in total.
  """

  def __init__(self, timeout: float):
    """Opens no connection yet.

    Args:
      timeout: seconds that one search may take in total.
    """
    self.timeout = timeout
    self._exchange: _Exchange | None = None
    self._backs_off_until: dict[str, float] = {}
    self._lock = threading.Lock()

  def ask(
    self,
    addresses: Sequence[str],
    body: bytes,
    *,
    accept: Callable[[ShardResponse], None],
    is_complete: Callable[[Sequence[ShardResponse]], bool],
  ) -> list[ShardResponse]:
    """Returns the responses in order of arrival; logs why others are missing.

    Args:
      addresses: the addresses of the shards.
      body: the body of the request.
      accept: raises ValueError for a response that must not be used.
      is_complete: whether the responses so far suffice, so that no others are waited for.

    Raises:
      UserError: no shard responds, and one of them refuses the request as invalid.
    """
    exchange = self._started()
    now = time.monotonic()
    asked = [address for address in addresses if self._backs_off_until.get(address, 0) <= now]
    pending = {exchange.post(address, body, self.timeout): address for address in asked}
    responses: list[ShardResponse] = []
    refusals: list[UserError] = []
    with contextlib.suppress(TimeoutError):
      # Every request ends by itself at the deadline; this is the limit of waiting in case that it does not.
      for future in concurrent.futures.as_completed(list(pending), self.timeout + 1):
        address = pending.pop(future)
        try:
          response = _decode(address, *future.result())
          accept(response)
          responses.append(response)
        except UserError as error:
          logging.warning('shard at %s: %s', address, error)
          refusals.append(error)
        except TimeoutError:
          self._back_off(address, f'no response within {self.timeout:g} s')
        except _FAILURES as error:
          self._back_off(address, error or type(error).__name__)
        if is_complete(responses):
          return responses
    for address in pending.values():
      self._back_off(address, f'no response within {self.timeout:g} s')
    if refusals and not responses:
      raise refusals[0]
    return responses

  def close(self) -> None:
    """Closes the connections and abandons requests in progress."""
    with self._lock:
      exchange, self._exchange = self._exchange, None
    if exchange is not None:
      exchange.close()

  def _started(self) -> '_Exchange':
    with self._lock:
      if self._exchange is None:
        self._exchange = _Exchange(min(_CONNECT_SECONDS, self.timeout))
      return self._exchange

  def _back_off(self, address: str, reason: object) -> None:
    """Logs a failure, once per back-off, and marks the shard as not to be asked for a while."""
    with self._lock:
      now = time.monotonic()
      if self._backs_off_until.get(address, 0) <= now:
        self._backs_off_until[address] = now + _BACK_OFF_SECONDS
        logging.warning('shard at %s: %s', address, reason)


def _decode(address: str, status: int, received: bytes) -> ShardResponse:
  if status == 422:
    raise UserError(f'{address} refuses the query: {received.decode(errors="replace")[:500]}')
  if status != 200:
    raise ValueError(f'status {status}: {received.decode(errors="replace")[:200]}')
  return ShardResponse.decode(received)


class _Exchange:
  """Sends requests and receives responses on an event loop that runs in a thread of its own."""

  def __init__(self, connect_seconds: float):
    """Starts the thread."""
    self._connect_seconds = connect_seconds
    self._slots: dict[str, asyncio.Semaphore] = {}  # by address
    self._loop = asyncio.new_event_loop()
    self._thread = threading.Thread(target=self._run, name='shards', daemon=True)
    self._thread.start()

  def post(self, address: str, body: bytes, seconds: float) -> 'concurrent.futures.Future[tuple[int, bytes]]':
    """Sends a request; returns the future of the status and the body of the response.

    It ends with TimeoutError after `seconds`, with ValueError for a response that is too large, and
    with httpx.HTTPError for other failures.
    """
    return asyncio.run_coroutine_threadsafe(self._post(address, body, seconds), self._loop)

  def close(self) -> None:
    """Abandons all requests, closes the connections and ends the thread."""
    self._loop.call_soon_threadsafe(self._loop.stop)
    if threading.current_thread() is not self._thread:
      self._thread.join()

  def _run(self) -> None:
    asyncio.set_event_loop(self._loop)
    # Requests are bounded for each address, and an index may have any number of shards.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    timeout = httpx.Timeout(None, connect=self._connect_seconds)
    self._http = httpx.AsyncClient(timeout=timeout, limits=limits, trust_env=False, headers=_HEADERS)
    try:
      self._loop.run_forever()
      for task in asyncio.all_tasks(self._loop):
        task.cancel()
      self._loop.run_until_complete(self._closed())
    finally:
      self._loop.close()

  async def _closed(self) -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*tasks, return_exceptions=True)
    await self._http.aclose()

  async def _post(self, address: str, body: bytes, seconds: float) -> tuple[int, bytes]:
    slots = self._slots.setdefault(address, asyncio.Semaphore(_MOST_REQUESTS))
    async with asyncio.timeout(seconds), slots:
      try:
        return await self._receive(address, body)
      except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
        # The server, or its predecessor at this address, has closed a kept-alive connection.
        return await self._receive(address, body)

  async def _receive(self, address: str, body: bytes) -> tuple[int, bytes]:
    async with self._http.stream('POST', address + SEARCH, content=body) as response:
      if response.headers.get('content-encoding', 'identity') != 'identity':
        raise ValueError(f'a response that is {response.headers["content-encoding"][:20]}-encoded')
      received = bytearray()
      async for piece in response.aiter_raw():
        received += piece
        if len(received) > MAX_RESPONSE_BYTES:
          raise ValueError(f'a response of {len(received)} bytes or more')
    return response.status_code, bytes(received)
