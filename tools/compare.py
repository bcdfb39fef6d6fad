"""Compares runs query by query: differences with intervals, queries won and lost.

  d2r compare RUN_A RUN_B RUN_C
  d2r compare RUN_A RUN_B --output=comparison
  d2r compare a/metrics b/reranked_metrics
  d2r compare a/rankings b/reranked --ground_truth=truth.json

A run is a directory that run_experiment made, of which the last rankings count, or the metrics or rankings in
it. The others are compared with the first one. All must have the same queries and ground truth. With
--output, compare.html and compare.json are written, too.
"""

import pathlib

from absl import flags

from delf_d2r import command_line
from delf_d2r.experiments import paired_runs

flags.DEFINE_string('output', None, 'Folder for compare.html and compare.json; made if missing.')
flags.DEFINE_string(
  'ground_truth', None, 'Ground truth to score rankings that are given without their metrics.'
)
flags.DEFINE_float('level', 0.95, 'Confidence level of the intervals.', lower_bound=0.01, upper_bound=0.9999)
flags.DEFINE_integer('seed', 0, 'Seed of the bootstrap.', lower_bound=0)
FLAGS = flags.FLAGS


@command_line.takes_arguments
def main(arguments):
  runs = [paired_runs.open_run(path, ground_truth=FLAGS.ground_truth) for path in arguments[1:]]
  comparison = paired_runs.compare(runs, seed=FLAGS.seed, level=FLAGS.level)
  print(paired_runs.table(comparison))
  if FLAGS.output:
    print(f'page: {paired_runs.write(comparison, pathlib.Path(FLAGS.output))}')


if __name__ == '__main__':
  command_line.run(main)
