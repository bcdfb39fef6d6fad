"""Progress bars with rate and remaining time, on a terminal and in log files."""

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
  import tqdm

T = TypeVar('T')

# A bar that is redrawn ten times a second makes a log file unreadable.
_LOG_SECONDS = 10.0


def track(items: Iterable[T], *, total: int, what: str, unit: str) -> Iterator[T]:
  """Yields the items while a bar on standard error shows how many of `total` are done.

  Args:
    items: any items.
    total: how many there are.
    what: the text in front of the bar, which says what is being done.
    unit: the name of what is counted.
  """
  yield from _bar(items, total=total, desc=what, unit=f' {unit}')


def bar(*, total: int, what: str, unit: str, done: int = 0) -> 'tqdm.tqdm':
  """Returns the same bar for work that is no plain loop: a context manager with `update()`.

  Args:
    total: how many items there are.
    what: the text in front of the bar.
    unit: the name of what is counted.
    done: how many an earlier run finished.
  """
  return _bar(None, total=total, initial=done, desc=what, unit=f' {unit}')


def callback(what: str) -> Callable[[int, int], None]:
  """Returns a function that draws the same bar when it is called with (done, total)."""
  bar: tqdm.tqdm | None = None

  def update(done: int, total: int) -> None:
    nonlocal bar
    # The truth value of a bar of no items is false.
    bar = _bar(None, total=total, desc=what, unit='') if bar is None else bar
    bar.update(done - bar.n)
    if done == total:
      bar.close()

  return update


def _bar(items, **options) -> 'tqdm.tqdm':
  import tqdm  # Here, since it asks the package index for its own version, which takes 50 ms.

  interactive = sys.stderr.isatty()
  return tqdm.tqdm(
    items,
    file=sys.stderr,
    dynamic_ncols=interactive,
    mininterval=0.2 if interactive else _LOG_SECONDS,
    **options,
  )
