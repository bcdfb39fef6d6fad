"""Runs the rows of a table of the paper; the paper's numbers stand beside ours.

  d2r reproduce --table=main --list
  d2r reproduce --table=main --dataset=mini --output=out
  d2r reproduce --table=main --dataset=roxford5k --root=DIR --distractors=revisitop1m --output=out
  d2r reproduce --table=ablation --dataset=folder --root=photos --ground_truth=truth.json --output=out

Rows whose files are missing are left out: the table, and --list before a long run, say which these are and
where to get them. Rows share what they can. The table is written anew after every row; run the same command
again after a kill and it goes on.
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

flags.DEFINE_bool('list', False, 'Print the rows, and what those need that do not run here; run nothing.')
flags.DEFINE_string('table', 'main', f'One of {", ".join(paper_tables.TABLES)}, or a .pbtxt of that form.')
flags.DEFINE_enum('dataset', 'mini', benchmarks.NAMES, 'The data set.')
flags.DEFINE_string(
  'root',
  None,
  'Its folder, see d2r datasets; the mini benchmark is made there, or in --output.',
)
flags.DEFINE_string('ground_truth', None, 'In the place of the ground truth in --root.')
flags.DEFINE_string('query_images', None, 'Folder of the query photos; by default that of --root.')
flags.DEFINE_string(
  'codebook_images',
  None,
  'Folder of photos to train codebooks on. By default Paris for Oxford and Oxford for Paris where both lie in'
  ' one folder, else the index images.',
)
flags.DEFINE_string('distractors', None, 'Folder of photos to search among, too; see run_experiment.')
flags.DEFINE_string('distractors_boxes_file', None, 'Their boxes, for rows whose boxes come from a file.')
flags.DEFINE_multi_string(
  'row',
  [],
  'Run this row alone, named as in the table or as its folder; the table has no other. Repeatable.',
)
flags.DEFINE_multi_string('override', [], 'Change a field of all configs. Repeatable.')
flags.DEFINE_integer('max_words', None, 'Train no codebook of more words: for few photos.', lower_bound=1)
common_flags.define_output('artefacts, table and page', required=False)
common_flags.define_workers()
FLAGS = flags.FLAGS


def main(_):
  table = paper_tables.load_table(FLAGS.table)
  # Before a benchmark is made, or found not to be whole.
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
  # Of true boxes only the data set itself knows, which need not be here yet.
  return paper_tables.listing(
    table,
    rows,
    is_revisited=FLAGS.dataset in benchmarks.REVISITED,
    has_boxes=FLAGS.dataset not in benchmarks.REVISITED,
    overrides=FLAGS.override,
  )


if __name__ == '__main__':
  command_line.run(main)
