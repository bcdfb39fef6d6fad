"""evaluate_retrieval: rankings and ground truth to metrics, by the Revisited protocol."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
from absl import logging

from delf_d2r.data.artefacts import artefact_writer, ranking_files
from delf_d2r.data.artefacts.artefact import Artefact, Plan
from delf_d2r.data.artefacts.ranking_files import StoredRankings
from delf_d2r.data.ground_truth import ground_truth, resolved
from delf_d2r.data.ground_truth.ground_truth import ResolvedQuery
from delf_d2r.errors import UserError
from delf_d2r.evaluation import metrics_files, protocol
from delf_d2r.protos import experiment_pb2

METRICS = 'metrics.json'
PER_QUERY = 'per_query.json'
METRICS_TXT = 'metrics.txt'


def run(
  config: experiment_pb2.ExperimentConfig,
  rankings: Artefact,
  ground_truth_path: str | pathlib.Path,
  output: pathlib.Path,
  *,
  before: Artefact | None = None,
  hard: Artefact | None = None,
  redo: bool = False,
) -> Artefact:
  """Evaluates rankings: `metrics.json`, `per_query.json` and `metrics.txt`.

  The latter has the form of the tensorflow/models DELF code. A query whose photo could not be read has an
  empty ranking. An index image that could not be read counts as not found.

  Args:
    config: its part `evaluation` has the k of mP@k.
    rankings: the artefact of search_index or rerank_results.
    ground_truth_path: `.json`, or Revisited's `.pkl` or `.mat`.
    output: the artefact directory.
    before: if `rankings` are verified, those of search_index; `metrics.txt` then has both.
    hard: takes the place of `rankings` in the hard protocol: the artefact of rerank_results, of the same
      rankings with the junk of that protocol left out.
    redo: replace an artefact of another config.

  Returns:
    The artefact.

  Raises:
    UserError: the ground truth does not fit the rankings, or the output cannot be written.
  """
  stored = ranking_files.load(rankings.path)
  queries = resolved.resolved_queries(rankings, stored, ground_truth.load(ground_truth_path))
  absent = {query.name for query in queries} - {ranking.query for ranking in stored.rankings}
  if absent:
    logging.warning(
      'no ranking for %d queries, which count as finding nothing: %s', len(absent), sorted(absent)[:5]
    )
  merged = experiment_pb2.ExperimentConfig()
  merged.CopyFrom(rankings.config)
  merged.evaluation.CopyFrom(config.evaluation)
  inputs = [rankings.as_input('rankings'), resolved.ground_truth_input(ground_truth_path)]
  if before:
    inputs.append(before.as_input('rankings_before'))
  if hard:
    _require_same_origin(rankings, hard)
    inputs.append(hard.as_input('rankings_hard'))
  plan = Plan('metrics', merged, tuple(inputs))
  with artefact_writer.writing(output, plan, redo=redo) as writer:
    if writer.finished:
      return writer.reuse('metrics')
    ks = tuple(config.evaluation.ks) or protocol.KS
    metrics = score(stored, queries, ks)
    if hard:
      of_hard = score(ranking_files.load(hard.path), queries, ks).protocols['hard']
      metrics = dataclasses.replace(metrics, protocols={**metrics.protocols, 'hard': of_hard})
    metrics_files.write_metrics_json(output / METRICS, metrics)
    metrics_files.write_per_query(output / PER_QUERY, metrics)
    if before:
      metrics_before = score(ranking_files.load(before.path), queries, ks)
      metrics_files.write_metrics_txt(output / METRICS_TXT, metrics_before, after_verification=metrics)
    else:
      metrics_files.write_metrics_txt(output / METRICS_TXT, metrics)
    for name, values in metrics.protocols.items():
      logging.info(
        'metrics: %s mAP %.2f over %d queries', name, 100 * values.mean_average_precision, values.num_queries
      )
    return writer.finish({'queries': len(queries), 'queries_without_ranking': len(absent)})


def _require_same_origin(rankings: Artefact, hard: Artefact) -> None:
  first, second = (artefact.input('rankings') for artefact in (rankings, hard))
  if first is None or second is None or first.fingerprint != second.fingerprint:
    found = ' and '.join(
      f'{item.fingerprint} ({item.path})' if item else 'no others' for item in (first, second)
    )
    raise UserError(
      f'{rankings.path} and {hard.path}: expected rankings that verify the same ones, found them made from'
      f' {found}'
    )


def score(
  stored: StoredRankings, queries: Sequence[ResolvedQuery], ks: Sequence[int] = protocol.KS
) -> protocol.Metrics:
  """Returns the metrics of stored rankings; a query without a ranking finds nothing."""
  by_query = {ranking.query: ranking.image_ids for ranking in stored.rankings}
  nothing = np.zeros(0, np.int64)
  return protocol.evaluate([by_query.get(query.name, nothing) for query in queries], queries, ks)
