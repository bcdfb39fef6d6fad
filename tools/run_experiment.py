"""Runs every stage: photos to index and, with ground truth, to metrics and report.

  d2r run_experiment --images=photos --output=out
  d2r run_experiment --config_path=... --images=photos --ground_truth=truth.json --output=out

Stages that stand already and are still valid are skipped: run the same command again after a kill and it goes
on. Afterwards `d2r search_index --index=out --query=photo.jpg` answers photos.
"""

import pathlib

from absl import flags

from delf_d2r import command_line, config, experiment
from delf_d2r.data.artefacts import Artefact
from delf_d2r.data.dataset import Dataset

command_line.define_config('of every stage', default='configs/experiments/d2r_rasmk_star.pbtxt')
command_line.define_images()
command_line.define_output('the whole run')
command_line.define_workers()
flags.DEFINE_string(
  'boxes_file',
  None,
  'Boxes for source: FILE or RANDOM: a CSV file or a directory, see d2r detect_boxes --help.',
)
flags.DEFINE_string(
  'codebook', None, 'Use the codebook that train_codebook made there, instead of training one.'
)
FLAGS = flags.FLAGS


def main(_):
  loaded = config.load(FLAGS.config_path, experiment.STAGES, overrides=FLAGS.override)
  dataset = Dataset.load(FLAGS.images, ground_truth=FLAGS.ground_truth, query_images=FLAGS.query_images)
  output = pathlib.Path(FLAGS.output)
  outcome = experiment.run(
    loaded,
    dataset,
    output,
    ground_truth=FLAGS.ground_truth,
    boxes_path=FLAGS.boxes_file,
    given={'codebook': Artefact.open(FLAGS.codebook, 'codebook')} if FLAGS.codebook else None,
    options=experiment.Options(FLAGS.workers, FLAGS.strict, FLAGS.redo),
  )
  print(experiment.summary(outcome))
  print(f'report: {outcome.page}')
  print(f'search: d2r search_index --index={output} --query=PHOTO')


if __name__ == '__main__':
  command_line.run(main)
