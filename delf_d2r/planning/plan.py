"""A plan from rates: bytes, memory, time and cost of every stage, and the commands that fit a memory."""

import contextlib
import dataclasses
import json
import math
import pathlib
import shlex
import tempfile
from collections.abc import Iterable, Iterator, Sequence

from delf_d2r import text_table
from delf_d2r.data import files, temporary_files
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.engine.fused_search import is_fused, secondary_config
from delf_d2r.errors import UserError
from delf_d2r.extractors import registry
from delf_d2r.extractors.registry import DescriptorKind
from delf_d2r.planning import stage_plans
from delf_d2r.planning.rates import Rates, measure_rates
from delf_d2r.planning.stage_plans import StagePlan
from delf_d2r.protos import experiment_pb2
from delf_d2r.protos.aggregation_pb2 import AggregationConfig
from delf_d2r.protos.regions_pb2 import RegionsConfig

# A sample of fewer photos says too little.
LEAST_PHOTOS = 8
_POOLS = ('detection', 'extraction', 'aggregation')
# The least share of a sample's time that must grow with its images. With a smaller share, noise of a tenth of
# the time is half of the growth.
_LEAST_GROWTH = 0.2


@dataclasses.dataclass(frozen=True)
class RunPlan:
  """The plan of a whole run.

  Attributes:
    images: number of photos.
    stages: in the order of the data flow.
    index_bytes: bytes of the postings, which searches should have in memory.
    query_seconds: CPU seconds of one query, without extraction and assignment to visual words.
    verification_seconds: CPU seconds of re-ranking one query; None if it is not planned.
    unplanned: other parts of the run, which take time too.
    remarks: stages that do not fit the memory, and doubtful measurements.
    memory: bytes of the machine; None: as much as is needed.
    commands: shell commands with which the run and its index fit the memory; empty if they do not.
  """

  images: int
  stages: tuple[StagePlan, ...]
  index_bytes: float
  query_seconds: float
  verification_seconds: float | None = None
  unplanned: tuple[str, ...] = ()
  remarks: tuple[str, ...] = ()
  memory: float | None = None
  commands: tuple[str, ...] = ()

  @property
  def total(self) -> StagePlan:
    """The sum of all stages, run one after the other."""
    costs = [stage.cost for stage in self.stages if stage.cost is not None]
    return StagePlan(
      'all',
      sum(stage.seconds for stage in self.stages),
      sum(stage.cpu_seconds for stage in self.stages),
      sum(stage.disk for stage in self.stages),
      max(stage.memory for stage in self.stages),
      sum(costs) if costs else None,
    )


