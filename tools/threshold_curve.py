r"""Draws index size and mAP over the score threshold of the boxes.

  d2r threshold_curve --config_path=configs/experiments/d2r_rasmk_star.pbtxt --images=photos \
    --ground_truth=truth.json --output=out --threshold=0.05 --threshold=0.1 --threshold=0.2 --threshold=0.4

The curve is the trade-off of the paper, and this config its method; without --config_path it is that of the
default experiment. Boxes are detected and features extracted once, with the lowest threshold; the thresholds
replace regions.min_score. Artefacts that exist are reused: run the same command
again to continue a run that was stopped.
"""

import pathlib

from absl import flags

from delf_d2r import command_line, common_flags, config
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.experiments import experiment, run_experiment, threshold_curve

common_flags.define_config(None, default=run_experiment.DEFAULT_CONFIG)
common_flags.define_images()
common_flags.define_output('all runs, the picture and the table')
common_flags.define_workers()
flags.DEFINE_multi_float(
  'threshold', [0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9], 'Minimum score of the boxes, in [0, 1]. Repeatable.'
)
flags.DEFINE_string(
  'boxes_file', None, 'Boxes for regions.source FILE or RANDOM; see d2r detect_boxes --help.'
)
flags.DEFINE_string(
  'codebook', None, 'Directory that train_codebook made: use this codebook instead of training one.'
)
FLAGS = flags.FLAGS


def main(_):
  curve = threshold_curve.run(
    config.load(FLAGS.config_path, experiment.STAGES, overrides=FLAGS.override),
    FLAGS.threshold,
    Dataset.load(
      FLAGS.images,
      ground_truth=FLAGS.ground_truth,
      query_images=FLAGS.query_images,
      exclude=FLAGS.exclude,
      strict=FLAGS.strict,
    ),
    pathlib.Path(FLAGS.output),
    ground_truth=FLAGS.ground_truth,
    boxes_path=FLAGS.boxes_file,
    codebook=Artefact.open(FLAGS.codebook, 'codebook') if FLAGS.codebook else None,
    options=experiment.Options(FLAGS.workers, FLAGS.strict, FLAGS.redo),
  )
  print((pathlib.Path(FLAGS.output) / threshold_curve.TABLE).read_text(encoding='utf-8'), end='')
  print(f'picture: {curve.page}')


if __name__ == '__main__':
  command_line.run(main)
