r"""Measures what a query scores with unrelated photos, for normalization: BACKGROUND.

  d2r train_background --descriptors=out/descriptors --other_descriptors=out/other/descriptors \
    --output=out/background

The descriptors are those of a run with fusion over background photos: photos that show what an index may
show, each something else, some hundred or more. The output belongs to the codebook of the one and to the
network of the other: name it by fusion.background_path in runs of both.
"""

import pathlib

from absl import flags

from delf_d2r import command_line, common_flags
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.stages import train_background

common_flags.define_artefact('descriptors', 'aggregate_features')
common_flags.define_artefact('other_descriptors', 'aggregate_features')
common_flags.define_output('the background model')
FLAGS = flags.FLAGS


def main(_):
  train_background.run(
    Artefact.open(FLAGS.descriptors, 'descriptors'),
    Artefact.open(FLAGS.other_descriptors, 'descriptors'),
    pathlib.Path(FLAGS.output),
    redo=FLAGS.redo,
  )


if __name__ == '__main__':
  command_line.run(main)
