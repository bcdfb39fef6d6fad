r"""Trains a codebook of visual words on local features.

  d2r train_codebook --config_path=configs/experiments/sift_rasmk_star.pbtxt --features=out/features \
    --output=out/codebook

With `codebook { source: SHIPPED }` nothing is trained: the output is the codebook of the package.

Config: the part `codebook` of an experiment, or a CodebookConfig. report.json in the output has the loss of
each iteration, the number of empty words and the imbalance.
"""

import pathlib

from absl import flags

from delf_d2r import command_line, common_flags
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.stages import train_codebook

common_flags.define_config('codebook')
flags.DEFINE_string(
  'features', None, 'Directory that extract_features made. Not needed with codebook.source: SHIPPED.'
)
common_flags.define_output('the codebook')
flags.DEFINE_string(
  'words',
  '',
  'Directory of a codebook of the same features and config but for codebook.projection and codebook.bits: its'
  ' words are taken instead of being trained again.',
)
FLAGS = flags.FLAGS


def main(_):
  train_codebook.run(
    common_flags.load_config('codebook'),
    Artefact.open(FLAGS.features, 'features') if FLAGS.features else None,
    pathlib.Path(FLAGS.output),
    words=Artefact.open(FLAGS.words, 'codebook') if FLAGS.words else None,
    redo=FLAGS.redo,
  )


if __name__ == '__main__':
  command_line.run(main)
