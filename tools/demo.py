"""Makes the miniature benchmark of real photos, runs four systems on it, compares them.

  d2r demo --output=demo_output

ASMK* without boxes, R-ASMK* with a uniform grid, regional search over the true boxes and R-ASMK* with the
true boxes: retrieval quality, size of the index and time of a query, all measured in this run.
"""

import pathlib

from absl import flags

from delf_d2r import command_line, comparison, config, experiment
from delf_d2r.data import mini_benchmark
from delf_d2r.data.dataset import Dataset
from delf_d2r.stages import progress

EXPERIMENTS = ('asmk_star', 'rasmk_star_uniform', 'regional_search', 'rasmk_star_true_boxes')

command_line.define_output('photos, artefacts and report')
command_line.define_workers()
flags.DEFINE_integer('seed', 0, 'Seed of the benchmark.', lower_bound=0)
flags.DEFINE_multi_string('override', [], 'Change a field of all four configs. Repeatable.')
FLAGS = flags.FLAGS


def main(_):
  output = pathlib.Path(FLAGS.output)
  made = mini_benchmark.generate(output / 'photos', seed=FLAGS.seed, progress=progress.callback('scenes'))
  outcome = comparison.run(
    [
      config.load(f'configs/experiments/mini/{name}.pbtxt', experiment.STAGES, overrides=FLAGS.override)
      for name in EXPERIMENTS
    ],
    Dataset.load(made.images_dir, ground_truth=made.ground_truth_path, query_images=made.queries_dir),
    output,
    ground_truth=made.ground_truth_path,
    boxes_path=made.boxes_path,
    options=experiment.Options(FLAGS.workers, FLAGS.strict, FLAGS.redo),
  )
  print(comparison.table_text(outcome))
  print(f'report: {outcome.page}')


if __name__ == '__main__':
  command_line.run(main)
