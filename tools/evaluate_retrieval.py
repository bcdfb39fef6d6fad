"""Evaluates rankings by the Revisited protocol: easy, medium, hard; mAP, mP@k, mR@k.

  d2r evaluate_retrieval --rankings=out/rankings --ground_truth=truth.json --output=out/metrics

Writes metrics.json, per_query.json and metrics.txt; the last has the form of the tensorflow/models DELF code.
"""

import pathlib

from absl import flags

from delf_d2r import command_line, common_flags, config
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.stages import evaluate_retrieval

common_flags.define_artefact('rankings', 'search_index --query_features or rerank_results')
flags.DEFINE_string(
  'rankings_before',
  None,
  'Rankings before verification, if --rankings are verified ones: metrics.txt shows mAP before and after.',
)
flags.DEFINE_string(
  'rankings_hard',
  None,
  'Rankings that replace --rankings in the hard protocol: the same, verified with junk: SKIP_HARD.',
)
flags.DEFINE_string(
  'ground_truth',
  None,
  "Queries and their right answers: .json, or Revisited's gnd_*.pkl or .mat.",
  required=True,
)
flags.DEFINE_string(
  'config_path', None, 'Config of an experiment, or an EvaluationConfig; by default k is 1, 5 and 10.'
)
flags.DEFINE_multi_string(
  'override', [], "Change a field, for example 'evaluation.ks: [1, 100]'. Repeatable."
)
common_flags.define_output('the metrics')
FLAGS = flags.FLAGS


def main(_):
  artefact = evaluate_retrieval.run(
    config.load_or_default(FLAGS.config_path, ['evaluation'], overrides=FLAGS.override),
    Artefact.open(FLAGS.rankings, 'rankings'),
    FLAGS.ground_truth,
    pathlib.Path(FLAGS.output),
    before=Artefact.open(FLAGS.rankings_before, 'rankings') if FLAGS.rankings_before else None,
    hard=Artefact.open(FLAGS.rankings_hard, 'rankings') if FLAGS.rankings_hard else None,
    redo=FLAGS.redo,
  )
  print((artefact.path / evaluate_retrieval.METRICS_TXT).read_text(encoding='utf-8'), end='')


if __name__ == '__main__':
  command_line.run(main)
