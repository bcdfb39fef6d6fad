"""Runs every stage: photos to an index and, with ground truth, to metrics and a report.

  d2r run_experiment --images=photos --output=out
  d2r run_experiment --config_path=... --images=photos --ground_truth=truth.json --output=out
  d2r run_experiment ... --output=out --distractors=revisitop1m
  d2r run_experiment ... --output=out --cluster=HOST:PORT --gpus_per_worker=0.25

Stages whose artefacts exist and are still valid are skipped: run the same command again to continue a run
that was stopped. Afterwards `d2r search_index --index=out --query=photo.jpg` answers photos. With
--distractors the queries are searched for a second time, among these photos, too, in out/with_distractors;
all artefacts of the run are used as they are.
"""

import pathlib
import shlex

from absl import flags

from delf_d2r import command_line, common_flags
from delf_d2r.experiments import run_experiment
from delf_d2r.experiments.run_options import Options

common_flags.define_config(None, default=run_experiment.DEFAULT_CONFIG)
common_flags.define_images()
common_flags.define_output('the whole run')
common_flags.define_workers()
common_flags.define_cluster()
common_flags.define_sorting()
flags.DEFINE_string(
  'boxes_file',
  None,
  'Boxes for regions.source FILE or RANDOM: a CSV file or a directory, see d2r detect_boxes --help.',
)
flags.DEFINE_string(
  'codebook',
  None,
  'Directory that train_codebook made: use this codebook instead of the one that the config asks for.',
)
flags.DEFINE_string(
  'distractors',
  None,
  'Folder of photos to search among, too, beside those of --images: that of revisitop1m, or any other.',
)
flags.DEFINE_string('distractors_boxes_file', None, 'Like --boxes_file, for the distractors.')
FLAGS = flags.FLAGS


def main(_):
  output = pathlib.Path(FLAGS.output)
  run_experiment.run_experiment(
    FLAGS.images,
    output,
    FLAGS.config_path,
    ground_truth=FLAGS.ground_truth,
    overrides=FLAGS.override,
    query_images=FLAGS.query_images,
    boxes_file=FLAGS.boxes_file,
    codebook=FLAGS.codebook,
    distractors=FLAGS.distractors,
    distractors_boxes_file=FLAGS.distractors_boxes_file,
    exclude=FLAGS.exclude,
    options=Options(
      FLAGS.workers,
      FLAGS.strict,
      FLAGS.redo,
      common_flags.cluster(),
      sorting_bytes=common_flags.sorting_bytes(),
    ),
    report=print,
  )
  print(f'search: {shlex.join(["d2r", "search_index", f"--index={output}", "--query=PHOTO"])}')


if __name__ == '__main__':
  command_line.run(main)
