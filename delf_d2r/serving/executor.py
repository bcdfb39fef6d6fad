"""Runs computations of requests on threads: a bounded number at the same time, a bounded number waiting."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from delf_d2r.serving.drain import Drain
from delf_d2r.serving.options import Options
from delf_d2r.serving.problems import Problem

T = TypeVar('T')


class RequestExecutor:
  """Runs functions on threads, and refuses requests that would wait too long."""

  def __init__(self, options: Options, drain: Drain):
    """Takes the limits of the server, whose end `drain` announces."""
    self._options = options
    self._drain = drain
    self._slots = asyncio.Semaphore(options.max_concurrent)
    self._num_waiting = 0

  async def __call__(self, request: Request, function: Callable[..., T], *args: Any, **options: Any) -> T:
    """Returns `function(*args, **options)`, run on a thread as soon as one is free.

    Raises:
      Problem: 503: too many requests are waiting, no thread was free in time, the function did not finish in
        time, or the server stops. 499: the client of `request` disconnected while it was waiting.
    """
    await self._acquire()
    if await request.is_disconnected():
      self._slots.release()
      raise Problem(499, 'the client has disconnected')  # Nobody reads it.
    running = asyncio.ensure_future(run_in_threadpool(function, *args, **options))
    # A thread cannot be stopped: it occupies its slot until it ends, whether or not a client still waits.
    running.add_done_callback(self._release)
    try:
      return await self._drain.answer(running, seconds=self._options.answer_seconds, keep=True)
    except TimeoutError:
      if running.done():
        raise  # by the function itself
      raise Problem(
        503,
        f'no answer within {self._options.answer_seconds:g} s',
        'Try again, with a smaller photo or box, or without verification.',
      ) from None

  async def _acquire(self) -> None:
    if self._slots.locked() and self._num_waiting >= self._options.max_waiting:
      raise Problem(503, f'the server is busy: {self._num_waiting} requests are waiting already')
    self._num_waiting += 1
    try:
      await self._drain.answer(self._slots.acquire(), seconds=self._options.wait_seconds)
    except TimeoutError:
      raise Problem(
        503, f'the server is busy: the request waited for more than {self._options.wait_seconds:g} s'
      ) from None
    finally:
      self._num_waiting -= 1

  def _release(self, running: asyncio.Future[Any]) -> None:
    self._slots.release()
    if not running.cancelled():
      running.exception()  # Marks it as retrieved, in case that no client waits for it.
