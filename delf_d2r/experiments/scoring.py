"""The second half of a run: the rankings of the queries, their metrics and the report.

These are the stages after build_index. They are the same for the index of a run and for the index that the
distractors of the run have been added to.
"""

import dataclasses
import pathlib
from collections.abc import Mapping

from absl import logging

import delf_d2r.config as configs
from delf_d2r.data import files
from delf_d2r.data.artefacts.artefact import RUN_CONFIG, Artefact
from delf_d2r.data.photos.dataset import Dataset, Queries
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.evaluation import metrics_files
from delf_d2r.experiments import second_search
from delf_d2r.experiments.run_options import Options
from delf_d2r.protos import experiment_pb2
from delf_d2r.protos.verification_pb2 import VerificationConfig
from delf_d2r.report import make_report, reported_run
from delf_d2r.stages import evaluate_retrieval, expand_queries, fuse_rankings, rerank_results, search_index

# Verified rankings for the numbers of the hard protocol alone, where junk is skipped for each protocol.
HARD = 'reranked_hard'


@dataclasses.dataclass(frozen=True)
class Outcome:
  """The outcome of a run.

  Attributes:
    artefacts: everything that was made or given, by kind.
    reported: the artefacts that the report shows.
    page: the report.
  """

  artefacts: Mapping[str, Artefact]
  reported: make_report.Run
  page: pathlib.Path


def summary(outcome: Outcome) -> str:
  """Returns a few lines for a terminal: the size of the index and, with queries, mAP by protocol."""
  lines = [f'{name}: {value}' for name, value in make_report.facts(outcome.reported).items()]
  if outcome.reported.metrics:
    metrics = metrics_files.read_metrics_json(outcome.reported.metrics.path / evaluate_retrieval.METRICS)
    lines += [
      f'mAP {name}: {make_report.percent(values.mean_average_precision) or "no query has positives"}'
      for name, values in metrics.items()
    ]
  return '\n'.join(lines)


def search_and_evaluate(
  config: experiment_pb2.ExperimentConfig,
  dataset: Dataset,
  described: Mapping[str, Artefact],
  output: pathlib.Path,
  *,
  ground_truth: str | pathlib.Path | None,
  options: Options,
  distractors: ImageList | None = None,
) -> Outcome:
  """Runs every stage after build_index: searches the index, evaluates the rankings and writes the report.

  Without queries only the report of the index is written, after the other index of a fusion.

  Args:
    config: a resolved config with all stages.
    dataset: photos and, if there is ground truth, queries.
    described: features, codebook and index; with queries also query_features, with distractors also
      distractor_features. Of the other search of a fusion, other_features and other_query_features are used
      instead of making them.
    output: the folder of the artefacts; with distractors a folder in that of the run.
    ground_truth: the file that the queries of `dataset` come from.
    options: how to run.
    distractors: photos in the index beside those of `dataset`.

  Raises:
    UserError: an input is one that a stage cannot work with.
  """
  artefacts = dict(described)
  if config.HasField('fusion'):
    artefacts |= second_search.secondary_index(
      config,
      dataset,
      artefacts['features'],
      output.parent if distractors else output,
      extracting=options.extracting,
      distractors=distractors,
      distractor_features=artefacts.get('distractor_features'),
      own=artefacts.get('other_features'),
    )
  if dataset.queries:
    if ground_truth is None:
      raise ValueError('expected the file that the queries come from, found ground_truth=None')
    run = _Run(config, dataset, dataset.queries, output, ground_truth, options, distractors)
    artefacts |= _search(run, artefacts)
    if config.HasField('fusion'):
      artefacts |= _fuse(run, artefacts)
    if config.HasField('verification'):
      artefacts |= _verify(run, artefacts)
    if config.HasField('expansion'):
      artefacts |= _expand(run, artefacts)
  # Written last, so that a run that is refused leaves the config of the artefacts that are there.
  with files.user_errors('cannot write', output):
    files.write_if_changed(output / RUN_CONFIG, configs.to_text(config))
  return _report(config, dataset, artefacts, output)


@dataclasses.dataclass(frozen=True)
class _Run:
  """Everything that the steps of `search_and_evaluate` have in common; its arguments."""

  config: experiment_pb2.ExperimentConfig
  dataset: Dataset
  queries: Queries
  output: pathlib.Path
  ground_truth: str | pathlib.Path
  options: Options
  distractors: ImageList | None

  @property
  def root(self) -> pathlib.Path:
    """The folder of the run itself, whose second features also serve the search among distractors."""
    return self.output.parent if self.distractors else self.output


