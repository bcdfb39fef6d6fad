"""Information about other processes from the kernel."""

import contextlib
import pathlib
import time
from collections.abc import Callable

PROC = pathlib.Path('/proc')


def descendants(process: int) -> dict[int, str]:
  """Returns the names of all descendants of a process by process id."""
  found = {}
  with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # It may have ended.
    for task in (PROC / str(process) / 'task').iterdir():
      for child in map(int, (task / 'children').read_text().split()):
        command = (PROC / str(child) / 'cmdline').read_text().split('\0')[0]
        found |= {child: pathlib.Path(command).name.split('.')[0], **descendants(child)}
  return found


def is_running(process: int) -> bool:
  """Tells whether a process exists and is not a zombie."""
  try:
    status = (PROC / str(process) / 'stat').read_text(encoding='utf-8')
  except (FileNotFoundError, ProcessLookupError):
    return False
  return status.rpartition(')')[2].split()[0] != 'Z'


def peak_bytes(process: int | str = 'self') -> int:
  """Returns the peak of the resident memory of a process in bytes; 0 if it has ended."""
  with contextlib.suppress(FileNotFoundError, ProcessLookupError):
    for line in (PROC / str(process) / 'status').read_text().splitlines():
      if line.startswith('VmHWM:'):
        return int(line.split()[1]) << 10
  return 0


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
  """Fails if the condition does not come true in time."""
  deadline = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < deadline, 'waited in vain'
    time.sleep(0.02)
