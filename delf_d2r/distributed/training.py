"""One training by several processes of a cluster: Ray places them, TensorFlow trains."""

import json
import os
import socket
from collections.abc import Callable
from typing import Any

import ray
from absl import logging

from delf_d2r.distributed import connection
from delf_d2r.distributed.ray_workers import DEATHS, TRIES, cause, result
from delf_d2r.distributed.worker import validate_environment
from delf_d2r.errors import UserError
from delf_d2r.version import VERSION


def run(
  train: Callable[[], Any],
  address: str,
  *,
  workers: int,
  cpus_per_worker: float = 1,
  gpus_per_worker: float = 0,
) -> Any:
  """Trains with the strategy MULTI_WORKER, which the config of the training must name.

  When a worker dies, all are started again, and the training goes on from its last checkpoint.

  Args:
    train: called in each process, with TF_CONFIG in its environment; picklable.
    address: of the cluster; see `connection.connect`.
    workers: processes.
    cpus_per_worker: CPUs of each.
    gpus_per_worker: GPUs of each, all of which it uses.

  Returns:
    What `train` returned in the first process.

  Raises:
    UserError: the cluster cannot hold so many workers, workers died three times, or as `train` raises.
  """
  connection.connect(address, cpus=workers * cpus_per_worker)
  connection.require_capacity(workers, cpus=cpus_per_worker, gpus=gpus_per_worker)
  # Ray gives handles of actors their methods at run time.
  member_class: Any = ray.remote(num_cpus=cpus_per_worker, num_gpus=gpus_per_worker, max_restarts=0)(_Member)
  for remaining in reversed(range(TRIES)):
    members = [member_class.remote() for _ in range(workers)]
    try:
      places = [result(place) for place in [member.place.remote(os.getcwd(), VERSION) for member in members]]
      return _trained([member.train.remote(train, places, i) for i, member in enumerate(members)])
    except DEATHS as error:
      if not remaining:
        raise UserError(f'workers of the training died {TRIES} times: {cause(error)}') from None
      logging.warning('a worker died, so that all start again at the last checkpoint: %s', cause(error))
    finally:
      for member in members:
        ray.kill(member)
  raise AssertionError('unreachable: the last try returns or raises')


def _trained(references: list[ray.ObjectRef]) -> Any:
  """Returns the first result once all are there.

  The first error is raised at once, since the other processes would wait for ever.
  """
  waiting = references
  while waiting:
    [ready], waiting = ray.wait(waiting)
    result(ready)
  return result(references[0])


class _Member:
  """A Ray actor: one process of the training."""

  def place(self, folder: str, version: str) -> str:
    """Returns where the process can be reached, as `host:port`."""
    validate_environment(folder, version)
    host = ray.util.get_node_ip_address()
    with socket.socket() as probe:
      probe.bind((host, 0))
      return f'{host}:{probe.getsockname()[1]}'

  def train(self, train: Callable[[], Any], places: list[str], index: int) -> Any:
    task = {'type': 'worker', 'index': index}
    # TensorFlow reads it when the strategy is made.
    os.environ['TF_CONFIG'] = json.dumps({'cluster': {'worker': places}, 'task': task})
    return train()
