r"""Trains a PCA that reduces the dimensions of local features.

  d2r train_pca --features=out/features --output=out/pca

The output has mean, components and variances as .npy for extraction.delf.pca.path and for export_delf, and as
.datum files for the tensorflow/models DELF code. The number of components to keep is chosen where the PCA is
used.
"""

import pathlib

from absl import flags

from delf_d2r import command_line, common_flags
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.stages import train_pca

common_flags.define_artefact('features', 'extract_features')
common_flags.define_output('the PCA')
FLAGS = flags.FLAGS


def main(_):
  train_pca.run(Artefact.open(FLAGS.features, 'features'), pathlib.Path(FLAGS.output), redo=FLAGS.redo)


if __name__ == '__main__':
  command_line.run(main)
