"""Worker processes that share what they import: they are forked from a process that has imported it.

A fork copies the threads and locks of OpenCV, faiss and TensorFlow in any state, so the process of a command
must not be forked. The fork server of the standard library is a fresh process that only imports: it has one
thread and has computed nothing. Its children start in some milliseconds instead of seconds, and the memory
of what was imported is there once for all of them.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Mapping
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from typing import Any

from absl import logging

# Names what the server imports: preloading.py reads it, which is all that the server is told to import.
VARIABLE = 'DELF_D2R_PRELOAD'
_PRELOADING = 'delf_d2r.runtime.preloading'

# So that no library starts threads when it is imported.
_ONE_THREAD = {'OPENBLAS_NUM_THREADS': '1', 'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1'}

# Variables that modules read when they are imported, and the cores, as they were when the server started.
_started_in: object = None


def context(modules: Iterable[str] = ()) -> BaseContext:
  """Returns the context of `multiprocessing` that makes workers; starts the server if there is none yet.

  It returns at once; the server imports meanwhile. One that is running stays, whatever it has imported: its
  children import the rest. Where the server does not fit any more, since what it has inherited has changed,
  or cannot be started, each process starts afresh.

  Args:
    modules: what the server imports. One that cannot be imported is left to the workers that need it.
  """
  global _started_in
  if _started_in is None:
    _server().set_forkserver_preload([_PRELOADING])
    environment = {**_ONE_THREAD, VARIABLE: ','.join(modules)}
    try:
      _with_environment(environment, _server().ensure_running)
    except OSError as error:
      logging.warning('workers share nothing, since the fork server cannot be started: %s', error)
      return multiprocessing.get_context('spawn')
    _started_in = _surroundings()
  return multiprocessing.get_context('forkserver' if _started_in == _surroundings() else 'spawn')


def _surroundings() -> object:
  variables = {name: value for name, value in os.environ.items() if name.startswith(('DELF_D2R_', 'PYTHON'))}
  return variables, os.sched_getaffinity(0)


def _server() -> Any:
  """Returns the server of this process, which is behind the functions of the module."""
  return forkserver._forkserver  # type: ignore[attr-defined]


def _with_environment(changes: Mapping[str, str], action: Callable[[], None]) -> None:
  """Does something while variables of the environment have other values."""
  before = {name: os.environ.get(name) for name in changes}
  os.environ.update(changes)
  try:
    action()
  finally:
    for name, value in before.items():
      if value is None:
        del os.environ[name]
      else:
        os.environ[name] = value


def _forget() -> None:
  """Forgets the server of the parent, which is none of a process that was forked from the parent."""
  global _started_in
  if _started_in is not None:
    _started_in = None
    server = _server()
    os.close(server._forkserver_alive_fd)
    server._forkserver_address = server._forkserver_alive_fd = server._forkserver_pid = None


os.register_at_fork(after_in_child=_forget)
