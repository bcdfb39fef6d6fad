"""Runs the paper's systems on a small benchmark made of real photos, and compares them.

  d2r demo --output=demo_output

Detect-to-Retrieve (R-ASMK* over the boxes of the default detector) beside ASMK* without boxes, with
and without the division by its length that R-ASMK* does without, R-ASMK* with a uniform grid, with the true
boxes and with random boxes as many and as large as the detected ones, and regional search: retrieval quality,
size of the index and time of a query, all measured in this run. Features are RootSIFT and the default DELF
together.
"""

import pathlib

from absl import flags

from delf_d2r import command_line, common_flags, config
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.data.scenes import mini_benchmark
from delf_d2r.experiments import comparison, experiment
from delf_d2r.runtime import progress

EXPERIMENTS = (
  'asmk_star',
  'asmk_star_unnormalized',
  'rasmk_star_uniform',
  'rasmk_star_true_boxes',
  'd2r_regional_search',
  'rasmk_star_random_boxes',
  'd2r_rasmk_star',
)

common_flags.define_output('photos, artefacts and report')
common_flags.define_workers()
flags.DEFINE_integer('seed', 0, 'Seed of the benchmark.', lower_bound=0)
flags.DEFINE_multi_string('override', [], 'Change a field of all configs. Repeatable.')
FLAGS = flags.FLAGS


def main(_):
  output = pathlib.Path(FLAGS.output)
  made = mini_benchmark.generate(output / 'photos', seed=FLAGS.seed, progress=progress.callback('scenes'))
  # The control imitates the detected boxes, which an experiment before it has made.
  imitated = f'regions.random.like: "{output / "d2r_regional_search" / "boxes"}"'
  outcome = comparison.run(
    [
      config.load(
        f'configs/experiments/mini/{name}.pbtxt',
        experiment.STAGES,
        overrides=[*([imitated] if 'random' in name else []), *FLAGS.override],
      )
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
