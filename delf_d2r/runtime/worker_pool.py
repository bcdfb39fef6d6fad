"""One function over many items on all cores, or on a cluster: results in order, bounded memory."""

import collections
import concurrent.futures
import contextlib
import functools
import glob
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.context import BaseContext
from typing import Any, Protocol, TypeVar

import threadpoolctl

from delf_d2r.errors import UserError
from delf_d2r.runtime import fork_server

Item = TypeVar('Item')
Result = TypeVar('Result')

# Items that each worker has waiting: enough that none idles, few enough that memory stays bounded.
AHEAD = 3

_WORKERS_PER_GPU = 4

# What workers import even if their function does not; see `on_one_thread`.
_ALWAYS = ('delf_d2r.runtime.worker_pool', 'cv2')

# Read when TensorFlow starts, if it ever does.
_ONE_THREAD = {'TF_NUM_INTRAOP_THREADS': '1', 'TF_NUM_INTEROP_THREADS': '1'}

# Makes the function from a group of items to their results, once in each worker: where models are loaded.
WorkerFactory = Callable[[], Callable[[Sequence[Item]], Sequence[Result]]]

# The function of this process, if it is a worker.
_function: Callable[[Any], Any] | None = None


class Pool(Protocol):
  """Workers that are not processes of this machine but those of a cluster (delf_d2r.distributed)."""

  def map_groups(
    self,
    make_function: WorkerFactory[Item, Result],
    groups: Iterable[Sequence[Item]],
    *,
    num_groups: int,
    uses_network: bool,
    lost: Callable[[Item, str], Result],
  ) -> Iterator[Result]:
    """Yields the results of all items in order; see the function `map_groups`."""


# A number of processes of this machine (None: one for each core), or the workers of a cluster.
Workers = int | Pool | None


def available_cores() -> int:
  """Returns the number of cores that this process may use."""
  return len(os.sched_getaffinity(0))


def default_workers(*, uses_network: bool) -> int:
  """Returns the number of processes to use where the user gives none.

  Processes of one thread each are faster than threads within TensorFlow, so there is one for each core. A few
  of them fill a GPU.
  """
  return min(available_cores(), _WORKERS_PER_GPU) if uses_network and _has_gpu() else available_cores()


def _has_gpu() -> bool:
  return bool(glob.glob('/dev/nvidia[0-9]*'))


def modules_of(make_function: Callable[..., Any]) -> tuple[str, ...]:
  """Returns the module that a worker imports to make its function; () if it cannot be imported by name."""
  while isinstance(make_function, functools.partial):
    make_function = make_function.func
  name = getattr(make_function, '__module__', None)
  return () if name in (None, '__main__') else (name,)


def start_ahead(preload: Iterable[str]) -> None:
  """Lets the process that workers are forked from import modules while this one does something else.

  Args:
    preload: see `map_ordered`.
  """
  _context(preload)


def _context(preload: Iterable[str]) -> BaseContext:
  # Networks are not imported ahead where there is a GPU, since its drivers survive no fork.
  forkable = [name for name in preload if not (name.startswith('delf_d2r.models.') and _has_gpu())]
  return fork_server.context((*_ALWAYS, *forkable))


def map_groups(
  make_function: WorkerFactory[Item, Result],
  groups: Iterable[Sequence[Item]],
  *,
  num_groups: int,
  workers: Workers,
  lost: Callable[[Item, str], Result],
  uses_network: bool = False,
  preload: Sequence[str] = (),
) -> Iterator[Result]:
  """Yields the results of all items of all groups, in order, whoever computes them.

  Args:
    make_function: makes the function of a worker; see `map_ordered`.
    groups: items to hand to a worker at a time; at most a few groups for each worker are taken ahead.
    num_groups: the number of groups.
    workers: who works; of processes, no more than there are groups.
    lost: makes the result, from the reason, of an item that kills every worker it is given to. A cluster can
      tell such an item from the others; processes of this machine cannot, and end with an error.
    uses_network: whether the function runs a network, for which a cluster may have GPUs.
    preload: see `map_ordered`.

  Raises:
    UserError: workers died, or the cluster has none.
    Exception: whatever the function, or making it, raises.
  """
  if workers is None or isinstance(workers, int):
    workers = min(workers or default_workers(uses_network=uses_network), max(num_groups, 1))
    return itertools.chain.from_iterable(map_ordered(make_function, groups, workers=workers, preload=preload))
  return workers.map_groups(
    make_function, groups, num_groups=num_groups, uses_network=uses_network, lost=lost
  )


