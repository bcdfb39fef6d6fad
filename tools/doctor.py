r"""Inspects a run, an artefact or an index for damage, and tells what to do.

  d2r doctor OUT
  d2r doctor OUT/index OUT/features --format=json

It reads every byte of artefacts and indexes, also behind links, and changes nothing. In the folder of a run
it also compares config.pbtxt with the artefacts, and checks that all results and the report exist; it does
not read the contents of the report.

The exit code is the worst of all directories: 0 sound (notes do not count), 1 warnings, 2 errors. 64: the
command line is wrong; 70: the doctor itself failed.
"""

import json
import pathlib
import sys

from absl import flags, logging

from delf_d2r import command_line
from delf_d2r.doctor import inspect
from delf_d2r.errors import UserError

flags.DEFINE_enum('format', 'text', ['text', 'json'], 'Format of the findings on standard output.')
FLAGS = flags.FLAGS


@command_line.answers_by_exit_code
@command_line.takes_arguments
def main(arguments):
  if len(arguments) < 2:
    raise UserError('no directory given. Write d2r doctor DIRECTORY')
  logging.set_verbosity(logging.WARNING)
  diagnoses = [inspect.diagnose(pathlib.Path(path)) for path in arguments[1:]]
  if FLAGS.format == 'json':
    print(json.dumps([diagnosis.to_document() for diagnosis in diagnoses], indent=1))
  else:
    print('\n\n'.join(diagnosis.to_text() for diagnosis in diagnoses))
  sys.exit(max(diagnosis.exit_code for diagnosis in diagnoses))


if __name__ == '__main__':
  command_line.run(main)
