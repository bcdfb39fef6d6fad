"""Tells where to download Revisited Oxford and Paris, and checks downloaded copies.

  d2r datasets
  d2r datasets --name=roxford5k
  d2r datasets --name=roxford5k --root=data/roxford5k

With --root every photo is decoded, and missing, surplus and damaged ones are named; the exit status is 1
unless the data set is complete. Nothing is ever downloaded.
"""

import dataclasses
import json
import pathlib
import sys

from absl import flags

from delf_d2r import command_line
from delf_d2r.data import files
from delf_d2r.data.ground_truth.revisited_folders import FOLDERS
from delf_d2r.errors import UserError
from delf_d2r.stages import datasets

flags.DEFINE_enum('name', None, list(FOLDERS), 'The data set; all of them by default.')
flags.DEFINE_string('root', None, 'Its folder, or the folder that contains it: check it.')
flags.DEFINE_string('json', None, 'File to write all findings to, with all names.')
flags.DEFINE_integer('workers', None, 'Processes; one for each core by default.', lower_bound=1)
FLAGS = flags.FLAGS


def main(_):
  if FLAGS.root is None:
    wanted = [FOLDERS[FLAGS.name]] if FLAGS.name else FOLDERS.values()
    print('\n\n'.join(folder.instructions() for folder in wanted))
    return
  if FLAGS.name is None:
    raise UserError(f'--root is given but not --name. Say which data set it is: {", ".join(FOLDERS)}')
  found = datasets.check(FOLDERS[FLAGS.name], FLAGS.root, workers=FLAGS.workers)
  if FLAGS.json:
    files.write_output(pathlib.Path(FLAGS.json), json.dumps(dataclasses.asdict(found), indent=1) + '\n')
  print(found.to_text(FLAGS.name))
  if not found.is_whole:
    sys.exit(1)


if __name__ == '__main__':
  command_line.run(main)
