"""What runs in the processes of the cluster."""

import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from delf_d2r.errors import UserError
from delf_d2r.runtime import worker_pool
from delf_d2r.version import VERSION


class Worker:
  """A Ray actor: makes a function once, models and all, and works on one group of items after the other."""

  def start(self, make_function: Callable[[], Callable], folder: str, version: str) -> None:
    """Makes the function.

    Args:
      make_function: makes it.
      folder: see `settle`.
      version: see `settle`.

    Raises:
      UserError: as `settle`.
      Whatever making the function raises.
    """
    settle(folder, version)
    self._function = worker_pool.on_one_thread(make_function)

  def work(self, group: Sequence[Any]) -> list[Any]:
    """The results of a group."""
    return list(self._function(group))


def settle(folder: str, version: str) -> None:
  """Makes this process fit to work for the command.

  Args:
    folder: where the command runs, which paths are relative to.
    version: of the library there.

  Raises:
    UserError: this machine does not have that folder or that library.
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
