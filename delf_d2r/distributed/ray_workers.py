"""Workers of a Ray cluster that are replaced when they die, and the work that each of them is busy with."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from absl import logging

from delf_d2r.distributed.worker import Worker
from delf_d2r.errors import UserError
from delf_d2r.runtime.worker_pool import WorkerFactory
from delf_d2r.version import VERSION

# Of starts in a row, and of one piece of work. One death is an accident, three have a cause.
TRIES = 3

# After this time without a result the user is told why.
_PATIENCE_SECONDS = 60.0

# The worker's process or machine is lost, or the machine that kept its result is.
DEATHS = (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError)


class WorkerDied(Exception):
  """The worker died that was busy with a piece of work."""


class WorkerPool:
  """Some workers, each of which does one piece of work at a time, so that it is clear what killed it.

  Ray starts them where there are free resources and notices when they die. A replacement may have to wait for
  resources, so it gets work only once it has started; the others go on meanwhile.
  """

  def __init__(
    self,
    make_function: WorkerFactory,
    *,
    size: int,
    cpus: float,
    gpus: float,
    capacity: Callable[[], int],
  ):
    """Asks for workers.

    Args:
      make_function: makes the function of each worker.
      size: the number of workers.
      cpus: CPUs of each.
      gpus: GPUs of each.
      capacity: returns how many workers the remaining machines can hold.
    """
    # Ray gives handles of actors their methods at run time.
    self._class: Any = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0)(Worker)
    self._start_arguments = (make_function, os.getcwd(), VERSION)
    self._capacity = capacity
    self._idle: deque[Any] = deque()
    self._busy: dict[ray.ObjectRef, tuple[Any, Any]] = {}
    self._deaths_at_start = 0
    for _ in range(size):
      self._spawn()

  def __enter__(self) -> 'WorkerPool':
    return self

  def __exit__(self, *exception) -> None:
    for worker in [*self._idle, *(worker for worker, _ in self._busy.values())]:
      ray.kill(worker)

  @property
  def has_idle(self) -> bool:
    """Whether a worker waits for work."""
    return bool(self._idle)

  def submit(self, work: Any, group: Sequence[Any]) -> None:
    """Hands a group of items to an idle worker; `finished` will name it `work`."""
    worker = self._idle.popleft()
    self._busy[worker.work.remote(group)] = (worker, work)

  def finished(self) -> Iterator[tuple[Any, list[Any] | WorkerDied]]:
    """Waits for a change and yields each finished piece of work with its results, or with what ended it.

    Raises:
      UserError: workers die before they start, or no machine is left for any.
      Exception: whatever the function, or making it, raises.
    """
    ready, _ = ray.wait(list(self._busy), num_returns=1, timeout=_PATIENCE_SECONDS)
    if not ready:
      self._explain_waiting()
    for reference in ready:
      worker, work = self._busy.pop(reference)
      try:
        results = result(reference)
      except DEATHS as error:
        # A machine that is cut off may come back with its worker.
        ray.kill(worker)
        self._spawn()
        if work is None:
          self._count_death_at_start(error)
        else:
          yield work, WorkerDied(cause(error))
      else:
        self._deaths_at_start = 0
        self._idle.append(worker)
        if work is not None:
          yield work, results

  def _spawn(self) -> None:
    worker = self._class.remote()
    self._busy[worker.start.remote(*self._start_arguments)] = (worker, None)

  def _count_death_at_start(self, error: Exception) -> None:
    self._deaths_at_start += 1
    if self._deaths_at_start == TRIES:
      raise UserError(
        f'{TRIES} workers of the cluster died in a row while they loaded their models ({cause(error)}). Most'
        ' likely memory is short: give each worker more of a machine by --cpus_per_worker, or have fewer by'
        ' --workers'
      )

  def _explain_waiting(self) -> None:
    if any(work is not None for _, work in self._busy.values()):
      return
    if not self._capacity():
      raise UserError(
        'no machine of the cluster is left that can hold a worker. What was finished is kept; run the same'
        ' command again to go on'
      )
    logging.warning('waiting for room in the cluster: %d workers have not started yet', len(self._busy))


def result(reference: ray.ObjectRef) -> Any:
  """Waits for the result of a call and returns it; raises one of `DEATHS`, or the call's own error."""
  try:
    return ray.get(reference)
  except ray.exceptions.RayTaskError as error:
    # Ray's own message is the traceback on the other machine, which a UserError does not need.
    if isinstance(error.cause, UserError):
      raise error.cause from None
    raise


def cause(error: Exception) -> str:
  """Returns Ray's message without the actor's identity before it and the list of common causes after it."""
  return str(error).strip().splitlines()[-1].split('. Some common causes')[0].strip(' .')
