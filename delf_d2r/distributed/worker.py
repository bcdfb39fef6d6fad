"""The actors that run in the processes of a cluster."""

import os
import socket
from collections.abc import Sequence
from typing import Any

from delf_d2r.errors import UserError
from delf_d2r.runtime import worker_pool
from delf_d2r.version import VERSION


class Worker:
  """A Ray actor that makes a function once, models and all, and works on one group of items after another."""

  def start(self, make_function: worker_pool.WorkerFactory, folder: str, version: str) -> None:
    """Makes the function.

    Args:
      make_function: makes it.
      folder: see `validate_environment`.
      version: see `validate_environment`.

    Raises:
      UserError: see `validate_environment`.
      Exception: whatever making the function raises.
    """
    validate_environment(folder, version)
    self._function = worker_pool.on_one_thread(make_function)

  def work(self, group: Sequence[Any]) -> list[Any]:
    """Returns the results of a group."""
    return list(self._function(group))


def validate_environment(folder: str, version: str) -> None:
  """Checks that this process can work for the command, and changes to the command's folder.

  Args:
    folder: where the command runs; paths are relative to it.
    version: of the library there.

  Raises:
    UserError: this machine does not have that folder or that version of the library.
  """
  if version != VERSION:
    raise UserError(
      f'machine {socket.gethostname()} has delf_d2r {VERSION}, the command runs {version}. Install one'
      ' version everywhere'
    )
  try:
    os.chdir(folder)
  except OSError as error:
    raise UserError(
      f'machine {socket.gethostname()}: {error}. Every machine needs the photos, models and the folder of'
      ' the command at the same paths, by a shared file system for example'
    ) from None
