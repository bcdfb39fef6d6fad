"""Progress with rate and time left, on a terminal and in a log file alike."""

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import tqdm

T = TypeVar('T')

# A bar redrawn ten times a second makes a log file unreadable.
_LOG_SECONDS = 10.0


def track(items: Iterable[T], *, total: int, what: str, unit: str) -> Iterator[T]:
  """Yields the items while a bar on standard error tells how many of `total` are done.

  Args:
    items: what is to do.
    total: how many there are.
    what: what is being done, in front of the bar.
    unit: what is counted.
  """
  yield from _bar(items, total=total, desc=what, unit=f' {unit}')


def bar(*, total: int, what: str, unit: str, done: int = 0) -> tqdm.tqdm:
  """The same bar for work that is no plain loop: a context manager with `update()`.

  `done` were finished by an earlier run.
  """
  return _bar(None, total=total, initial=done, desc=what, unit=f' {unit}')


def callback(what: str) -> Callable[[int, int], None]:
  """A function to call with (done, total) as work goes on; it draws the same bar."""
  bar = None

  def update(done: int, total: int) -> None:
    nonlocal bar
    # A bar of nothing is false.
    bar = _bar(None, total=total, desc=what, unit='') if bar is None else bar
    bar.update(done - bar.n)
    if done == total:
      bar.close()

  return update


def _bar(items, **options) -> tqdm.tqdm:
  interactive = sys.stderr.isatty()
  return tqdm.tqdm(
    items,
    file=sys.stderr,
    dynamic_ncols=interactive,
    mininterval=0.2 if interactive else _LOG_SECONDS,
    **options,
  )
