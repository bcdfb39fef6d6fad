"""Ray clusters: those that run, and one of this machine's cores that lasts as long as the command."""

import logging
import math
import os
import socket
from collections.abc import Callable
from typing import Any

from delf_d2r.errors import UserError
from delf_d2r.runtime import worker_pool

LOCAL = 'local'
AUTO = 'auto'

# Holds some groups of items for each worker. Ray takes 30 % of the memory if not told.
_LOCAL_STORE_BYTES = 512 << 20
_CONNECT_SECONDS = 5.0

# Named after the systems where clusters of several machines are off by default. Without them Ray's servers
# listen on the loopback address alone, not on every network of this machine. Read when Ray is imported.
_SEVERAL_MACHINES = 'RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER'


def pool(
  address: str, *, workers: int | None = None, cpus_per_worker: float = 1, gpus_per_worker: float = 0
) -> worker_pool.Pool:
  """Workers of a cluster, for the stages; it is joined, or started, when the first work comes.

  Args:
    address: as for `connect`.
    workers: how many; None: as many as the cluster has room for.
    cpus_per_worker: see `RayPool`.
    gpus_per_worker: see `RayPool`.

  Raises:
    UserError: Ray is not installed, or nobody answers at the address.
  """
  _prepare_import(address)
  _require_listener(address)
  from delf_d2r.distributed.ray_pool import RayPool

  return RayPool(address, workers, cpus_per_worker, gpus_per_worker)


def train(train: Callable[[], Any], address: str, **resources) -> Any:
  """Runs a training in several processes of a cluster; see `training.run`, and `pool` for errors."""
  _prepare_import(address)
  from delf_d2r.distributed import training

  return training.run(train, address, **resources)


def connect(address: str, *, cpus: float = 1) -> None:
  """Connects this process until it ends; a connection that it has is kept, whatever the address.

  Args:
    address: HOST:PORT of the cluster's head; `auto`: that of RAY_ADDRESS, or of the cluster that this machine
      belongs to; `local`: starts one of this machine alone, which ends with this process.
    cpus: that a cluster of this machine has at least; it has those of this process if these are more.

  Raises:
    UserError: there is no cluster at the address, or it is of another version.
  """
  import ray

  if ray.is_initialized():
    return
  _require_listener(address)
  options = {'logging_level': logging.ERROR, 'log_to_driver': False}
  if address == LOCAL:
    cores = math.ceil(max(worker_pool.available_cores(), cpus))
    options |= {'num_cpus': cores, 'object_store_memory': _LOCAL_STORE_BYTES, 'include_dashboard': False}
  try:
    ray.init(address=address, **options)
  except (OSError, RuntimeError, ValueError) as error:
    raise _no_cluster(address, error) from error


def room(*, cpus: float, gpus: float) -> int:
  """How many workers the machines that are up have room for, whatever else runs there."""
  needs = {name: need for name, need in (('CPU', cpus), ('GPU', gpus)) if need}
  return sum(
    min(math.floor(node.get(name, 0) / need) for name, need in needs.items()) for node in _machines()
  )


def require_room(workers: int, *, cpus: float, gpus: float) -> int:
  """As `room`; UserError if there is none for so many workers."""
  found = room(cpus=cpus, gpus=gpus)
  if found < workers:
    machines = ', '.join(
      f'{node.get("CPU", 0):g} CPUs and {node.get("GPU", 0):g} GPUs' for node in _machines()
    )
    raise UserError(
      f'the cluster has room for {found} workers of {cpus:g} CPUs and {gpus:g} GPUs, {workers} are wanted.'
      f' The machines have {machines or "nothing"}. Lower --workers, --cpus_per_worker or'
      ' --gpus_per_worker, or add machines'
    )
  return found


def _machines() -> list[dict[str, float]]:
  """The resources of every machine that is up."""
  import ray

  return [node['Resources'] for node in ray.nodes() if node['Alive']]


def _prepare_import(address: str) -> None:
  """Sets what Ray reads when it is imported; UserError if it is not installed."""
  os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
  if address == LOCAL:
    os.environ.setdefault(_SEVERAL_MACHINES, '0')
  try:
    import ray  # noqa: F401
  except ModuleNotFoundError:
    raise UserError(
      f"--cluster={address} needs Ray, which is not installed: pip install 'delf_d2r[cluster]'"
    ) from None


def _require_listener(address: str) -> None:
  """UserError if that is no address, or nobody listens there: Ray itself would try for ten minutes."""
  if address in (AUTO, LOCAL):
    return
  host, _, port = address.rpartition(':')
  if not host or not port.isdecimal() or int(port) >= 1 << 16:
    raise _no_cluster(address, f'expected HOST:PORT, {AUTO} or {LOCAL}')
  import ray

  place = address
  if host in ('localhost', '127.0.0.1'):
    # As Ray does it.
    host = ray.util.get_node_ip_address()
    place += f', which Ray takes for {host}:{port}'
  try:
    socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
  except OSError as error:
    raise _no_cluster(address, f'nobody answers at {place} ({error})') from None


def _no_cluster(address: str, problem: object) -> UserError:
  return UserError(
    f'--cluster={address}: {problem}. Start a cluster by `ray start --head` on one machine and `ray start'
    ' --address=HOST:PORT` on the others, with one version of Python, Ray and delf_d2r everywhere'
  )
