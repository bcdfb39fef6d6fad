"""The cost of a function: wall time, CPU time and memory; and the line through two measurements."""

import contextlib
import dataclasses
import multiprocessing
import os
import pathlib
import resource
import threading
import time
import traceback
from collections.abc import Callable

from delf_d2r.errors import UserError

_POLL_SECONDS = 0.05


@dataclasses.dataclass(frozen=True)
class Cost:
  """The cost of one run.

  Attributes:
    seconds: wall time.
    cpu_seconds: CPU time of all its processes.
    memory: peak of the bytes of anonymous memory that its processes held together, without mapped files.
  """

  seconds: float
  cpu_seconds: float
  memory: float


@dataclasses.dataclass(frozen=True)
class LinearFit:
  """A linear model of a cost: fixed + each * items."""

  fixed: float
  each: float

  def __call__(self, items: float) -> float:
    return self.fixed + self.each * items

  @classmethod
  def fit(cls, few: tuple[float, float], many: tuple[float, float]) -> 'LinearFit':
    """Returns the line through two points (items, value), of which neither part is negative.

    If noise would make the fixed part negative, the line goes through the origin and the second point.
    """
    each = max((many[1] - few[1]) / (many[0] - few[0]), 0.0)
    fixed = many[1] - each * many[0]
    return cls(fixed, each) if fixed >= 0 else cls.proportional(many)

  @classmethod
  def nondecreasing(cls, few: tuple[float, float], many: tuple[float, float]) -> 'LinearFit':
    """Returns the line of a value that is known to grow with the items.

    If noise hides the growth, the line goes through the origin and the second point and so overestimates it.
    """
    line = cls.fit(few, many)
    return line if line.each > 0 else cls.proportional(many)

  @classmethod
  def proportional(cls, point: tuple[float, float]) -> 'LinearFit':
    """Returns the line through the origin and a point (items, value)."""
    return cls(0.0, point[1] / point[0])


def measure(function: Callable[[], None]) -> Cost:
  """Runs a picklable function in a process of its own and returns its cost.

  Raises:
    UserError: the function raised an exception, or its process died.
  """
  context = multiprocessing.get_context('spawn')
  receiver, sender = context.Pipe(duplex=False)
  before = resource.getrusage(resource.RUSAGE_CHILDREN)
  process = context.Process(target=_run, args=(function, sender))
  process.start()
  sender.close()
  peak, done = [0], threading.Event()
  watcher = threading.Thread(target=_watch, args=(process.pid, peak, done))
  watcher.start()
  seconds, problem = None, None
  with contextlib.suppress(EOFError):
    seconds, problem = receiver.recv()
  process.join()
  done.set()
  watcher.join()
  if problem or seconds is None:
    raise UserError(problem or f'the process that measures died with exit code {process.exitcode}')
  after = resource.getrusage(resource.RUSAGE_CHILDREN)
  cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
  return Cost(seconds, cpu, peak[0])


def _run(function: Callable[[], None], sender) -> None:
  started = time.perf_counter()
  try:
    function()
    sender.send((time.perf_counter() - started, ''))
  except UserError as error:
    sender.send((None, str(error)))
  except Exception:
    sender.send((None, traceback.format_exc()))


def _watch(pid: int, peak: list[int], done: threading.Event) -> None:
  while not done.wait(_POLL_SECONDS):
    peak[0] = max(peak[0], own_memory(pid))


def own_memory(pid: int) -> int:
  """Returns the bytes of anonymous memory of a process and its descendants; 0 if it does not exist."""
  try:
    status = pathlib.Path(f'/proc/{pid}/status').read_text(encoding='ascii', errors='replace')
    children = [
      int(child)
      for task in os.listdir(f'/proc/{pid}/task')
      for child in pathlib.Path(f'/proc/{pid}/task/{task}/children').read_text(encoding='ascii').split()
    ]
  except OSError:
    return 0
  own = sum(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith('RssAnon:'))
  return own + sum(map(own_memory, children))
