"""From rates to a plan: bytes, memory, time and cost of every stage, and the options that fit a memory."""

import dataclasses
import json
import math

from delf_d2r import text_table
from delf_d2r.index.builder import DEFAULT_MEMORY_BUDGET
from delf_d2r.planning.rates import Rates
from delf_d2r.planning.stage_rate import Rate
from delf_d2r.protos import experiment_pb2
from delf_d2r.stages.train_codebook import most_descriptors

# The parts of the sample and their concatenation lie beside each other for a while, later the sample and what
# is left of it when some is held out.
_TRAINING_COPIES = 2
# Names in a list and in a set, while an index is built.
_NAME_BYTES = 250
# What a process that builds or searches holds beside the index.
_BASE_MEMORY = 300e6
_LEAST_SORTING = 100e6  # with less an index is built from many small parts


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


@dataclasses.dataclass(frozen=True)
class RunPlan:
  """A whole run.

  Attributes:
    images: number of photos.
    stages: in the order of the data flow.
    index_bytes: of the postings, which searches want in memory.
    query_seconds: of CPU for one query, features and words aside.
    options: what to give to the stages so that they fit the memory, by stage.
    remarks: what does not fit, and what was assumed.
  """

  images: int
  stages: tuple[StagePlan, ...]
  index_bytes: float
  query_seconds: float
  options: dict[str, str]
  remarks: tuple[str, ...]

  @property
  def total(self) -> StagePlan:
    """All stages, one after the other."""
    costs = [stage.cost for stage in self.stages if stage.cost is not None]
    return StagePlan(
      'all',
      sum(stage.seconds for stage in self.stages),
      sum(stage.cpu_seconds for stage in self.stages),
      sum(stage.disk for stage in self.stages),
      max(stage.memory for stage in self.stages),
      sum(costs) if costs else None,
    )


def make_plan(
  config: experiment_pb2.ExperimentConfig,
  rates: Rates,
  *,
  images: int,
  memory: float | None = None,
  price_per_hour: float | None = None,
) -> RunPlan:
  """Plans a run.

  Args:
    config: of the run.
    rates: as measured with it.
    images: number of photos.
    memory: bytes of the machine; None: as much as it takes.
    price_per_hour: of the machine.
  """
  options: dict[str, str] = {}
  remarks: list[str] = []
  stages = []
  for name in ('detection', 'extraction', 'codebook', 'aggregation', 'index'):
    if name == 'codebook':
      stage = _plan_codebook(config, rates, images, memory, options)
    elif name == 'index':
      stage = _plan_index(rates.stages[name], images, memory, options)
    elif name in rates.stages:
      stage = _plan_stage(name, rates.stages[name], images, memory, options)
    else:
      continue
    if memory is not None and stage.memory > memory:
      remarks.append(f'{name} needs {_gigabytes(stage.memory)}, more than {_gigabytes(memory)}.')
    cost = None if price_per_hour is None else stage.seconds / 3600 * price_per_hour
    stages.append(dataclasses.replace(stage, cost=cost))
  index_bytes = stages[-1].disk
  if memory is not None:
    shards = max(1, math.ceil(index_bytes / max(memory - _BASE_MEMORY, 1)))
    if shards > 1:
      options['search'] = f'd2r split_index --shards={shards}, one machine each'
  if 'extraction' not in rates.stages:
    remarks.append('Photos were not measured: give --sample, a folder of some.')
  return RunPlan(images, tuple(stages), index_bytes, rates.search(images), options, tuple(remarks))


def _plan_stage(
  name: str, rate: Rate, images: int, memory: float | None, options: dict[str, str]
) -> StagePlan:
  seconds, needed = rate.seconds(images), rate.memory(1)
  too_much = memory is not None and needed > memory
  if too_much and rate.workers > 1:
    workers = max(1, int(memory / (needed / rate.workers)))
    options[name] = f'--workers={workers}'
    seconds *= rate.workers / workers
    needed *= workers / rate.workers
  return StagePlan(name, seconds, rate.cpu_seconds(images), rate.disk(images), needed)


def _plan_index(rate: Rate, images: int, memory: float | None, options: dict[str, str]) -> StagePlan:
  base = rate.memory.fixed + _NAME_BYTES * images
  sorting = min(rate.memory.each * min(images, rate.memory_bound), DEFAULT_MEMORY_BUDGET)
  if memory is not None and base + sorting > memory and memory - base >= _LEAST_SORTING:
    sorting = memory - base
    options['index'] = f'd2r build_index --sorting_gb={math.floor(sorting / 1e7) / 100:g}'
  return StagePlan('index', rate.seconds(images), rate.cpu_seconds(images), rate.disk(images), base + sorting)


def _plan_codebook(
  config: experiment_pb2.ExperimentConfig,
  rates: Rates,
  images: int,
  memory: float | None,
  options: dict[str, str],
) -> StagePlan:
  codebook = config.codebook
  bytes_of_words = 4.0 * codebook.num_words * rates.dimensions
  if rates.training is None:
    return StagePlan('codebook', 0.0, 0.0, bytes_of_words, _BASE_MEMORY)
  available = rates.features * images
  descriptors = min(most_descriptors(codebook) or available, available)
  each = 4 * rates.dimensions * _TRAINING_COPIES
  if memory is not None and _BASE_MEMORY + descriptors * each > memory:
    fitting = int((memory - _BASE_MEMORY) / each)
    # Fewer than ten descriptors a word make a poor codebook; that is for the user to say.
    if fitting >= 10 * codebook.num_words:
      descriptors = fitting
      options['codebook'] = f"--override='codebook.max_descriptors: {fitting}'"
  cost = rates.training.total(
    images=images, descriptors=descriptors, words=codebook.num_words, iterations=codebook.iterations
  )
  memory_needed = _BASE_MEMORY + descriptors * each
  return StagePlan('codebook', cost.seconds, cost.cpu_seconds, bytes_of_words, memory_needed)


def to_json(plan: RunPlan) -> str:
  """The plan as JSON; bytes and seconds."""
  document = dataclasses.asdict(plan) | {'total': dataclasses.asdict(plan.total)}
  return json.dumps(document, indent=1)


def to_text(plan: RunPlan) -> str:
  """The plan as a table."""
  with_cost = plan.total.cost is not None
  rows = [('stage', 'time', 'CPU time', 'disk', 'memory', *(['cost'] if with_cost else []))]
  for stage in (*plan.stages, plan.total):
    times = (_duration(stage.seconds), _duration(stage.cpu_seconds))
    cost = [f'{stage.cost:,.2f}'] if with_cost else []
    rows.append((stage.stage, *times, _gigabytes(stage.disk), _gigabytes(stage.memory), *cost))
  lines = [
    f'{plan.images:,} images, on this machine:',
    '',
    text_table.aligned(rows),
    '',
    f'index: {_gigabytes(plan.index_bytes)}; a query takes {1e3 * plan.query_seconds:.2f} ms of CPU in it',
  ]
  if plan.options:
    lines += ['', 'To fit the memory:', *(f'  {stage}: {option}' for stage, option in plan.options.items())]
  return '\n'.join([*lines, *plan.remarks])


def _gigabytes(count: float) -> str:
  return f'{count / 1e9:,.2f} GB' if count >= 1e7 else f'{count / 1e6:,.2f} MB'


def _duration(seconds: float) -> str:
  if seconds < 60:
    return f'{seconds:.1f} s'
  if seconds < 7200:
    return f'{seconds / 60:.1f} min'
  return f'{seconds / 3600:.1f} h'
