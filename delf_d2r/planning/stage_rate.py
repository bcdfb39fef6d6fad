"""The rate of a stage: its cost for any number of images, from measurements at two sizes."""

import dataclasses
import pathlib
from collections.abc import Callable

from absl import logging

from delf_d2r.planning.costs import Cost, LinearFit


@dataclasses.dataclass(frozen=True)
class Rate:
  """The cost of a stage by the number of images.

  Attributes:
    seconds, cpu_seconds: of the whole stage.
    disk: bytes of its artefact.
    memory: bytes; grows up to `memory_bound` images.
    memory_bound: images of one segment of the index, or 1 for a stage with bounded queues.
    workers: number of processes that it was measured with; 1 for a stage in one process.
    cores: number of cores that it can use with these processes on this machine.
    growth: share of the larger run's time that grew with the images, in [0, 1]; the rest was start-up, or
      noise hid the growth.
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
    """Returns the wall time in seconds.

    It is never less than the CPU time divided by the cores, since the wall time of a sample that consists
    mostly of start-up shows no growth.

    Args:
      images: number of images.
      workers: number of processes, if fewer than were measured.
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
  """Returns the rate from two runs, each (images, cost, bytes of the artefact)."""

  def fit(value, line=LinearFit.fit) -> LinearFit:
    return line((few[0], value(few)), (many[0], value(many)))

  def growth(value) -> float:
    return fit(value).each * many[0] / value(many)

  def seconds(point) -> float:
    return point[1].seconds

  def cpu_seconds(point) -> float:
    return point[1].cpu_seconds

  grows = memory_bound > 1
  memory = fit(lambda point: point[1].memory) if grows else LinearFit(max(few[1].memory, many[1].memory), 0.0)
  return Rate(
    fit(seconds),
    fit(cpu_seconds, LinearFit.nondecreasing),
    fit(lambda point: point[2]),
    memory,
    memory_bound,
    workers,
    cores,
    min(growth(seconds), growth(cpu_seconds)),
  )


def bytes_of(path: pathlib.Path) -> int:
  """Returns the bytes of all files below a folder."""
  return sum(file.stat().st_size for file in path.rglob('*') if file.is_file())


class SilencedStage:
  """A picklable stage that logs only errors and returns nothing."""

  def __init__(self, run: Callable):
    self._run = run

  def __call__(self) -> None:
    logging.set_verbosity(logging.ERROR)
    self._run()
