"""Joining a Ray cluster, or starting one of the cores of this machine, and how many workers it can hold."""

import logging
import math
import os
import socket
from typing import Any

from delf_d2r.errors import UserError
from delf_d2r.runtime import worker_pool

LOCAL = 'local'
AUTO = 'auto'

# Holds some groups of items for each worker. Without a limit Ray takes 30 % of the memory.
_LOCAL_STORE_BYTES = 512 << 20
_CONNECT_SECONDS = 5.0

# Ray names the variable after the systems where clusters of several machines are off by default. With 0 Ray's
# servers listen on the loopback address alone, not on every network of this machine. Ray reads it on import.
_SEVERAL_MACHINES = 'RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER'


def prepare_import(address: str) -> None:
  """Sets the variables that Ray reads when it is imported.

  Args:
    address: see `connect`.

  Raises:
    UserError: Ray is not installed.
  """
  os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
  if address == LOCAL:
    os.environ.setdefault(_SEVERAL_MACHINES, '0')
  try:
    import ray  # noqa: F401
  except ModuleNotFoundError:
    raise UserError(
      f"--cluster={address} needs Ray, which is not installed: pip install 'delf_d2r[cluster]'"
    ) from None


def connect(address: str, *, cpus: float = 1) -> None:
  """Connects this process until it ends; an existing connection is kept, whatever the address.

  Args:
    address: HOST:PORT of the cluster's head; `auto`: that of RAY_ADDRESS, or of the cluster that this machine
      belongs to; `local`: starts a cluster of this machine alone, which ends with this process.
    cpus: the least CPUs of a cluster of this machine; it has those of this process if these are more.

  Raises:
    UserError: there is no cluster at the address, or it is of another version.
  """
  import ray

  if ray.is_initialized():
    return
  require_listener(address)
  options: dict[str, Any] = {'logging_level': logging.ERROR, 'log_to_driver': False}
  if address == LOCAL:
    cores = math.ceil(max(worker_pool.available_cores(), cpus))
    options |= {'num_cpus': cores, 'object_store_memory': _LOCAL_STORE_BYTES, 'include_dashboard': False}
  try:
    ray.init(address=address, **options)
  except (OSError, RuntimeError, ValueError) as error:
    raise _no_cluster(address, error) from error


def require_listener(address: str) -> None:
  """Raises UserError if that is no address, or if nobody listens there.

  Ray itself would try for ten minutes.
  """
  if address in (AUTO, LOCAL):
    return
  host, _, port = address.rpartition(':')
  if not host or not port.isdecimal() or int(port) >= 1 << 16:
    raise _no_cluster(address, f'expected HOST:PORT, {AUTO} or {LOCAL}')
  import ray

  place = address
  if host in ('localhost', '127.0.0.1'):
    # Ray replaces these in the same way.
    host = ray.util.get_node_ip_address()
    place += f', which Ray takes for {host}:{port}'
  try:
    socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
  except OSError as error:
    raise _no_cluster(address, f'nobody answers at {place} ({error})') from None


def capacity(*, cpus: float, gpus: float) -> int:
  """Returns how many workers of so many CPUs and GPUs the running machines can hold, were they idle."""
  needs = {name: need for name, need in (('CPU', cpus), ('GPU', gpus)) if need}
  return sum(
    min(math.floor(machine.get(name, 0) / need) for name, need in needs.items()) for machine in _machines()
  )


def require_capacity(workers: int, *, cpus: float, gpus: float) -> int:
  """Returns the `capacity`; raises UserError if it is less than so many workers."""
  found = capacity(cpus=cpus, gpus=gpus)
  if found < workers:
    machines = ', '.join(
      f'{machine.get("CPU", 0):g} CPUs and {machine.get("GPU", 0):g} GPUs' for machine in _machines()
    )
    raise UserError(
      f'the cluster has room for {found} workers of {cpus:g} CPUs and {gpus:g} GPUs, {workers} are wanted.'
      f' The machines have {machines or "nothing"}. Lower --workers, --cpus_per_worker or'
      ' --gpus_per_worker, or add machines'
    )
  return found


def _machines() -> list[dict[str, float]]:
  """Returns the resources of every running machine."""
  import ray

  return [node['Resources'] for node in ray.nodes() if node['Alive']]


def _no_cluster(address: str, problem: object) -> UserError:
  return UserError(
    f'--cluster={address}: {problem}. Start a cluster by `ray start --head` on one machine and `ray start'
    ' --address=HOST:PORT` on the others, with one version of Python, Ray and delf_d2r everywhere'
  )
