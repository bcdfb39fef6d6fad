"""Progress with rate and time left, on a terminal and in a log file alike."""

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import tqdm

T = TypeVar('T')

# A bar redrawn ten times a second makes a log file unreadable.
_LOG_SECONDS = 10.0


def track(items: Iterable[T], *, total: int, what: str, unit: str, done: int = 0) -> Iterator[T]:
  """Yields the items while a bar on standard error tells how many are done.

  Args:
    items: what is left to do.
    total: how many there are in all.
    what: what is being done, in front of the bar.
    unit: what is counted.
    done: how many were finished by an earlier run.
  """
  yield from _bar(items, total=total, initial=done, desc=what, unit=f' {unit}')


def callback(what: str) -> Callable[[int, int], None]:
  """A function to call with (done, total) as work goes on; it draws the same bar."""
  bar = None

  def update(done: int, total: int) -> None:
    nonlocal bar
    bar = bar or _bar(None, total=total, desc=what, unit='')
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
