"""The second half of a run: what the index answers, how good that is, and the report.

Every stage after build_index, with the same index or with one that distractors have joined.
"""

import dataclasses
import pathlib
from collections.abc import Mapping

from absl import logging

import delf_d2r.config as configs
from delf_d2r.data import files
from delf_d2r.data.artefacts.artefact import RUN_CONFIG, Artefact
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.evaluation import metrics_files
from delf_d2r.experiments import second_search
from delf_d2r.experiments.run_options import Options
from delf_d2r.protos import experiment_pb2
from delf_d2r.protos.verification_pb2 import VerificationConfig
from delf_d2r.report import make_report
from delf_d2r.stages import evaluate_retrieval, expand_queries, fuse_rankings, rerank_results, search_index

# Verified rankings for the numbers of the hard protocol alone, where junk is skipped for each.
HARD = 'reranked_hard'
# What scores a run in the end: by part of the config, the first that there is; without any `metrics`.
LAST_METRICS = {
  'expansion': 'expanded_metrics',
  'verification': 'reranked_metrics',
  'fusion': 'fused_metrics',
}


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
    metrics = metrics_files.read_metrics_json(outcome.reported.metrics.path / evaluate_retrieval.METRICS)
    lines += [
      f'mAP {name}: {make_report.percent(values.mean_average_precision) or "no query has positives"}'
      for name, values in metrics.items()
    ]
  return '\n'.join(lines)


def scored(
  config: experiment_pb2.ExperimentConfig,
  dataset: Dataset,
  described: Mapping[str, Artefact],
  output: pathlib.Path,
  *,
  ground_truth: str | pathlib.Path | None,
  options: Options,
  distractors: ImageList | None = None,
) -> Outcome:
  """Searches the index and says how good the answers are: every stage after build_index.

  Args:
    config: a resolved config with all stages.
    dataset: photos and, if there is ground truth, queries.
    described: features, codebook, index, with queries query_features, with distractors distractor_features.
    output: the folder of the artefacts, with distractors one in the folder of the run.
    ground_truth: the file that `dataset` has its queries from.
    options: how to run.
    distractors: photos in the index beside those of `dataset`.
  """
  made, redo = dict(described), options.redo
  index, features, more = made['index'], made['features'], made.get('distractor_features')
  # Second features of the run are not made anew for its distractors.
  home = output.parent if distractors else output
  if dataset.queries:
    queries = made['query_features']
    rankings = search_index.run(config, index, queries, output / 'rankings', redo=redo)
    metrics = evaluate_retrieval.run(config, rankings, ground_truth, output / 'metrics', redo=redo)
    made |= {'rankings': rankings, 'metrics': metrics}
    if config.HasField('fusion'):
      other = second_search.other_rankings(
        config,
        dataset,
        features,
        home,
        extracting=options.extracting,
        distractors=distractors,
        distractor_features=more,
      )
      rankings = fuse_rankings.run(config, rankings, other, output / 'fused', redo=redo)
      made['fused'] = rankings
      made['fused_metrics'] = evaluate_retrieval.run(
        config, rankings, ground_truth, output / 'fused_metrics', redo=redo
      )
    if config.HasField('verification'):
      to_verify = features, queries, more
      if config.verification.HasField('extraction'):
        to_verify = second_search.to_verify(config, dataset, distractors, home, extracting=options.extracting)
      protocols = {'reranked': 'medium'}
      if config.verification.junk == VerificationConfig.SKIP_EACH:
        protocols[HARD] = 'hard'
      verified = {
        name: rerank_results.run(
          config,
          rankings,
          *to_verify[:2],
          output / name,
          distractors=to_verify[2],
          ground_truth_path=ground_truth,
          protocol=protocol,
          workers=options.workers,
          redo=redo,
        )
        for name, protocol in protocols.items()
      }
      made |= verified
      reranked = made['reranked']
      made['reranked_metrics'] = evaluate_retrieval.run(
        config,
        reranked,
        ground_truth,
        output / 'reranked_metrics',
        before=rankings,
        hard=verified.get(HARD),
        redo=redo,
      )
    if config.HasField('expansion'):
      expanded = expand_queries.run(
        config, reranked, index, features, queries, output / 'expanded', distractors=more, redo=redo
      )
      made['expanded'] = expanded
      made['expanded_metrics'] = evaluate_retrieval.run(
        config, expanded, ground_truth, output / 'expanded_metrics', redo=redo
      )
  # Last, so that a run that is refused leaves the config of what stands there.
  with files.user_errors('cannot write', output):
    files.update(output / RUN_CONFIG, configs.to_text(config))
  reported = make_report.Run(
    config.name or output.name,
    dataset,
    index,
    _last(made, 'expanded', 'reranked', 'fused', 'rankings'),
    _last(made, *LAST_METRICS.values(), 'metrics'),
  )
  page = make_report.run(
    reported,
    output / 'report',
    results_per_query=config.report.results_per_query,
    max_queries=config.report.max_queries,
    matches=config.report.matches,
  )
  logging.info('report: %s', page)
  return Outcome(made, reported, page)


def _last(made: Mapping[str, Artefact], *kinds: str) -> Artefact | None:
  """Of several kinds the first that was made."""
  return next((made[kind] for kind in kinds if kind in made), None)
