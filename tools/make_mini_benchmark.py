"""Generates the miniature benchmark: scenes of real photos, exact boxes, ground truth.

  d2r make_mini_benchmark --output=mini

Real photos that come with scikit-image and scikit-learn are pasted into clutter, warped and partly hidden.
The same seed gives the same bytes.
"""

import pathlib
import shlex

from absl import flags

from delf_d2r import command_line
from delf_d2r.data.scenes import mini_benchmark
from delf_d2r.runtime import progress

flags.DEFINE_string('output', None, 'Directory of the benchmark; made if missing.', required=True)
flags.DEFINE_integer('seed', 0, 'Seed of all random choices.', lower_bound=0)
FLAGS = flags.FLAGS


def main(_):
  made = mini_benchmark.generate(
    pathlib.Path(FLAGS.output), seed=FLAGS.seed, progress=progress.callback('scenes')
  )
  places = {
    'images': made.images_dir,
    'query_images': made.queries_dir,
    'ground_truth': made.ground_truth_path,
  }
  print(shlex.join(f'--{flag}={place}' for flag, place in places.items()))
  print(shlex.quote(f'--boxes_file={made.boxes_path}'))


if __name__ == '__main__':
  command_line.run(main)
