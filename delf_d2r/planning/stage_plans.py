"""The plan of a stage from its rates, and the settings with which it fits a memory."""

import dataclasses
import math
from collections.abc import Iterable

from delf_d2r.index.builder import DEFAULT_MEMORY_BUDGET
from delf_d2r.planning.rates import Rates
from delf_d2r.planning.stage_rate import Rate
from delf_d2r.protos import codebook_pb2
from delf_d2r.sharding.layout import MOST_SHARDS
from delf_d2r.stages.train_codebook import most_descriptors

# Bytes that a process that builds or searches holds besides the index.
BASE_MEMORY = 300e6
# The parts of the training sample and their concatenation are in memory at the same time; later the sample
# and the rest of it after some is held out.
_TRAINING_COPIES = 2
# Names are in a list and in a set while an index is built.
_NAME_BYTES = 250
_LEAST_SORTING = 100e6  # With less, an index is built from many small parts.
_LEAST_SHARD = 100e6  # With less, a searcher holds more for itself than of the index.


@dataclasses.dataclass(frozen=True)
class StagePlan:
  """The plan of a stage.

  Attributes:
    stage: its name.
    seconds, cpu_seconds: wall time, and CPU time of all cores.
    disk: bytes of its artefact.
    memory: peak in bytes.
    cost: price of the machine for the wall time; None without a price.
  """

  stage: str
  seconds: float
  cpu_seconds: float
  disk: float
  memory: float
  cost: float | None = None


def fitting_workers(pools: Iterable[Rate], memory: float | None) -> int:
  """Returns the most processes with which all stages fit: at least one, and no more than were measured."""

  def fitting(rate: Rate) -> int:
    if memory is None or rate.memory(1) <= memory:
      return rate.workers
    return max(1, int(memory / (rate.memory(1) / rate.workers)))

  return min(map(fitting, pools))


def of_pool(stage: str, rate: Rate, images: int, *, workers: int) -> StagePlan:
  """Returns the plan of a stage whose processes share the images."""
  memory = rate.memory(1) * workers / rate.workers
  seconds = rate.wall(images, workers=workers)
  return StagePlan(stage, seconds, rate.cpu_seconds(images), rate.disk(images), memory)


def of_index(rate: Rate, images: int, memory: float | None) -> tuple[StagePlan, float | None]:
  """Returns the plan of build_index, and the bytes for sorting if the default is too much (else None)."""
  base = rate.memory.fixed + _NAME_BYTES * images
  sorting, fitting = min(rate.memory.each * min(images, rate.memory_bound), DEFAULT_MEMORY_BUDGET), None
  if memory is not None and base + sorting > memory and memory - base >= _LEAST_SORTING:
    sorting = fitting = memory - base
  found = StagePlan('index', rate.wall(images), rate.cpu_seconds(images), rate.disk(images), base + sorting)
  return found, fitting


def of_codebook(
  options: codebook_pb2.CodebookConfig, rates: Rates, images: int, memory: float | None
) -> tuple[StagePlan, int | None]:
  """Returns the plan of train_codebook, and its descriptors if the config has too many (else None)."""
  bytes_of_words = 4.0 * options.num_words * rates.dimensions
  if rates.training is None:
    return StagePlan('codebook', 0.0, 0.0, bytes_of_words, BASE_MEMORY), None
  available = rates.features * images
  descriptors, fitting = min(most_descriptors(options) or available, available), None
  each = 4 * rates.dimensions * _TRAINING_COPIES
  if memory is not None and BASE_MEMORY + descriptors * each > memory:
    fewer = int((memory - BASE_MEMORY) / each)
    # Fewer than ten descriptors a word make a poor codebook; only the user can decide to train one.
    if fewer >= 10 * options.num_words:
      descriptors = fitting = fewer
  cost = rates.training.total(
    images=images, descriptors=descriptors, words=options.num_words, iterations=options.iterations
  )
  memory_needed = BASE_MEMORY + descriptors * each
  return StagePlan('codebook', cost.seconds, cost.cpu_seconds, bytes_of_words, memory_needed), fitting


def least_to_search(index_bytes: float, images: int) -> float:
  """Returns the least memory of a machine that searches an index or a shard of it, in bytes."""
  smallest = max(_LEAST_SHARD, index_bytes / min(MOST_SHARDS, images))
  return BASE_MEMORY + min(index_bytes, smallest)


def num_shards(index_bytes: float, memory: float) -> int:
  """Returns the number of shards of an index that each fit a memory of at least `least_to_search`."""
  return max(1, math.ceil(index_bytes / (memory - BASE_MEMORY)))
