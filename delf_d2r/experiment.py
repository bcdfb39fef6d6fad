"""A whole run of Detect-to-Retrieve: every stage in the order of the data flow.

    boxes/ features/ codebook/ descriptors/ index/ query_features/ rankings/ metrics/ report/index.html
    reranked/ reranked_metrics/    with a part `verification` in the config
    expanded/ expanded_metrics/    with a part `expansion`, too

A stage whose artefact stands already and is valid is skipped, so that a run resumes where it was stopped.
"""

import dataclasses
import pathlib
from collections.abc import Mapping

from absl import logging

import delf_d2r.config as configs
from delf_d2r.data import files
from delf_d2r.data.artefacts import Artefact
from delf_d2r.data.dataset import Dataset
from delf_d2r.evaluation import metrics_files
from delf_d2r.protos import experiment_pb2
from delf_d2r.report import make_report
from delf_d2r.stages import (
  aggregate,
  build_index,
  detect,
  evaluate,
  expand,
  extract,
  rerank,
  search,
  train_codebook,
)
from delf_d2r.stages.compatibility import require_same_extractor

STAGES = ('regions', 'extraction', 'codebook', 'aggregation', 'search', 'evaluation', 'report')
CONFIG = 'config.pbtxt'


@dataclasses.dataclass(frozen=True)
class Options:
  """How to run, without effect on the results.

  Attributes:
    workers: processes; None: one for each core.
    strict: stop at the first photo that cannot be decoded.
    redo: replace artefacts of another config.
  """

  workers: int | None = None
  strict: bool = False
  redo: bool = False


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What a run made: its artefacts by kind, what its report was made of, and the page itself."""

  artefacts: Mapping[str, Artefact]
  reported: make_report.Run
  page: pathlib.Path


def summary(outcome: Outcome) -> str:
  """A few lines for a terminal: what is in the index and, with queries, how good it is."""
  lines = [f'{name}: {value}' for name, value in make_report.facts(outcome.reported).items()]
  if outcome.reported.metrics:
    metrics = metrics_files.read_metrics_json(outcome.reported.metrics.path / evaluate.METRICS)
    lines += [
      f'mAP {name}: {make_report.percent(values.mean_average_precision) or "no query has positives"}'
      for name, values in metrics.items()
    ]
  return '\n'.join(lines)


def run(
  config: experiment_pb2.ExperimentConfig,
  dataset: Dataset,
  output: pathlib.Path,
  *,
  ground_truth: str | pathlib.Path | None = None,
  boxes_path: str | pathlib.Path | None = None,
  given: Mapping[str, Artefact] | None = None,
  options: Options | None = None,
) -> Outcome:
  """Runs every stage.

  Args:
    config: a resolved config with all stages.
    dataset: photos and, if there is ground truth, queries.
    output: the folder of the artefacts.
    ground_truth: the file that `dataset` has its queries from.
    boxes_path: boxes for regions.source FILE or RANDOM.
    given: artefacts to use instead of making them: features, codebook, query_features.
    options: how to run.

  Raises:
    UserError: whatever a stage cannot work with.
  """
  options = options or Options()
  given = dict(given or {})
  if 'codebook' in given:
    # Said now, not after hours of extraction.
    require_same_extractor(
      config.extraction,
      'the config',
      given['codebook'].config.extraction,
      given['codebook'].path,
      remedy='Use a codebook of this extractor, or let the run train one',
    )
  redo = options.redo
  extracting = {'workers': options.workers, 'strict': options.strict, 'redo': redo}
  output = pathlib.Path(output)
  with files.explained('cannot write', output):
    output.mkdir(parents=True, exist_ok=True)

  features = given.get('features')
  if features is None:
    boxes = detect.run(config, dataset, output / 'boxes', boxes_path=boxes_path, **extracting)
    features = extract.run(config, dataset, output / 'features', boxes=boxes, **extracting)
  codebook = given.get('codebook') or train_codebook.run(config, features, output / 'codebook', redo=redo)
  descriptors = aggregate.run(config, features, codebook, output / 'descriptors', redo=redo)
  index = build_index.run(config, descriptors, codebook, output / 'index', redo=redo)
  made = {'features': features, 'codebook': codebook, 'descriptors': descriptors, 'index': index}
  if dataset.queries:
    queries = given.get('query_features') or extract.run_queries(
      config, dataset.queries, output / 'query_features', **extracting
    )
    rankings = search.run(config, index, queries, output / 'rankings', redo=redo)
    metrics = evaluate.run(config, rankings, ground_truth, output / 'metrics', redo=redo)
    made |= {'query_features': queries, 'rankings': rankings, 'metrics': metrics}
    if config.HasField('verification'):
      reranked = rerank.run(
        config,
        rankings,
        features,
        queries,
        output / 'reranked',
        ground_truth_path=ground_truth,
        workers=options.workers,
        redo=redo,
      )
      made['reranked'] = reranked
      made['reranked_metrics'] = evaluate.run(
        config, reranked, ground_truth, output / 'reranked_metrics', before=rankings, redo=redo
      )
    if config.HasField('expansion'):
      expanded = expand.run(config, reranked, index, features, queries, output / 'expanded', redo=redo)
      made['expanded'] = expanded
      made['expanded_metrics'] = evaluate.run(
        config, expanded, ground_truth, output / 'expanded_metrics', redo=redo
      )
  # Last, so that a run that is refused leaves the config of what stands there.
  with files.explained('cannot write', output):
    files.write_atomically(output / CONFIG, configs.to_text(config))
  reported = make_report.Run(
    config.name or output.name,
    dataset,
    index,
    _last(made, 'expanded', 'reranked', 'rankings'),
    _last(made, 'expanded_metrics', 'reranked_metrics', 'metrics'),
  )
  page = make_report.run(
    reported,
    output / 'report',
    results_per_query=config.report.results_per_query,
    max_queries=config.report.max_queries,
  )
  logging.info('report: %s', page)
  return Outcome(made, reported, page)


def _last(made: Mapping[str, Artefact], *kinds: str) -> Artefact | None:
  """Of several kinds the first that was made."""
  return next((made[kind] for kind in kinds if kind in made), None)
