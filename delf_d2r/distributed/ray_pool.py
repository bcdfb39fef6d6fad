"""Groups of items over the workers of a cluster: results in order, also when workers die."""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from absl import logging

from delf_d2r.distributed import connection
from delf_d2r.distributed.ray_workers import TRIES, WorkerDied, WorkerPool
from delf_d2r.runtime.worker_pool import AHEAD, WorkerFactory

_REASON = f'killed each of {TRIES} workers that it was given to, most likely for lack of memory'


@dataclasses.dataclass
class _Group:
  """A group that has been taken: its results so far, and how many are missing."""

  results: list
  missing: int


@dataclasses.dataclass
class _Part:
  """Neighbouring items of a group: all of them, or one alone after the whole killed its workers."""

  of: _Group
  first: int
  items: Sequence[Any]
  deaths: int = 0

  def finish(self, results: Sequence[Any]) -> None:
    self.of.results[self.first : self.first + len(self.items)] = results
    self.of.missing -= len(self.items)

  def split(self) -> list['_Part']:
    return [_Part(self.of, self.first + place, [item]) for place, item in enumerate(self.items)]


@dataclasses.dataclass(frozen=True)
class RayPool:
  """The `worker_pool.Pool` of a Ray cluster; made by `cluster.pool`.

  Attributes:
    address: of the cluster; see `connection.connect`.
    workers: how many; None: as many as the cluster can hold.
    cpus_per_worker: CPUs that each has for itself. It computes in one thread; more than one CPU is for models
      that need more than one CPU's share of the memory.
    gpus_per_worker: GPUs, or parts of one, of each worker that runs a network; others get none.
  """

  address: str
  workers: int | None = None
  cpus_per_worker: float = 1
  gpus_per_worker: float = 0

  def map_groups(
    self,
    make_function: WorkerFactory[Any, Any],
    groups: Iterable[Sequence[Any]],
    *,
    num_groups: int,
    uses_network: bool,
    lost: Callable[[Any, str], Any],
  ) -> Iterator[Any]:
    """Yields the results of all items in order; see `worker_pool.map_groups`.

    A group whose worker dies is given to another, three times at most. Then its items are tried one by one,
    so that an item that kills every worker does not take its neighbours with it.
    """
    if not num_groups:
      return
    connection.connect(self.address, cpus=(self.workers or 1) * self.cpus_per_worker)
    gpus = self.gpus_per_worker if uses_network else 0
    capacity = connection.require_capacity(1, cpus=self.cpus_per_worker, gpus=gpus)
    size = min(self.workers or capacity, num_groups)
    logging.info('%d workers on the cluster, which has room for %d', size, capacity)
    with WorkerPool(
      make_function,
      size=size,
      cpus=self.cpus_per_worker,
      gpus=gpus,
      capacity=lambda: connection.capacity(cpus=self.cpus_per_worker, gpus=gpus),
    ) as workers:
      yield from _results(workers, iter(groups), AHEAD * size, lost)


def _results(
  workers: WorkerPool, groups: Iterator[Sequence[Any]], bound: int, lost: Callable[[Any, str], Any]
) -> Iterator[Any]:
  """Yields the results of all items in order, with at most `bound` groups in progress at a time."""
  ahead: deque[_Group] = deque()
  todo: deque[_Part] = deque()
  while True:
    while len(ahead) < bound and (group := next(groups, None)) is not None:
      ahead.append(_Group([None] * len(group), len(group)))
      todo.append(_Part(ahead[-1], 0, group))
    if not ahead:
      return
    while todo and workers.has_idle:
      part = todo.popleft()
      workers.submit(part, part.items)
    for part, outcome in workers.finished():
      if not isinstance(outcome, WorkerDied):
        part.finish(outcome)
        continue
      part.deaths += 1
      if part.deaths < TRIES:
        logging.warning('a worker died and is replaced: %s', outcome)
        todo.appendleft(part)
      elif len(part.items) > 1:
        todo.extendleft(reversed(part.split()))
      else:
        part.finish([lost(part.items[0], _REASON)])
    while ahead and not ahead[0].missing:
      yield from ahead.popleft().results
