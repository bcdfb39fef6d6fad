"""evaluate_retrieval: rankings and ground truth to metrics, by the Revisited protocol."""

import hashlib
import pathlib

import numpy as np
from absl import logging

from delf_d2r.data import artefact_writer, ground_truth, ranking_files
from delf_d2r.data.artefacts import Artefact, Input, Plan
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
  redo: bool = False,
) -> Artefact:
  """Scores rankings: `metrics.json`, `per_query.json` and the research code's `metrics.txt`.

  A query whose photo could not be read has an empty ranking. An index image that could not be read counts
  as not found.

  Args:
    config: its part `evaluation` has the k of mP@k.
    rankings: what search_index made.
    ground_truth_path: `.json`, or Revisited's `.pkl` or `.mat`.
    output: the artefact directory.
    redo: replace what another config made.

  Raises:
    UserError: the ground truth does not fit the rankings, or the output cannot be written.
  """
  truth = ground_truth.load(ground_truth_path)
  stored = ranking_files.load(rankings.path)
  unreadable = [error['name'] for error in artefact_writer.read_errors(rankings)]
  queries = ground_truth.resolve(truth, [*stored.image_names, *unreadable])
  by_query = {ranking.query: ranking.image_ids for ranking in stored.rankings}
  absent = [query.name for query in queries if query.name not in by_query]
  if absent:
    logging.warning('no ranking for %d queries, which count as finding nothing: %s', len(absent), absent[:5])
  merged = experiment_pb2.ExperimentConfig()
  merged.CopyFrom(rankings.config)
  merged.evaluation.CopyFrom(config.evaluation)
  digest = hashlib.sha256(pathlib.Path(ground_truth_path).read_bytes()).hexdigest()[:16]
  source = Input('ground_truth', digest, pathlib.Path(ground_truth_path).resolve())
  plan = Plan('metrics', merged, (rankings.as_input('rankings'), source))
  with artefact_writer.writing(output, plan, redo=redo) as writer:
    if writer.finished:
      logging.info('metrics: %s is up to date, skipped', output)
      return Artefact.open(output, 'metrics')
    nothing = np.zeros(0, np.int64)
    ids = [by_query.get(query.name, nothing) for query in queries]
    metrics = protocol.evaluate(ids, queries, tuple(config.evaluation.ks) or protocol.KS)
    metrics_files.write_metrics_json(output / METRICS, metrics)
    metrics_files.write_per_query(output / PER_QUERY, metrics)
    metrics_files.write_metrics_txt(output / METRICS_TXT, metrics)
    for name, values in metrics.protocols.items():
      logging.info(
        'metrics: %s mAP %.2f over %d queries', name, 100 * values.mean_average_precision, values.num_queries
      )
    return writer.finish({'queries': len(queries), 'queries_without_ranking': len(absent)})
