"""A stage measured at two sizes: what it takes for any."""

import dataclasses
import pathlib
from collections.abc import Callable

from absl import logging

from delf_d2r.planning.costs import Cost, Line


@dataclasses.dataclass(frozen=True)
class Rate:
  """What a stage takes for a number of images.

  Attributes:
    seconds, cpu_seconds: of the whole stage.
    disk: bytes of its artefact.
    memory: bytes; grows up to `memory_bound` images.
    memory_bound: images of one segment of the index, or 1 for a stage whose queues are bounded.
    workers: processes that it was measured with; 1 for a stage that has no others.
  """

  seconds: Line
  cpu_seconds: Line
  disk: Line
  memory: Line
  memory_bound: float = 1
  workers: int = 1


def rate_of(
  few: tuple[float, Cost, int], many: tuple[float, Cost, int], *, memory_bound: float = 1, workers: int = 1
) -> Rate:
  """The rates through two runs (images, cost, bytes)."""

  def through(value) -> Line:
    return Line.through((few[0], value(few)), (many[0], value(many)))

  grows = memory_bound > 1
  memory = through(lambda point: point[1].memory) if grows else Line(max(few[1].memory, many[1].memory), 0.0)
  return Rate(
    through(lambda point: point[1].seconds),
    through(lambda point: point[1].cpu_seconds),
    through(lambda point: point[2]),
    memory,
    memory_bound,
    workers,
  )


def bytes_of(path: pathlib.Path) -> int:
  """Of all files below a folder."""
  return sum(file.stat().st_size for file in path.rglob('*') if file.is_file())


class Quiet:
  """A stage without its messages; what it returns stays in its process."""

  def __init__(self, run: Callable):
    self._run = run

  def __call__(self) -> None:
    logging.set_verbosity(logging.ERROR)
    self._run()
