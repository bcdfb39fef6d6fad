"""One function over many items on all cores, results in order, memory bounded."""

import collections
import concurrent.futures
import contextlib
import functools
import glob
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from delf_d2r.errors import UserError

Item = TypeVar('Item')
Result = TypeVar('Result')

# Items that each worker has waiting: enough that none idles, few enough that memory stays bounded.
_AHEAD = 3

_WORKERS_PER_GPU = 4

_function: Callable[[Any], Any] | None = None


def available_cores() -> int:
  """The cores that this process may use."""
  return len(os.sched_getaffinity(0))


def default_workers(*, uses_network: bool) -> int:
  """Processes of one thread each are faster than threads within TensorFlow; few of them fill a GPU."""
  uses_gpu = uses_network and glob.glob('/dev/nvidia[0-9]*')
  return min(available_cores(), _WORKERS_PER_GPU) if uses_gpu else available_cores()


def map_ordered(
  make_function: Callable[[], Callable[[Item], Result]], items: Iterable[Item], *, workers: int
) -> Iterator[Result]:
  """Yields function(item) for every item, in order.

  Args:
    make_function: makes the function, once in each worker process: where models are loaded. Picklable,
      unless `workers` is 1.
    items: at most a few for each worker are taken ahead of the results.
    workers: processes; 1 works in this one.

  Raises:
    UserError: a worker process died (killed for its memory, most likely).
    Whatever the function, or making it, raises.
  """
  if workers == 1:
    yield from map(make_function(), items)
    return
  # Not forked: OpenCV, faiss and TensorFlow hold threads and locks that a fork would copy in any state.
  context = multiprocessing.get_context('spawn')
  pool = concurrent.futures.ProcessPoolExecutor(
    workers, mp_context=context, initializer=_start_worker, initargs=(make_function,)
  )
  pending: collections.deque[concurrent.futures.Future] = collections.deque()
  try:
    for item in items:
      pending.append(pool.submit(_work, item))
      if len(pending) > _AHEAD * workers:
        yield pending.popleft().result()
    while pending:
      yield pending.popleft().result()
  except concurrent.futures.process.BrokenProcessPool:
    raise UserError(
      f'one of {workers} worker processes died, most likely for lack of memory. Run the same command again'
      ' to go on from the last finished shard, with fewer --workers if it happens again'
    ) from None
  finally:
    for future in pending:
      future.cancel()
    # The pool's own thread may close the pipe that shutdown writes to, between its look and its write.
    with contextlib.suppress(OSError):
      pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(make_function: Callable[[], Callable]) -> None:
  global _function
  # The parent alone answers to Ctrl-C; it stops its workers.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  threading.Thread(target=_exit_with_parent, daemon=True).start()
  _use_one_thread()
  try:
    _function = make_function()
  except Exception as error:
    # Raised here it would only break the pool, and the parent would not learn why.
    _function = functools.partial(_raise, error)


def _raise(error: Exception, _item) -> None:
  raise error


def _exit_with_parent() -> None:
  # A parent that was killed cannot tell its workers; they would wait for work for ever.
  multiprocessing.parent_process().join()
  os._exit(1)


def _use_one_thread() -> None:
  """Processes are the parallelism; threads of each library on top of it would only fight for the cores."""
  import cv2

  cv2.setNumThreads(1)
  # Read when TensorFlow is imported, if it ever is.
  os.environ['TF_NUM_INTRAOP_THREADS'] = os.environ['TF_NUM_INTEROP_THREADS'] = '1'
  # Several processes share a GPU only if none takes all of its memory at once.
  os.environ['TF_FORCE_GPU_ALLOW_GROWTH'] = 'true'


def _work(item):
  return _function(item)
