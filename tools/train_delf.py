r"""Trains DELF, a network for local features with attention, on your photos.

  d2r train_delf --config_path=configs/training/delf_tiny.pbtxt --photos=landmarks/train \
    --validation_photos=landmarks/dev --output=out/delf

Config: the part `training` of an experiment, or a TrainDelfConfig. Run the same command again to continue an
interrupted training exactly where it was. Watch it with `tensorboard --logdir=out/delf/tensorboard`.

The output has delf.weights.h5 (the best weights by validation, or the last ones), history.jsonl, curves.csv,
curves.svg, checkpoints/ and tensorboard/. export_delf makes a SavedModel of it.
"""

import functools
import pathlib

from absl import flags

from delf_d2r import command_line, common_flags
from delf_d2r.data.photos import class_names
from delf_d2r.stages import train_delf

_FORMS = (
  'a folder with a subfolder for each class, a .csv file with the header path,label, or a quoted pattern of'
  ' TFRecord shards in the form of the Google Landmarks data (image/encoded, image/class/label, image/id)'
)
common_flags.define_config('training')
flags.DEFINE_string('photos', None, f'Photos to train on: {_FORMS}.', required=True)
flags.DEFINE_string(
  'validation_photos', None, f'Photos for choosing the best checkpoint; none by default: {_FORMS}.'
)
flags.DEFINE_string(
  'classes',
  None,
  'Text file with the class names, one a line in the order of their numbers; other classes are refused.',
)
common_flags.define_exclude()
common_flags.define_output('the trained network')
common_flags.define_training_cluster()
FLAGS = flags.FLAGS


def main(_):
  loaded = common_flags.load_config('training')
  train = functools.partial(
    train_delf.run,
    loaded,
    FLAGS.photos,
    pathlib.Path(FLAGS.output),
    validation_photos=FLAGS.validation_photos,
    classes=class_names.read(FLAGS.classes) if FLAGS.classes else (),
    exclude=FLAGS.exclude,
    redo=FLAGS.redo,
  )
  common_flags.run_training(train, loaded.training.strategy)


if __name__ == '__main__':
  command_line.run(main)
