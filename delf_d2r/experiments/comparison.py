"""Several experiments on one data set in one table and on one page.

Experiments with the same extraction config share features and query features, and those with the same
codebook config share a codebook. They therefore differ only in the settings that are being compared.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

import delf_d2r.config as configs
from delf_d2r import text_table
from delf_d2r.data.artefacts import ranking_files
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.evaluation import metrics_files, paired_comparison
from delf_d2r.evaluation.paired_comparison import PairedComparison
from delf_d2r.evaluation.protocol import PROTOCOLS
from delf_d2r.experiments import experiment
from delf_d2r.experiments.sharing import SharedArtefacts
from delf_d2r.protos import experiment_pb2
from delf_d2r.protos.regions_pb2 import RegionsConfig
from delf_d2r.report import experiment_page, make_report, match_views
from delf_d2r.report.paired_page import signed
from delf_d2r.report.views import ExperimentView, MethodView, TableView
from delf_d2r.stages import evaluate_retrieval


@dataclasses.dataclass(frozen=True)
class Row:
  """One experiment in the table.

  Attributes:
    name: of the experiment.
    mean_average_precision: mAP by protocol, as a fraction.
    postings: visual words stored for each index image.
    index_bytes: bytes of the index for each index image, including its share of the K posting lists; with
      fusion those of both indexes.
    describe_ms: median milliseconds of a query from features to aggregated descriptor; with fusion both
      searches together, and so in the next one.
    search_ms: median milliseconds of a query from aggregated descriptor to ranking.
  """

  name: str
  mean_average_precision: dict[str, float]
  postings: float
  index_bytes: float
  describe_ms: float
  search_ms: float


@dataclasses.dataclass(frozen=True)
class Comparison:
  """A row for each experiment, and the gains of the last experiment over the others.

  Attributes:
    rows: in the order of the experiments.
    gains: by the name of each other experiment and by protocol, the last experiment compared with it.
    page: the HTML page, with the queries of the last experiment.
  """

  rows: tuple[Row, ...]
  gains: Mapping[str, Mapping[str, PairedComparison]]
  page: pathlib.Path


def run(
  experiments: Sequence[experiment_pb2.ExperimentConfig],
  dataset: Dataset,
  output: pathlib.Path,
  *,
  ground_truth: str | pathlib.Path,
  boxes_path: str | pathlib.Path | None = None,
  codebooks: Mapping[str, Artefact] | None = None,
  options: experiment.Options | None = None,
) -> Comparison:
  """Runs the experiments one after the other, each in a folder of its name below `output`.

  Args:
    experiments: resolved configs with distinct names.
    dataset: photos and queries.
    output: folder of all artefacts and of the page.
    ground_truth: the file that the queries come from.
    boxes_path: boxes for the experiments with regions.source FILE, or RANDOM without a file of its own.
    codebooks: by the name of an experiment, a codebook trained on other photos.
    options: how to run.

  Raises:
    UserError: an input is one that a stage cannot work with.
  """
  codebooks = codebooks or {}
  shared = SharedArtefacts(('boxes', 'features', 'codebook', 'query_features'))
  outcomes = []
  for config in experiments:
    logging.info('experiment: %s', config.name)
    given = shared.given(config)
    if config.name in codebooks:
      given['codebook'] = codebooks[config.name]
    outcome = experiment.run(
      config,
      dataset,
      output / config.name,
      ground_truth=ground_truth,
      boxes_path=boxes_path if takes_boxes_file(config.regions) else None,
      given=given,
      options=options,
    )
    shared.keep(config, outcome.artefacts)
    outcomes.append(outcome)
  rows = tuple(map(row_of, outcomes))
  *others, last = (
    metrics_files.read_per_query(_metrics(outcome).path / evaluate_retrieval.PER_QUERY)
    for outcome in outcomes
  )
  gains = {
    row.name: paired_comparison.compare(other, last) for row, other in zip(rows[:-1], others, strict=True)
  }
  return Comparison(rows, gains, _write_page(experiments, outcomes, rows, gains, output))


def takes_boxes_file(regions: RegionsConfig) -> bool:
  """Returns whether a config takes boxes from a file that it does not name itself."""
  is_imitated = regions.source == RegionsConfig.RANDOM and not regions.random.like
  return regions.source == RegionsConfig.FILE or is_imitated


def row_of(outcome: experiment.Outcome) -> Row:
  """Returns the row of an experiment with queries."""
  artefacts = outcome.artefacts
  metrics = metrics_files.read_metrics_json(_metrics(outcome).path / evaluate_retrieval.METRICS)
  timing = ranking_files.load(artefacts.get('fused', artefacts['rankings']).path).timing
  counts = artefacts['index'].counts
  indexes = [artefacts[kind] for kind in ('index', 'other_index') if kind in artefacts]
  return Row(
    name=outcome.reported.name,
    mean_average_precision={name: metrics[name].mean_average_precision for name in PROTOCOLS},
    postings=counts['postings'] / counts['images'],
    index_bytes=sum(index.counts['index_bytes'] for index in indexes) / counts['images'],
    describe_ms=float(np.median(timing.describe)),
    search_ms=float(np.median(timing.search)),
  )


def _metrics(outcome: experiment.Outcome) -> Artefact:
  if outcome.reported.metrics is None:
    raise ValueError(f'expected an experiment with queries, found {outcome.reported.name} without metrics')
  return outcome.reported.metrics


_GAINS_CAPTION = 'Points of mAP, mean of the paired differences of queries with its 95 % bootstrap interval'
_COLUMNS = (
  'experiment',
  'mAP easy',
  'mAP medium',
  'mAP hard',
  'postings/image',
  'index bytes/image',
  'describe ms',
  'search ms',
)


def _cells(row: Row) -> tuple[str, ...]:
  return (
    row.name,
    *(make_report.percent(row.mean_average_precision[name]) or '-' for name in PROTOCOLS),
    f'{row.postings:.0f}',
    f'{row.index_bytes:,.0f}',
    f'{row.describe_ms:.1f}',
    f'{row.search_ms:.2f}',
  )


def _gain_columns(last: str) -> tuple[str, ...]:
  return (f'{last} over', *(f'mAP {name}' for name in PROTOCOLS))


def _gain_cells(other: str, gains: Mapping[str, PairedComparison]) -> tuple[str, ...]:
  intervals = (gains[name].interval if name in gains else None for name in PROTOCOLS)
  return (
    other,
    *(
      f'{signed(found.mean)} [{signed(found.low)}, {signed(found.high)}]'
      if found and found.num_queries
      else '-'
      for found in intervals
    ),
  )


def table_text(comparison: Comparison) -> str:
  """Returns the table of the experiments and the table of gains for a terminal."""
  tables = [text_table.aligned([_COLUMNS, *map(_cells, comparison.rows)])]
  if comparison.gains:
    lines = [_gain_cells(*gain) for gain in comparison.gains.items()]
    tables.append(text_table.aligned([_gain_columns(comparison.rows[-1].name), *lines]))
    tables.append(f'({_GAINS_CAPTION})')
  return '\n\n'.join(tables)


def _write_page(
  experiments, outcomes, rows: Sequence[Row], gains: Mapping, output: pathlib.Path
) -> pathlib.Path:
  last = outcomes[-1].reported
  options = experiments[-1].report
  queries = make_report.query_views(last, results_per_query=options.results_per_query)
  explained = match_views.of_run(last, options.matches)
  dataset = last.dataset
  tables = [TableView(_COLUMNS, tuple(map(_cells, rows)), 'mAP in per cent; times are medians of a query.')]
  if gains:
    lines = tuple(_gain_cells(*gain) for gain in gains.items())
    tables.append(TableView(_gain_columns(last.name), lines, f'{_GAINS_CAPTION}.'))
  view = ExperimentView(
    title='Comparison of experiments',
    subtitle=f'{len(dataset.images)} index images, {len(dataset.queries)} queries, Revisited protocol',
    tables=tuple(tables),
    methods=tuple(MethodView(row.name, row.mean_average_precision) for row in rows),
    queries=tuple(queries),
    queries_title=f'Queries of {last.name}',
    config_text='\n'.join(f'# {config.name}\n{configs.to_text(config)}' for config in experiments),
    facts=make_report.facts(last),
    notes=(*make_report.notes(last), *explained.notes),
    match_groups=explained.groups,
  )
  return make_report.write(experiment_page.render(view), output / 'report')
