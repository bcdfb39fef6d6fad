"""A stage measured at two sizes: what it takes for any."""

import dataclasses
import pathlib
from collections.abc import Callable

from absl import logging

from delf_d2r.planning.costs import Cost, LinearFit


@dataclasses.dataclass(frozen=True)
class Rate:
  """What a stage takes for a number of images.

  Attributes:
    seconds, cpu_seconds: of the whole stage.
    disk: bytes of its artefact.
    memory: bytes; grows up to `memory_bound` images.
    memory_bound: images of one segment of the index, or 1 for a stage whose queues are bounded.
    workers: processes that it was measured with; 1 for a stage that has no others.
    cores: that it can keep busy, with so many processes on this machine.
    growth: of the time of the larger run the share that grew with the images, [0, 1]; the rest was start-up,
      or noise hid the growth.
  """

  seconds: LinearFit
  cpu_seconds: LinearFit
  disk: LinearFit
  memory: LinearFit
  memory_bound: float = 1
  workers: int = 1
  cores: int = 1
  growth: float = 1.0

  def wall(self, images: float, *, workers: int | None = None) -> float:
    """Wall time, with fewer processes than were measured if given.

    Never less than the CPU time takes on all of its cores: a sample that spends its time on start-up shows
    no growth of the wall time.
    """
    cores = min(workers or self.cores, self.cores)
    return max(self.seconds(images) * self.cores / cores, self.cpu_seconds(images) / cores)


def rate_of(
  few: tuple[float, Cost, int],
  many: tuple[float, Cost, int],
  *,
  memory_bound: float = 1,
  workers: int = 1,
  cores: int = 1,
) -> Rate:
  """The rates through two runs (images, cost, bytes)."""

  def through(value, line=LinearFit.fit) -> LinearFit:
    return line((few[0], value(few)), (many[0], value(many)))

  def growth(value) -> float:
    return through(value).each * many[0] / value(many)

  def seconds(point) -> float:
    return point[1].seconds

  def cpu_seconds(point) -> float:
    return point[1].cpu_seconds

  grows = memory_bound > 1
  memory = (
    through(lambda point: point[1].memory) if grows else LinearFit(max(few[1].memory, many[1].memory), 0.0)
  )
  return Rate(
    through(seconds),
    through(cpu_seconds, LinearFit.nondecreasing),
    through(lambda point: point[2]),
    memory,
    memory_bound,
    workers,
    cores,
    min(growth(seconds), growth(cpu_seconds)),
  )


def bytes_of(path: pathlib.Path) -> int:
  """Of all files below a folder."""
  return sum(file.stat().st_size for file in path.rglob('*') if file.is_file())


class SilencedStage:
  """A stage without its messages; what it returns stays in its process."""

  def __init__(self, run: Callable):
    self._run = run

  def __call__(self) -> None:
    logging.set_verbosity(logging.ERROR)
    self._run()
