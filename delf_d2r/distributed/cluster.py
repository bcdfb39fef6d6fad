"""The work of stages and trainings on a Ray cluster: an existing one, or one that ends with the command."""

from collections.abc import Callable
from typing import Any

from delf_d2r.distributed import connection
from delf_d2r.runtime import worker_pool


def pool(
  address: str, *, workers: int | None = None, cpus_per_worker: float = 1, gpus_per_worker: float = 0
) -> worker_pool.Pool:
  """Returns workers of a cluster for the stages; it is joined, or started, when the first work comes.

  Args:
    address: see `connection.connect`.
    workers: how many; None: as many as the cluster can hold.
    cpus_per_worker: see `RayPool`.
    gpus_per_worker: see `RayPool`.

  Raises:
    UserError: Ray is not installed, or nobody answers at the address.
  """
  connection.prepare_import(address)
  connection.require_listener(address)
  from delf_d2r.distributed.ray_pool import RayPool

  return RayPool(address, workers, cpus_per_worker, gpus_per_worker)


def train(train: Callable[[], Any], address: str, **resources) -> Any:
  """Runs a training in several processes of a cluster; see `training.run`, and `pool` for errors."""
  connection.prepare_import(address)
  from delf_d2r.distributed import training

  return training.run(train, address, **resources)
