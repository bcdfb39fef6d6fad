"""Finds the index images that show what a photo, or a box of it, shows.

  d2r search_index --index=out --query=photo.jpg
  d2r search_index --index=out --query=photo.jpg --box=0.1,0.2,0.8,0.9 --format=json
  d2r search_index --index=out --query=photo.jpg --verify --html=answer.html
  d2r search_index --index=out/index --query_features=out/query_features --output=out/rankings

--index is the directory of build_index or of run_experiment. With --query the answer is printed, verified if
the run's config has a verification; its fusion and expansion are for data sets. With --query_features all
queries of a data set are ranked and written to --output, for rerank_results, fuse_rankings, expand_queries.
"""

import pathlib

from absl import flags

from delf_d2r import command_line, common_flags, config
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.photos.photo_folders import PhotoFolders
from delf_d2r.engine import SearchEngine
from delf_d2r.errors import UserError
from delf_d2r.report import answers
from delf_d2r.stages import search_index

flags.DEFINE_string('index', None, 'Directory of build_index or of run_experiment.', required=True)
flags.DEFINE_string('query', None, 'A photo.')
flags.DEFINE_string('box', None, 'ymin,xmin,ymax,xmax in [0, 1]: search for what is inside.')
flags.DEFINE_bool(
  'verify',
  None,
  'Put first what one transform between the photos confirms, most inliers ahead. By default where the config'
  ' of the run has a verification.',
)
flags.DEFINE_integer('top_k', 10, 'Results for --query; 0 = all.', lower_bound=0)
flags.DEFINE_enum('format', 'text', ['text', 'json'], 'How the answer to --query is printed.')
flags.DEFINE_string('html', None, 'Also write the answer to this HTML file, with thumbnails and boxes.')
flags.DEFINE_integer(
  'matches',
  24,
  'Results of --html that can be opened to see why they matched, some 80 kB each; 0 = none.',
  lower_bound=0,
)
common_flags.define_moved_photos()
flags.DEFINE_string('query_features', None, 'Directory that extract_features --queries made.')
flags.DEFINE_string('output', None, 'Directory of the rankings of --query_features.')
flags.DEFINE_string(
  'config_path', None, 'Experiment for --query_features; the configs of the index by default.'
)
flags.DEFINE_multi_string('override', [], "Change a field, for example 'search.top_k: 100'. Repeatable.")
flags.DEFINE_bool('redo', False, 'Replace rankings that another config made.')
common_flags.define_warm()
FLAGS = flags.FLAGS


def main(_):
  if bool(FLAGS.query) == bool(FLAGS.query_features):
    raise UserError('give either --query (one photo) or --query_features (the queries of a data set)')
  if FLAGS.query:
    _answer()
  elif not FLAGS.output:
    raise UserError('--query_features needs --output, a directory for the rankings')
  else:
    search_index.run(
      config.load_or_default(FLAGS.config_path, ['search'], overrides=FLAGS.override),
      Artefact.open(FLAGS.index, 'index'),
      Artefact.open(FLAGS.query_features, 'features'),
      pathlib.Path(FLAGS.output),
      redo=FLAGS.redo,
      warm=FLAGS.warm,
    )


def _answer() -> None:
  engine = SearchEngine.load(FLAGS.index, one_photo=True, preload=FLAGS.warm)
  box = answers.parse_box(FLAGS.box) if FLAGS.box else None
  if FLAGS.images:
    engine.photos = PhotoFolders.of(FLAGS.images)
  verify = engine.verifies if FLAGS.verify is None else FLAGS.verify
  answer = engine.search(FLAGS.query, box=box, top_k=FLAGS.top_k, verify=verify)
  if FLAGS.html:
    answers.write_page(
      engine, answer, pathlib.Path(FLAGS.query), box, pathlib.Path(FLAGS.html), matches=FLAGS.matches
    )
  render = answers.to_json if FLAGS.format == 'json' else answers.to_text
  print(render(answer, FLAGS.query, box))


if __name__ == '__main__':
  command_line.run(main)