def _evaluate(
  run: _Run, rankings: Artefact, name: str, *, before: Artefact | None = None, hard: Artefact | None = None
) -> Artefact:
  """Returns the metrics of some rankings, written into the folder `name`."""
  return evaluate_retrieval.run(
    run.config,
    rankings,
    run.ground_truth,
    run.output / name,
    before=before,
    hard=hard,
    redo=run.options.redo,
  )


def _search(run: _Run, artefacts: Mapping[str, Artefact]) -> dict[str, Artefact]:
  """Returns `rankings` of the index and their `metrics`."""
  rankings = search_index.run(
    run.config,
    artefacts['index'],
    artefacts['query_features'],
    run.output / 'rankings',
    redo=run.options.redo,
  )
  return {'rankings': rankings, 'metrics': _evaluate(run, rankings, 'metrics')}


def _fuse(run: _Run, artefacts: Mapping[str, Artefact]) -> dict[str, Artefact]:
  """Returns `fused`, the rankings fused with those of a secondary search, these, and `fused_metrics`."""
  secondary = second_search.secondary_rankings(
    run.config,
    run.queries,
    artefacts['other_index'],
    run.root,
    extracting=run.options.extracting,
    query_features=artefacts.get('other_query_features'),
  )
  fused = fuse_rankings.run(
    run.config,
    artefacts['rankings'],
    secondary['other_rankings'],
    run.output / 'fused',
    redo=run.options.redo,
  )
  return secondary | {'fused': fused, 'fused_metrics': _evaluate(run, fused, 'fused_metrics')}


def _verify(run: _Run, artefacts: Mapping[str, Artefact]) -> dict[str, Artefact]:
  """Returns `reranked`, the spatially verified rankings, and `reranked_metrics`.

  Where junk is skipped for each protocol, `reranked_hard` holds the rankings of the hard protocol.
  """
  config = run.config
  before = artefacts.get('fused', artefacts['rankings'])
  if config.verification.HasField('extraction'):
    features, query_features, distractor_features = second_search.verification_features(
      config, run.dataset, run.queries, run.distractors, run.root, extracting=run.options.extracting
    )
  else:
    features, query_features = artefacts['features'], artefacts['query_features']
    distractor_features = artefacts.get('distractor_features')
  protocols = {'reranked': 'medium'}
  if config.verification.junk == VerificationConfig.SKIP_EACH:
    protocols[HARD] = 'hard'
  verified = {
    name: rerank_results.run(
      config,
      before,
      features,
      query_features,
      run.output / name,
      distractors=distractor_features,
      ground_truth_path=run.ground_truth,
      protocol=protocol,
      workers=run.options.workers,
      redo=run.options.redo,
    )
    for name, protocol in protocols.items()
  }
  metrics = _evaluate(run, verified['reranked'], 'reranked_metrics', before=before, hard=verified.get(HARD))
  return {**verified, 'reranked_metrics': metrics}


def _expand(run: _Run, artefacts: Mapping[str, Artefact]) -> dict[str, Artefact]:
  """Returns `expanded`, the rankings of the queries expanded by verified results, and `expanded_metrics`."""
  expanded = expand_queries.run(
    run.config,
    artefacts['reranked'],
    artefacts['index'],
    artefacts['features'],
    artefacts['query_features'],
    run.output / 'expanded',
    distractors=artefacts.get('distractor_features'),
    redo=run.options.redo,
  )
  return {'expanded': expanded, 'expanded_metrics': _evaluate(run, expanded, 'expanded_metrics')}


def _report(
  config: experiment_pb2.ExperimentConfig,
  dataset: Dataset,
  artefacts: Mapping[str, Artefact],
  output: pathlib.Path,
) -> Outcome:
  """Writes the report of the last rankings and metrics that were made."""
  rankings, metrics = reported_run.last_kinds(config)
  reported = make_report.Run(
    config.name or output.name,
    dataset,
    artefacts['index'],
    artefacts.get(rankings),
    artefacts.get(metrics),
    artefacts.get('other_index'),
  )
  page = make_report.run(
    reported,
    output / 'report',
    results_per_query=config.report.results_per_query,
    max_queries=config.report.max_queries,
    matches=config.report.matches,
  )
  logging.info('report: %s', page)
  return Outcome(artefacts, reported, page)