def measure_and_plan(
  config: experiment_pb2.ExperimentConfig,
  *,
  images: int,
  sample: str | pathlib.Path | None = None,
  sample_photos: int = 64,
  features: int = 1000,
  boxes: int | None = None,
  dimensions: int = 128,
  workers: int | None = None,
  work: str | pathlib.Path | None = None,
  memory: float | None = None,
  price_per_hour: float | None = None,
  config_flags: Sequence[str] = (),
) -> RunPlan:
  """Measures the rates of this machine in a temporary folder, and plans a run by them.

  Args:
    config: of the run, with all stages.
    images: number of photos of the run.
    sample: the folder of photos like those of the run; None measures on synthetic features.
    sample_photos: number of photos of the sample to measure on.
    features: number of synthetic features of a whole image.
    boxes: number of boxes of each photo; None: those of the config.
    dimensions: D of synthetic features.
    workers: processes of the stages that work in parallel; None: one for each core.
    work: the folder in which the temporary folder is made, itself made if missing; None: that of the system.
    memory: see `make_plan`.
    price_per_hour: see `make_plan`.
    config_flags: see `make_plan`.

  Raises:
    UserError: there are too few photos, a folder cannot be written, or a stage cannot work with its input.
  """
  photos = None
  if sample is not None:
    every = ImageList.from_folder(sample)
    if len(every) < LEAST_PHOTOS:
      raise UserError(f'{sample}: expected at least {LEAST_PHOTOS} photos, found {len(every)}')
    step = max(1, len(every) // sample_photos)
    photos = ImageList(every.root, every.names[::step][:sample_photos])
  parent = pathlib.Path(work or tempfile.gettempdir())
  with contextlib.ExitStack() as stack:
    with files.user_errors('cannot write', parent):
      parent.mkdir(parents=True, exist_ok=True)
      folder = stack.enter_context(temporary_files.temporary_folder(parent, 'd2r-plan-'))
    measured = measure_rates(
      config,
      folder,
      photos=photos,
      features=features,
      boxes=boxes,
      dimensions=dimensions,
      workers=workers,
    )
    if is_fused(config):
      other = secondary_config(config)
      kind = registry.record(other.extraction.extractor).descriptors
      measured = dataclasses.replace(
        measured,
        other=measure_rates(
          other,
          folder / 'other',
          photos=photos,
          features=1 if kind is DescriptorKind.GLOBAL else features,
          boxes=None if other.aggregation.regions == AggregationConfig.WHOLE_IMAGE else boxes,
          dimensions=dimensions,
          workers=workers,
        ),
      )
  return make_plan(
    config, measured, images=images, memory=memory, price_per_hour=price_per_hour, config_flags=config_flags
  )


def make_plan(
  config: experiment_pb2.ExperimentConfig,
  rates: Rates,
  *,
  images: int,
  memory: float | None = None,
  price_per_hour: float | None = None,
  config_flags: Sequence[str] = (),
) -> RunPlan:
  """Plans a run.

  Args:
    config: of the run.
    rates: measured with this config.
    images: number of photos.
    memory: bytes of the machine; None: as much as is needed.
    price_per_hour: of the machine; None: no costs are computed.
    config_flags: the flags that chose the config, for the commands.
  """
  searches = [(config, rates, '')]
  if rates.other is not None:
    searches.append((secondary_config(config), rates.other, 'other '))
  pools = [rate for _, measured, _ in searches for name, rate in measured.stages.items() if name in _POOLS]
  workers = stage_plans.fitting_workers(pools, memory)
  planned = [
    _plan_search(own, measured, images=images, memory=memory, workers=workers, prefix=prefix)
    for own, measured, prefix in searches
  ]
  stages = tuple(stage for search in planned for stage in search.stages)
  if price_per_hour is not None:
    stages = tuple(dataclasses.replace(stage, cost=stage.seconds / 3600 * price_per_hour) for stage in stages)
  index_bytes = sum(search.stages[-1].disk for search in planned)
  sorting, descriptors = planned[0].sorting, planned[0].descriptors
  remarks, commands = [doubt for _, measured, prefix in searches for doubt in _doubts(measured, prefix)], []
  if memory is not None:
    more, shards = _fitting(stages, images, memory, index_bytes=index_bytes)
    if shards > 1 and len(searches) > 1:
      more.append(
        f'The indexes of both searches have {_gigabytes(index_bytes)} together. A run with fusion cannot be'
        ' split over machines.'
      )
      shards = 1
    remarks += more
    if shards:
      commands.append(
        run_command(config_flags, config.regions, workers=workers, sorting=sorting, descriptors=descriptors)
      )
    if shards > 1:
      commands.append(split_command(shards))
  verification = rates.verification
  if verification is not None:
    verification *= min(config.verification.num_images, images)
  return RunPlan(
    images,
    stages,
    index_bytes,
    sum(measured.search(images) for _, measured, _ in searches),
    verification,
    tuple(_unplanned(config, rates)),
    tuple(remarks),
    memory,
    tuple(commands),
  )


@dataclasses.dataclass(frozen=True)
class _SearchPlan:
  """The plan of the stages of one search, up to its index.

  Attributes:
    stages: in the order of the data flow.
    descriptors: most descriptors to train the codebook on; None: those of the config.
    sorting: bytes for sorting the index; None: the default.
  """

  stages: tuple[StagePlan, ...]
  descriptors: int | None
  sorting: float | None


def _plan_search(
  config: experiment_pb2.ExperimentConfig,
  rates: Rates,
  *,
  images: int,
  memory: float | None,
  workers: int,
  prefix: str,
) -> _SearchPlan:
  """Returns the plan of the stages of one search; their names begin with `prefix`."""
  *before, aggregation = (
    stage_plans.of_pool(name, rates.stages[name], images, workers=workers)
    for name in _POOLS
    if name in rates.stages
  )
  codebook, descriptors = stage_plans.of_codebook(config.codebook, rates, images, memory)
  index, sorting = stage_plans.of_index(rates.stages['index'], images, memory)
  stages = (*before, codebook, aggregation, index)
  named = tuple(dataclasses.replace(stage, stage=f'{prefix}{stage.stage}') for stage in stages)
  return _SearchPlan(named, descriptors, sorting)


def _fitting(
  stages: Sequence[StagePlan], images: int, memory: float, *, index_bytes: float
) -> tuple[list[str], int]:
  """Returns remarks on stages that do not fit, and the shards with which the index fits a memory.

  The number of shards is 0 if the index cannot even be built.
  """
  too_large = [stage for stage in stages if stage.memory > memory]
  available = _gigabytes(memory)
  remarks = [f'{stage.stage} needs {_gigabytes(stage.memory)}, more than {available}.' for stage in too_large]
  least = stage_plans.least_to_search(index_bytes, images)
  if memory < least:
    own = _gigabytes(stage_plans.BASE_MEMORY)
    remarks.append(
      f'{available} are too little for a searcher: it needs {own} for itself, and with the smallest shard'
      f' {_gigabytes(least)}.'
    )
  if too_large:
    return remarks, 0
  return remarks, stage_plans.num_shards(index_bytes, memory) if memory >= least else 1


def _doubts(rates: Rates, prefix: str) -> Iterator[str]:
  for name, rate in rates.stages.items():
    if rate.growth < _LEAST_GROWTH:
      of_photos = name in ('detection', 'extraction')
      yield (
        f'{prefix}{name}: {1 - rate.growth:.0%} of the time of the sample was start-up or noise. The sample'
        ' is too small to extrapolate from, and the times may be far off.'
        f' {"Give more photos: --sample, --sample_photos." if of_photos else "Measure on a quieter machine."}'
      )


def _unplanned(config: experiment_pb2.ExperimentConfig, rates: Rates) -> Iterator[str]:
  if 'extraction' not in rates.stages:
    yield 'boxes and extraction (give --sample, a folder of some photos)'
  elif 'detection' not in rates.stages and config.regions.source != RegionsConfig.NONE:
    yield 'boxes'
  yield 'features of queries'
  if config.HasField('fusion') and rates.other is None:
    yield 'fusion and all stages of its other search'
  if config.verification.HasField('extraction'):
    yield 're-ranking and the extraction for it'
  elif config.HasField('verification') and rates.verification is None:
    yield 're-ranking'
  if config.HasField('expansion'):
    yield 'query expansion'
  yield from ('evaluation', 'report')


def flag(name: str, value: str) -> str:
  """Returns `--name=value`, quoted for a shell."""
  return f'--{name}={shlex.quote(value)}'


def run_command(
  config_flags: Iterable[str],
  regions: RegionsConfig,
  *,
  workers: int,
  sorting: float | None = None,
  descriptors: int | None = None,
) -> str:
  """Returns the command of the whole run, with the placeholders PHOTOS, BOXES and OUT.

  Args:
    config_flags: flags that choose the config.
    regions: its part `regions`.
    workers: number of processes.
    sorting: bytes for sorting the index; None: the default.
    descriptors: most descriptors to train the codebook on; None: the number in the config.
  """
  parts = ['d2r run_experiment', *config_flags]
  if descriptors is not None:
    parts.append(flag('override', f'codebook.max_descriptors: {descriptors}'))
  parts.append('--images=PHOTOS')
  if _lacks_boxes(regions):
    parts.append('--boxes_file=BOXES')
  parts += ['--output=OUT', f'--workers={workers}']
  if sorting is not None:
    parts.append(f'--sorting_gb={math.floor(sorting / 1e7) / 100:g}')
  return ' '.join(parts)


def _lacks_boxes(regions: RegionsConfig) -> bool:
  """Returns whether boxes come from a file that the config does not name."""
  path = {RegionsConfig.FILE: regions.file_path, RegionsConfig.RANDOM: regions.random.like}
  return not path.get(regions.source, 'none is needed')


def split_command(shards: int) -> str:
  """Returns the command that splits the index of `run_command`."""
  return f'd2r split_index --index=OUT/index --output=SPLIT --shards={shards}   # a machine for each'


def to_json(plan: RunPlan) -> str:
  """Returns the plan as JSON, in bytes and seconds."""
  document = dataclasses.asdict(plan) | {'total': dataclasses.asdict(plan.total)}
  return json.dumps(document, indent=1)


def to_text(plan: RunPlan) -> str:
  """Returns the plan for a terminal: a table, remarks and commands."""
  with_cost = plan.total.cost is not None
  rows = [('stage', 'time', 'CPU time', 'disk', 'memory', *(['cost'] if with_cost else []))]
  for stage in (*plan.stages, plan.total):
    times = (_duration(stage.seconds), _duration(stage.cpu_seconds))
    cost = [f'{stage.cost:,.2f}'] if with_cost else []
    rows.append((stage.stage, *times, _gigabytes(stage.disk), _gigabytes(stage.memory), *cost))
  query = f'a query takes {1e3 * plan.query_seconds:.2f} ms of CPU in it'
  if plan.verification_seconds is not None:
    query += f', re-ranking it {_duration(plan.verification_seconds)}'
  lines = [
    f'{plan.images:,} images on this machine:',
    '',
    text_table.aligned(rows),
    '',
    f'index: {_gigabytes(plan.index_bytes)}; {query}',
    f'Not planned: {", ".join(plan.unplanned)}.',
    *plan.remarks,
  ]
  if plan.commands and plan.memory is not None:
    lines += ['', f'Within {_gigabytes(plan.memory)}:', *(f'  {command}' for command in plan.commands)]
  return '\n'.join(lines)


def _gigabytes(count: float) -> str:
  return f'{count / 1e9:,.2f} GB' if count >= 1e7 else f'{count / 1e6:,.2f} MB'


def _duration(seconds: float) -> str:
  if seconds < 60:
    return f'{seconds:.1f} s'
  if seconds < 7200:
    return f'{seconds / 60:.1f} min'
  return f'{seconds / 3600:.1f} h'
