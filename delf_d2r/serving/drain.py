"""The end of a server: requests in progress are answered for a while, and the others refused in words."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from delf_d2r.serving.problems import Problem

T = TypeVar('T')


class Drain:
  """Ends the requests in progress of a server that stops. It belongs to the event loop of the server."""

  def __init__(self) -> None:
    """Starts with a server that goes on."""
    self._over: asyncio.Future[None] | None = None

  def end(self) -> None:
    """Refuses all requests that are still in progress, and all further ones."""
    if not self._end.done():
      self._end.set_result(None)

  async def answer(self, awaitable: Awaitable[T], *, seconds: float, keep: bool = False) -> T:
    """Returns the result of an awaitable, which a request waits for.

    Args:
      awaitable: a coroutine or a future.
      seconds: how long to wait.
      keep: whether the awaitable goes on when nobody waits for it any more; otherwise it is cancelled.

    Raises:
      TimeoutError: there is no result in time.
      Problem: 503, the server stops.
    """
    future = asyncio.ensure_future(awaitable)
    waited: set[asyncio.Future[Any]] = {future, self._end}
    try:
      await asyncio.wait(waited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
      if future.done():
        return future.result()
    finally:
      if not keep:
        future.cancel()  # without effect on one that is done
    if self._end.done():
      raise Problem(503, 'the server stops', 'Try again in a moment, if it is started again.')
    raise TimeoutError

  @property
  def _end(self) -> asyncio.Future[None]:
    if self._over is None:  # A future belongs to the loop that runs when it is made.
      self._over = asyncio.get_running_loop().create_future()
    return self._over
