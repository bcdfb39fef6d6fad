"""Work that computes, on threads: a bounded number at a time, a bounded number that waits."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from delf_d2r.serving.options import Options
from delf_d2r.serving.problems import Problem

T = TypeVar('T')


class Work:
  """Runs functions on threads, and tells who cannot have a turn soon to come back."""

  def __init__(self, options: Options):
    self._options = options
    self._turns = asyncio.Semaphore(options.searches_at_once)
    self._waiting = 0

  async def __call__(self, request: Request, function: Callable[..., T], *args, **options) -> T:
    """`function(*args, **options)` on a thread, unless the client of `request` has left before its turn.

    Raises:
      Problem: 503, too many wait already, its turn did not come in time, or the answer did not.
    """
    await self._turn()
    if await request.is_disconnected():
      self._turns.release()
      raise Problem(499, 'the client has left')  # Nobody reads it.
    running = asyncio.ensure_future(run_in_threadpool(function, *args, **options))
    # No thread can be stopped: until it ends it keeps its turn, whether or not somebody still waits for it.
    running.add_done_callback(self._end)
    done, _ = await asyncio.wait({running}, timeout=self._options.answer_seconds)
    if not done:
      raise Problem(
        503,
        f'no answer within {self._options.answer_seconds:g} s',
        'Try again, with a smaller photo or box, or without verification.',
      )
    return running.result()

  async def _turn(self) -> None:
    if self._turns.locked() and self._waiting >= self._options.most_waiting:
      raise Problem(503, f'the server is busy: {self._waiting} requests wait already')
    self._waiting += 1
    try:
      await asyncio.wait_for(self._turns.acquire(), self._options.wait_seconds)
    except TimeoutError:
      raise Problem(503, f'the server is busy: no turn within {self._options.wait_seconds:g} s') from None
    finally:
      self._waiting -= 1

  def _end(self, running: asyncio.Future) -> None:
    self._turns.release()
    if not running.cancelled():
      running.exception()  # Seen, though nobody may ask for it.
