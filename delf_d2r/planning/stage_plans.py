"""From the rates of a stage to what it will take, and what makes it fit a memory."""

import dataclasses
import math
from collections.abc import Iterable

from delf_d2r.index.builder import DEFAULT_MEMORY_BUDGET
from delf_d2r.planning.rates import Rates
from delf_d2r.planning.stage_rate import Rate
from delf_d2r.protos import codebook_pb2
from delf_d2r.sharding.layout import MOST_SHARDS
from delf_d2r.stages.train_codebook import most_descriptors

# What a process that builds or searches holds beside the index.
BASE_MEMORY = 300e6
# The parts of the sample and their concatenation lie beside each other for a while, later the sample and what
# is left of it when some is held out.
_TRAINING_COPIES = 2
# Names in a list and in a set, while an index is built.
_NAME_BYTES = 250
_LEAST_SORTING = 100e6  # with less an index is built from many small parts
_LEAST_SHARD = 100e6  # of less a searcher holds more for itself than of the index


@dataclasses.dataclass(frozen=True)
class StagePlan:
  """What a stage will take.

  Attributes:
    stage: its name.
    seconds, cpu_seconds: wall time, and time of all cores.
    disk: bytes that it leaves.
    memory: bytes at most.
    cost: of the machine for so long; None without a price.
  """

  stage: str
  seconds: float
  cpu_seconds: float
  disk: float
  memory: float
  cost: float | None = None


def fitting_workers(pools: Iterable[Rate], memory: float | None) -> int:
  """The most processes with which each of some stages fits, no more than were measured and at least one."""

  def fitting(rate: Rate) -> int:
    if memory is None or rate.memory(1) <= memory:
      return rate.workers
    return max(1, int(memory / (rate.memory(1) / rate.workers)))

  return min(map(fitting, pools))


def of_pool(stage: str, rate: Rate, images: int, *, workers: int) -> StagePlan:
  """A stage whose processes share out the images."""
  memory = rate.memory(1) * workers / rate.workers
  seconds = rate.wall(images, workers=workers)
  return StagePlan(stage, seconds, rate.cpu_seconds(images), rate.disk(images), memory)


def of_index(rate: Rate, images: int, memory: float | None) -> tuple[StagePlan, float | None]:
  """build_index, and the bytes that it has for sorting where the default is too much."""
  base = rate.memory.fixed + _NAME_BYTES * images
  sorting, fitting = min(rate.memory.each * min(images, rate.memory_bound), DEFAULT_MEMORY_BUDGET), None
  if memory is not None and base + sorting > memory and memory - base >= _LEAST_SORTING:
    sorting = fitting = memory - base
  found = StagePlan('index', rate.wall(images), rate.cpu_seconds(images), rate.disk(images), base + sorting)
  return found, fitting


def of_codebook(
  options: codebook_pb2.CodebookConfig, rates: Rates, images: int, memory: float | None
) -> tuple[StagePlan, int | None]:
  """train_codebook, and the descriptors that it trains on where those of the config are too many."""
  bytes_of_words = 4.0 * options.num_words * rates.dimensions
  if rates.training is None:
    return StagePlan('codebook', 0.0, 0.0, bytes_of_words, BASE_MEMORY), None
  available = rates.features * images
  descriptors, fitting = min(most_descriptors(options) or available, available), None
  each = 4 * rates.dimensions * _TRAINING_COPIES
  if memory is not None and BASE_MEMORY + descriptors * each > memory:
    fewer = int((memory - BASE_MEMORY) / each)
    # Fewer than ten descriptors a word make a poor codebook; that is for the user to say.
    if fewer >= 10 * options.num_words:
      descriptors = fitting = fewer
  cost = rates.training.total(
    images=images, descriptors=descriptors, words=options.num_words, iterations=options.iterations
  )
  memory_needed = BASE_MEMORY + descriptors * each
  return StagePlan('codebook', cost.seconds, cost.cpu_seconds, bytes_of_words, memory_needed), fitting


def least_to_search(index_bytes: float, images: int) -> float:
  """The least memory of a machine that searches an index or a shard of it."""
  smallest = max(_LEAST_SHARD, index_bytes / min(MOST_SHARDS, images))
  return BASE_MEMORY + min(index_bytes, smallest)


def num_shards(index_bytes: float, memory: float) -> int:
  """Shards of an index that each fit a machine of so much memory, which is at least `least_to_search`."""
  return max(1, math.ceil(index_bytes / (memory - BASE_MEMORY)))
