"""Work that computes, on threads, a bounded number at a time."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from starlette.concurrency import run_in_threadpool

from delf_d2r.serving.problems import Problem

T = TypeVar('T')


class Work:
  """Runs functions on threads; who waits too long for a turn is told to come back."""

  def __init__(self, at_once: int, wait_seconds: float):
    self._turns = asyncio.Semaphore(at_once)
    self._wait_seconds = wait_seconds

  async def __call__(self, function: Callable[..., T], *args, **options) -> T:
    """`function(*args, **options)` on a thread.

    Raises:
      Problem: 503, it did not get its turn in time.
    """
    try:
      await asyncio.wait_for(self._turns.acquire(), self._wait_seconds)
    except TimeoutError:
      raise Problem(503, f'the server is busy: no turn within {self._wait_seconds:g} s') from None
    try:
      return await run_in_threadpool(function, *args, **options)
    finally:
      self._turns.release()
