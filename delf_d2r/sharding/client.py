"""Sends queries to all shards at the same time, with bounds on the time and size of their responses."""

import contextlib
import logging as python_logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent import futures

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
_THREADS = 64
_FAILURES = (ValueError, httpx.HTTPError)


class ShardClient:
  """Posts one request to many addresses. Threads may share it.

  Attributes:
    timeout: seconds that one search may take in total.
  """

  def __init__(self, timeout: float):
    """Opens no connection yet.

    Args:
      timeout: seconds that one search may take in total.
    """
    self.timeout = timeout
    connect = min(_CONNECT_SECONDS, timeout)
    self._http = httpx.Client(timeout=httpx.Timeout(timeout, connect=connect), trust_env=False)
    self._pool = futures.ThreadPoolExecutor(_THREADS, thread_name_prefix='shard')
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
    deadline = time.monotonic() + self.timeout
    pending = {
      self._pool.submit(self._ask, address, body, deadline, accept): address for address in addresses
    }
    responses: list[ShardResponse] = []
    refusals: list[UserError] = []
    with contextlib.suppress(TimeoutError):
      for future in futures.as_completed(pending, self.timeout):
        del pending[future]
        error = future.exception()
        if error is None:
          responses.append(future.result())
        elif isinstance(error, UserError):
          refusals.append(error)
        elif not isinstance(error, _FAILURES):
          raise error
        if is_complete(responses):
          return responses
    for address in pending.values():
      self._back_off(address, f'no response within {self.timeout:g} s')
    if refusals and not responses:
      raise refusals[0]
    return responses

  def close(self) -> None:
    """Closes the connections and abandons requests in progress."""
    self._pool.shutdown(wait=False, cancel_futures=True)
    self._http.close()

  def _back_off(self, address: str, reason: object) -> None:
    """Logs a failure, once per back-off, and marks the shard as not to be asked for a while."""
    with self._lock:
      now = time.monotonic()
      if self._backs_off_until.get(address, 0) <= now:
        self._backs_off_until[address] = now + _BACK_OFF_SECONDS
        logging.warning('shard at %s: %s', address, reason)

  def _ask(
    self, address: str, body: bytes, deadline: float, accept: Callable[[ShardResponse], None]
  ) -> ShardResponse:
    if time.monotonic() < self._backs_off_until.get(address, 0):
      raise ValueError(f'failed less than {_BACK_OFF_SECONDS:g} s ago')
    try:
      try:
        response = self._post(address, body, deadline)
      except httpx.RemoteProtocolError:
        # The server, or its predecessor at this address, has closed a kept-alive connection.
        response = self._post(address, body, deadline)
      accept(response)
    except UserError as error:
      logging.warning('shard at %s: %s', address, error)
      raise
    except _FAILURES as error:
      self._back_off(address, error or type(error).__name__)
      raise
    return response

  def _post(self, address: str, body: bytes, deadline: float) -> ShardResponse:
    with self._http.stream('POST', address + SEARCH, content=body) as response:
      received = bytearray()
      for piece in response.iter_bytes():
        received += piece
        if len(received) > MAX_RESPONSE_BYTES or time.monotonic() > deadline:
          raise ValueError(f'{len(received)} bytes or more, or later than {self.timeout:g} s')
    if response.status_code == 422:
      raise UserError(f'{address} refuses the query: {received.decode(errors="replace")[:500]}')
    if response.status_code != 200:
      raise ValueError(f'status {response.status_code}: {received.decode(errors="replace")[:200]}')
    return ShardResponse.decode(bytes(received))
