"""Runs the rows of a table of the paper, and compares the numbers with the paper.

  d2r reproduce --table=main --list
  d2r reproduce --table=main --dataset=mini --output=out
  d2r reproduce --table=main --dataset=roxford5k --root=DIR --distractors=revisitop1m --output=out
  d2r reproduce --table=ablation --dataset=folder --root=photos --ground_truth=truth.json --output=out

Rows whose files are missing are left out: the table, and --list before a long run, name these files and where
to get them. Rows share artefacts where they can. The table is written after every row; run the same command
again to continue a run that was stopped.
"""

import pathlib
import sys

from absl import flags

from delf_d2r import command_line, common_flags
from delf_d2r.data.ground_truth import benchmarks
from delf_d2r.data.ground_truth.benchmarks import Benchmark
from delf_d2r.data.photos import distractor_list
from delf_d2r.errors import UserError
from delf_d2r.experiments import experiment, paper_tables, reproduction, reproduction_table
from delf_d2r.runtime import progress

flags.DEFINE_bool('list', False, 'Print the rows and the files that are missing for them; run nothing.')
flags.DEFINE_string('table', 'main', f'One of {", ".join(paper_tables.TABLES)}, or a .pbtxt of that form.')
flags.DEFINE_enum('dataset', 'mini', benchmarks.NAMES, 'The data set.')
flags.DEFINE_string(
  'root',
  None,
  'Folder of the data set, see d2r datasets; the mini benchmark is made there, by default in --output.',
)
flags.DEFINE_string('ground_truth', None, 'Ground truth to use instead of that in --root.')
flags.DEFINE_string('query_images', None, 'Folder of the query photos; by default that of --root.')
flags.DEFINE_string(
  'codebook_images',
  None,
  'Folder of photos to train codebooks on. By default Paris for Oxford and Oxford for Paris if both are'
  ' in one folder, else the index images.',
)
flags.DEFINE_string('distractors', None, 'Folder of further photos to search among; see run_experiment.')
flags.DEFINE_string(
  'distractors_boxes_file', None, 'Boxes of the distractors, for rows whose boxes come from a file.'
)
flags.DEFINE_multi_string(
  'row',
  [],
  'Run only this row, named as in the table or as its folder; the output has no other. Repeatable.',
)
flags.DEFINE_multi_string('override', [], 'Change a field of all configs. Repeatable.')
flags.DEFINE_integer(
  'max_words', None, 'Maximum number of words of trained codebooks, for few photos.', lower_bound=1
)
common_flags.define_output('artefacts, table and page', required=False)
common_flags.define_workers()
FLAGS = flags.FLAGS


def main(_):
  table = paper_tables.load_table(FLAGS.table)
  # Checked before a benchmark is made or found to be incomplete.
  rows = paper_tables.chosen(table, FLAGS.row)
  if FLAGS.list:
    print(_listing(table, rows))
    return
  if not FLAGS.output:
    raise UserError('give --output, a directory for artefacts, table and page; or --list to run nothing')
  output = pathlib.Path(FLAGS.output)
  benchmark = benchmarks.locate(
    FLAGS.dataset,
    FLAGS.root or output / 'photos',
    ground_truth=FLAGS.ground_truth,
    query_images=FLAGS.query_images,
    codebook=Benchmark('folder', pathlib.Path(FLAGS.codebook_images)) if FLAGS.codebook_images else None,
    progress=progress.callback('scenes'),
  )
  found = reproduction.run(
    table,
    benchmark,
    output,
    reproduction.Choices(
      rows=FLAGS.row,
      overrides=FLAGS.override,
      max_words=FLAGS.max_words,
      distractors=distractor_list.load(FLAGS.distractors) if FLAGS.distractors else None,
      distractors_boxes=FLAGS.distractors_boxes_file,
      options=experiment.Options(FLAGS.workers, FLAGS.strict, FLAGS.redo),
    ),
  )
  print(reproduction_table.as_text(found), end='')
  print(f'report: {output / "report" / "index.html"}')
  if any(result.error for result in found.results):
    sys.exit(1)


def _listing(table, rows) -> str:
  # Only the data set itself has true boxes, and it may not have been downloaded yet.
  return paper_tables.listing(
    table,
    rows,
    is_revisited=FLAGS.dataset in benchmarks.REVISITED,
    has_boxes=FLAGS.dataset not in benchmarks.REVISITED,
    overrides=FLAGS.override,
  )


if __name__ == '__main__':
  command_line.run(main)
