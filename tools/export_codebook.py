r"""Writes a trained codebook in the small form of the one in the package.

  d2r export_codebook --codebook=out/codebook --output=out/packaged_codebook

One byte a dimension; what that loses on the training descriptors is printed and is on the card,
codebook_card.json. In the place of delf_d2r/models/default_codebook, the output is what `codebook { source:
SHIPPED }` names. `make default-codebook PHOTOS=DIR` does all of it from a folder of photos.
"""

import pathlib

from absl import flags

from delf_d2r import command_line, common_flags
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.stages import export_codebook

common_flags.define_artefact('codebook', 'train_codebook')
flags.DEFINE_string('output', None, 'Directory of the packaged codebook; must not exist.', required=True)
flags.DEFINE_string(
  'features', '', 'Directory of the features that it was trained on, if they are not where they were.'
)
flags.DEFINE_string('name', 'Codebook', 'Name of the codebook on its card.')
flags.DEFINE_string('notes', '', 'Text for the card: training data, their licence, advice for users.')
FLAGS = flags.FLAGS


def main(_):
  export_codebook.run(
    Artefact.open(FLAGS.codebook, 'codebook'),
    pathlib.Path(FLAGS.output),
    features=Artefact.open(FLAGS.features, 'features') if FLAGS.features else None,
    name=FLAGS.name,
    notes=FLAGS.notes,
  )


if __name__ == '__main__':
  command_line.run(main)
