"""Compares the systems of the paper on a small benchmark made of real photos.

  d2r demo --output=demo_output

It compares Detect-to-Retrieve (R-ASMK* over the boxes of the default detector) with ASMK* without boxes, with
and without the normalisation that R-ASMK* leaves out; with R-ASMK* over a uniform grid, over the true boxes,
and over random boxes as many and as large as the detected ones; with regional search; and with the default
experiment, which adds region masks and a global descriptor, and trains no codebook. Quality of retrieval,
size of the index and time of a query are measured in this run. Features are RootSIFT and the default DELF
together. The second table has the gain of the default experiment over each other one.
"""

import pathlib

from absl import flags

from delf_d2r import command_line, common_flags
from delf_d2r.experiments import comparison, demo
from delf_d2r.experiments.run_options import Options

common_flags.define_output('photos, artefacts and report')
common_flags.define_workers()
flags.DEFINE_integer('seed', 0, 'Seed of the benchmark.', lower_bound=0)
flags.DEFINE_multi_string('override', [], 'Change a field of all configs. Repeatable.')
FLAGS = flags.FLAGS


def main(_):
  outcome = demo.run(
    pathlib.Path(FLAGS.output),
    seed=FLAGS.seed,
    overrides=FLAGS.override,
    options=Options(FLAGS.workers, FLAGS.strict, FLAGS.redo),
  )
  print(comparison.table_text(outcome))
  print(f'report: {outcome.page}')


if __name__ == '__main__':
  command_line.run(main)
