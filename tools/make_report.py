"""Makes the HTML report of a finished experiment: one file that opens in any browser.

d2r make_report --experiment=out --images=photos --ground_truth=truth.json --output=out/report
"""

import pathlib

from absl import flags

from delf_d2r import command_line, common_flags, config
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.report import make_report

flags.DEFINE_string('experiment', None, 'Directory that run_experiment made.', required=True)
common_flags.define_images()
flags.DEFINE_string('output', None, 'Folder for index.html; made if missing.', required=True)
flags.DEFINE_integer(
  'matches',
  None,
  'Number of pairs of a query and a result that can be opened to see why they match; 0 = none. By'
  ' default that of the config.',
  lower_bound=0,
)
flags.DEFINE_string(
  'config_path',
  None,
  'Config of an experiment, or a ReportConfig: how many queries, results and matches are shown.',
)
flags.DEFINE_multi_string('override', [], "Change a field, for example 'report.max_queries: 0'. Repeatable.")
FLAGS = flags.FLAGS


def main(_):
  options = config.load_or_default(FLAGS.config_path, ['report'], overrides=FLAGS.override).report
  dataset = Dataset.load(
    FLAGS.images,
    ground_truth=FLAGS.ground_truth,
    query_images=FLAGS.query_images,
    exclude=FLAGS.exclude,
  )
  page = make_report.run(
    make_report.Run.open(FLAGS.experiment, dataset),
    pathlib.Path(FLAGS.output),
    results_per_query=options.results_per_query,
    max_queries=options.max_queries,
    matches=options.matches if FLAGS.matches is None else FLAGS.matches,
  )
  print(page)


if __name__ == '__main__':
  command_line.run(main)
