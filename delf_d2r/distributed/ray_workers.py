"""Workers of a Ray cluster that die and are replaced, and what each of them has in hand."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import ray
from absl import logging

from delf_d2r.distributed.worker import Worker
from delf_d2r.errors import UserError
from delf_d2r.version import VERSION

# Of starts in a row, and of one piece of work: one death is an accident, three have a cause.
TRIES = 3

# After this time without any news the user is told what is waited for.
_PATIENCE_SECONDS = 60.0

# The worker's process or machine is gone, or the machine that kept its result is.
DEATHS = (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError)


class Died(Exception):
  """A worker died over a piece of work."""


class Crew:
  """Some workers, each of which does one piece of work at a time, so that it is clear what killed it.

  Ray starts them where there is room and notices when they die. A replacement may have to wait for room,
  which is why it gets work only once it has started: the others go on meanwhile.
  """

  def __init__(
    self, make_function: Callable[[], Callable], *, size: int, cpus: float, gpus: float, can_hold: Callable
  ):
    """Asks for `size` workers of so many CPUs and GPUs each.

    Args:
      make_function: makes the function of each worker.
      size: how many.
      cpus: of each.
      gpus: of each.
      can_hold: tells how many the machines that are left have room for.
    """
    self._class = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0)(Worker)
    self._start_arguments = (make_function, os.getcwd(), VERSION)
    self._can_hold = can_hold
    self._idle: deque = deque()
    self._busy: dict[ray.ObjectRef, tuple[ray.actor.ActorHandle, Any]] = {}
    self._deaths_at_start = 0
    for _ in range(size):
      self._hire()

  def __enter__(self) -> 'Crew':
    return self

  def __exit__(self, *exception) -> None:
    for worker in [*self._idle, *(worker for worker, _ in self._busy.values())]:
      ray.kill(worker)

  @property
  def has_idle(self) -> bool:
    """Whether a worker waits for work."""
    return bool(self._idle)

  def give(self, work: Any, group: Any) -> None:
    """Hands a group of items to an idle worker; `work` is what `finished` will call it."""
    worker = self._idle.popleft()
    self._busy[worker.work.remote(group)] = (worker, work)

  def finished(self) -> Iterator[tuple[Any, list | Died]]:
    """Waits for something to happen and yields the work that is done, with its results or how it ended.

    Raises:
      UserError: workers die before they start, or there is no machine left for any.
      Whatever the function, or making it, raises.
    """
    ready, _ = ray.wait(list(self._busy), num_returns=1, timeout=_PATIENCE_SECONDS)
    if not ready:
      self._explain_waiting()
    for reference in ready:
      worker, work = self._busy.pop(reference)
      try:
        results = result(reference)
      except DEATHS as error:
        # A machine that is cut off may come back, and its worker with it.
        ray.kill(worker)
        self._hire()
        if work is None:
          self._count_death_at_start(error)
        else:
          yield work, Died(cause(error))
      else:
        self._deaths_at_start = 0
        self._idle.append(worker)
        if work is not None:
          yield work, results

  def _hire(self) -> None:
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
    if not self._can_hold():
      raise UserError(
        'no machine of the cluster is left that can hold a worker. What was finished is kept; run the same'
        ' command again to go on'
      )
    logging.warning('waiting for room in the cluster: %d workers have not started yet', len(self._busy))


def result(reference: ray.ObjectRef) -> Any:
  """Waits for a call's result; raises one of `DEATHS`, or the call's own error."""
  try:
    return ray.get(reference)
  except ray.exceptions.RayTaskError as error:
    # Ray's own message is the traceback on the other machine, which an error of the user does not need.
    if isinstance(error.cause, UserError):
      raise error.cause from None
    raise


def cause(error: Exception) -> str:
  """What Ray says after the actor's identity, without its list of common causes."""
  return str(error).strip().splitlines()[-1].split('. Some common causes')[0].strip(' .')
