r"""Trains a landmark detector on photos with boxes.

  d2r train_detector --config_path=configs/detectors/retinanet_efficientnet_lite0.pbtxt \
    --records=scenes/train --validation_records=scenes/validation --output=out/detector

Config: the part `detector_training` of an experiment, or a DetectorTrainingConfig. Records are those that
make_detection_records and make_detection_scenes write, or other TFRecord shards in the form of TensorFlow's
Object Detection API. Run the same command again to continue an interrupted training exactly where it was.
Watch it with `tensorboard --logdir=out/detector/tensorboard`.

The output has detector.weights.npz (the best weights by validation, or the last ones), history.jsonl,
checkpoints/ and tensorboard/. export_detector makes a SavedModel of it.
"""

import functools
import pathlib

from absl import flags

from delf_d2r import command_line, common_flags
from delf_d2r.stages import train_detector

common_flags.define_config('detector_training')
flags.DEFINE_multi_string(
  'records',
  None,
  'Records to train on: a directory of records, or a quoted pattern of TFRecord shards. Repeatable.',
  required=True,
)
flags.DEFINE_multi_string(
  'validation_records', [], 'Records for choosing the best checkpoint; none by default. Repeatable.'
)
common_flags.define_output('the trained detector')
common_flags.define_training_cluster()
FLAGS = flags.FLAGS


def main(_):
  loaded = common_flags.load_config('detector_training')
  train = functools.partial(
    train_detector.run,
    loaded,
    FLAGS.records,
    pathlib.Path(FLAGS.output),
    validation_records=FLAGS.validation_records,
    redo=FLAGS.redo,
  )
  common_flags.run_training(train, loaded.detector_training.strategy)


if __name__ == '__main__':
  command_line.run(main)
