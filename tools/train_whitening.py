r"""Learns a whitening of global descriptors from labelled photos.

  d2r train_whitening --features=out/features --output=out/whitening
  d2r train_whitening --features=out/features --labels=labels.csv --output=out/whitening

The whitening brings photos of the same object together and separates different objects (Radenovic et al.,
TPAMI 2019). The output is used like that of train_pca: extraction.global_descriptor.pca { path:
"out/whitening" dimensions: 512 }. Learn it on photos other than those to search.
"""

import pathlib

from absl import flags

from delf_d2r import command_line, common_flags, config
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.stages import train_whitening

common_flags.define_artefact('features', 'extract_features')
flags.DEFINE_string(
  'labels',
  None,
  'Labels of the photos: a CSV file with the header path,label, or ground truth (.json, .pkl, .mat). By'
  ' default the photos of one folder show the same object.',
)
flags.DEFINE_string(
  'config_path', None, 'Config of an experiment, or a WhiteningConfig; by default its defaults.'
)
flags.DEFINE_multi_string(
  'override', [], "Change a field, for example 'whitening.shrinkage: 0.01'. Repeatable."
)
common_flags.define_output('the whitening')
FLAGS = flags.FLAGS


def main(_):
  train_whitening.run(
    config.load_or_default(FLAGS.config_path, ['whitening'], overrides=FLAGS.override),
    Artefact.open(FLAGS.features, 'features'),
    pathlib.Path(FLAGS.output),
    labels_path=FLAGS.labels,
    redo=FLAGS.redo,
  )


if __name__ == '__main__':
  command_line.run(main)
