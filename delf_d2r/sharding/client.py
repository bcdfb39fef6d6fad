"""Asks all shards at once, within a bounded time and of bounded size."""

import contextlib
import logging as python_logging
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

# It would log every request.
python_logging.getLogger('httpx').setLevel(python_logging.WARNING)

SEARCH = '/shard/search'
_CONNECT_SECONDS = 1.0
# A shard that failed is left alone for so long, so that searches do not gather before one that hangs.
_REST_SECONDS = 1.0
_THREADS = 64
_FAILURES = (ValueError, httpx.HTTPError)


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
    self,
    addresses: Sequence[str],
    body: bytes,
    *,
    accept: Callable[[Answer], None],
    are_all: Callable[[Sequence[Answer]], bool],
  ) -> list[Answer]:
    """What the addresses answer, in order of arrival. Why others did not is logged.

    Args:
      addresses: of the shards.
      body: the request.
      accept: raises ValueError for an answer that is not to be used.
      are_all: whether the answers so far are all that is needed; others are not waited for.

    Raises:
      UserError: no shard answers, and one says that the request is wrong.
    """
    deadline = time.monotonic() + self.timeout
    pending = {
      self._pool.submit(self._ask, address, body, deadline, accept): address for address in addresses
    }
    answers, refusals = [], []
    with contextlib.suppress(TimeoutError):
      for future in futures.as_completed(pending, self.timeout):
        del pending[future]
        error = future.exception()
        if error is None:
          answers.append(future.result())
        elif isinstance(error, UserError):
          refusals.append(error)
        elif not isinstance(error, _FAILURES):
          raise error
        if are_all(answers):
          return answers
    for address in pending.values():
      self._rest(address, f'no answer within {self.timeout:g} s')
    if refusals and not answers:
      raise refusals[0]
    return answers

  def close(self) -> None:
    """Gives up connections and what is under way."""
    self._pool.shutdown(wait=False, cancel_futures=True)
    self._http.close()

  def _rest(self, address: str, reason: object) -> None:
    with self._lock:
      now = time.monotonic()
      if self._resting_until.get(address, 0) <= now:
        self._resting_until[address] = now + _REST_SECONDS
        logging.warning('shard at %s: %s', address, reason)

  def _ask(self, address: str, body: bytes, deadline: float, accept: Callable[[Answer], None]) -> Answer:
    if time.monotonic() < self._resting_until.get(address, 0):
      raise ValueError(f'did not answer less than {_REST_SECONDS:g} s ago')
    try:
      try:
        answer = self._post(address, body, deadline)
      except httpx.RemoteProtocolError:
        # A connection kept from before, which the server, or the one before it there, has closed.
        answer = self._post(address, body, deadline)
      accept(answer)
    except UserError as error:
      logging.warning('shard at %s: %s', address, error)
      raise
    except _FAILURES as error:
      self._rest(address, error or type(error).__name__)
      raise
    return answer

  def _post(self, address: str, body: bytes, deadline: float) -> Answer:
    with self._http.stream('POST', address + SEARCH, content=body) as response:
      received = bytearray()
      for piece in response.iter_bytes():
        received += piece
        if len(received) > MAX_ANSWER_BYTES or time.monotonic() > deadline:
          raise ValueError(f'{len(received)} bytes and more, or later than {self.timeout:g} s')
    if response.status_code == 422:
      raise UserError(f'{address} refuses the query: {received.decode(errors="replace")[:500]}')
    if response.status_code != 200:
      raise ValueError(f'status {response.status_code}: {received.decode(errors="replace")[:200]}')
    return Answer.decode(bytes(received))
