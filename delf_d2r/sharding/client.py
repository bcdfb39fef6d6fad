"""Asks all shards at once, within a bounded time and of bounded size."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent import futures

from absl import logging

from delf_d2r.errors import UserError
from delf_d2r.sharding.messages import MAX_ANSWER_BYTES, Answer

try:
  import httpx
except ModuleNotFoundError as error:
  raise UserError(
    f"asking shards needs {error.name}, which is missing: pip install 'delf_d2r[serve]'"
  ) from None

SEARCH = '/shard/search'
_CONNECT_SECONDS = 1.0
# A shard that failed is left alone for so long, so that searches do not gather before one that hangs.
_REST_SECONDS = 1.0
_THREADS = 64


class ShardClient:
  """Posts one request to many addresses. Threads may share it.

  Args:
    timeout: seconds for everything that belongs to one search.
  """

  def __init__(self, timeout: float):
    self.timeout = timeout
    connect = min(_CONNECT_SECONDS, timeout)
    self._http = httpx.Client(timeout=httpx.Timeout(timeout, connect=connect), trust_env=False)
    self._pool = futures.ThreadPoolExecutor(_THREADS, thread_name_prefix='shard')
    self._resting_until: dict[str, float] = {}
    self._lock = threading.Lock()

  def ask(
    self, addresses: Sequence[str], body: bytes, accept: Callable[[Answer], None]
  ) -> tuple[list[Answer], list[str]]:
    """What the addresses answer, in their order, and why others did not.

    Args:
      addresses: of the shards.
      body: the request.
      accept: raises ValueError for an answer that is not to be used.

    Raises:
      UserError: no shard answers, and one says that the request is wrong.
    """
    deadline = time.monotonic() + self.timeout
    pending = {self._pool.submit(self._ask, address, body, deadline): address for address in addresses}
    futures.wait(pending, max(deadline - time.monotonic(), 0))
    answers, failures, refusals = [], [], []
    for future, address in pending.items():
      try:
        if not future.done():
          future.cancel()
          raise ValueError(f'no answer within {self.timeout:g} s')
        answer = future.result()
        accept(answer)
        answers.append(answer)
      except UserError as error:
        refusals.append(error)
      except (ValueError, httpx.HTTPError) as error:
        failures.append(f'{address}: {error or type(error).__name__}')
        self._rest(address, failures[-1])
    if refusals and not answers:
      raise refusals[0]
    return answers, [*failures, *map(str, refusals)]

  def close(self) -> None:
    """Gives up connections and what is under way."""
    self._pool.shutdown(wait=False, cancel_futures=True)
    self._http.close()

  def _rest(self, address: str, failure: str) -> None:
    with self._lock:
      now = time.monotonic()
      if self._resting_until.get(address, 0) <= now:
        self._resting_until[address] = now + _REST_SECONDS
        logging.warning('shard at %s', failure)

  def _ask(self, address: str, body: bytes, deadline: float) -> Answer:
    if time.monotonic() < self._resting_until.get(address, 0):
      raise ValueError(f'did not answer less than {_REST_SECONDS:g} s ago')
    try:
      return self._post(address, body, deadline)
    except httpx.RemoteProtocolError:
      # A connection kept from before, which the server, or the one before it there, has closed.
      return self._post(address, body, deadline)

  def _post(self, address: str, body: bytes, deadline: float) -> Answer:
    with self._http.stream('POST', address + SEARCH, content=body) as response:
      received = bytearray()
      for piece in response.iter_bytes():
        received += piece
        if len(received) > MAX_ANSWER_BYTES or time.monotonic() > deadline:
          raise ValueError(f'{len(received)} bytes and more, or later than {self.timeout:g} s')
    if response.status_code == 422:
      raise UserError(f'{address}: {received.decode(errors="replace")[:500]}')
    if response.status_code != 200:
      raise ValueError(f'status {response.status_code}: {received.decode(errors="replace")[:200]}')
    return Answer.decode(bytes(received))