def map_ordered(
  make_function: Callable[[], Callable[[Item], Result]],
  items: Iterable[Item],
  *,
  workers: int,
  preload: Sequence[str] = (),
) -> Iterator[Result]:
  """Yields function(item) for every item, in order.

  Args:
    make_function: makes the function, once in each worker process: where models are loaded. Picklable,
      unless `workers` is 1.
    items: at most a few for each worker are taken ahead of the results.
    workers: the number of processes; 1 works in this process, within the limits of a worker, so that the
      results have the same bytes.
    preload: names of modules that every worker needs. They are imported once for all, if these are the first
      workers of this process. They must start no threads when they are imported.

  Raises:
    UserError: a worker process died, most likely killed for its memory.
    Exception: whatever the function, or making it, raises.
  """
  if workers == 1:
    with _one_thread_here(make_function) as function:
      yield from map(function, items)
    return
  pool = concurrent.futures.ProcessPoolExecutor(
    workers,
    mp_context=_context(preload),
    initializer=_start_worker,
    initargs=(make_function, dict(os.environ)),
  )
  pending: collections.deque[concurrent.futures.Future] = collections.deque()
  try:
    for item in items:
      pending.append(pool.submit(_work, item))
      if len(pending) > AHEAD * workers:
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
    # The pool's own thread may close the pipe to which shutdown is about to write.
    with contextlib.suppress(OSError):
      pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(make_function: Callable[[], Callable], environment: dict[str, str]) -> None:
  global _function
  # A fork server has that of its own start.
  os.environ.clear()
  os.environ.update(environment)
  # Only the parent reacts to Ctrl-C; it stops its workers.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  threading.Thread(target=_exit_with_parent, daemon=True).start()
  try:
    _function = on_one_thread(make_function)
  except Exception as error:
    # If it were raised here, it would only break the pool, and the parent would not learn why.
    _function = functools.partial(_raise, error)


def _raise(error: Exception, _item) -> None:
  raise error


def _exit_with_parent() -> None:
  # A parent that was killed cannot tell its workers, which would wait for work for ever.
  parent = multiprocessing.parent_process()
  assert parent is not None, 'called in the process of the command itself'
  parent.join()
  os._exit(1)


def on_one_thread(make_function: Callable[[], Callable]) -> Callable:
  """Makes the function of a worker process, and limits the libraries to one thread each.

  The processes use all cores already; threads of each library would only compete for them.
  """
  import cv2

  cv2.setNumThreads(1)
  os.environ.update(_ONE_THREAD)
  # Several processes share a GPU only if none takes all of its memory at once.
  os.environ['TF_FORCE_GPU_ALLOW_GROWTH'] = 'true'
  function = make_function()
  # The limits hold for the libraries that are loaded by now: faiss and BLAS.
  threadpoolctl.threadpool_limits(1)
  return function


@contextlib.contextmanager
def _one_thread_here(make_function: Callable[[], Callable]) -> Iterator[Callable]:
  """Makes the function in this process, and lifts the limits at the end.

  The sums of a network, and with them the last bits of its output, depend on the number of threads.
  TensorFlow keeps the one thread if it starts here, and keeps its own number if it has started before.
  """
  import cv2

  threads, environment = cv2.getNumThreads(), {name: os.environ.get(name) for name in _ONE_THREAD}
  try:
    cv2.setNumThreads(1)
    os.environ.update(_ONE_THREAD)
    function = make_function()
    with threadpoolctl.threadpool_limits(1):
      yield function
  finally:
    cv2.setNumThreads(threads)
    for name, value in environment.items():
      if value is None:
        os.environ.pop(name, None)
      else:
        os.environ[name] = value


def _work(item):
  return _function(item)
