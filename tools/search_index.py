"""Searches an index for photos that show the same object as a photo or a box of it.

  d2r search_index --index=out --query=photo.jpg
  d2r search_index --index=out --query=photo.jpg --box=0.1,0.2,0.8,0.9 --format=json
  d2r search_index --index=out --query=photo.jpg --verify --html=answer.html
  d2r search_index --index=out/index --query_features=out/query_features --output=out/rankings

--index is a directory that build_index or run_experiment made. With --query the answer is printed; it is
fused and verified if the config of the run has a fusion and a verification, while expansion applies to data
sets only. With --query_features all queries of a data set are ranked, and the rankings are written to
--output for rerank_results, fuse_rankings and expand_queries.
"""

import pathlib

from absl import flags

from delf_d2r import command_line, common_flags
from delf_d2r.errors import UserError

flags.DEFINE_string('index', None, 'Directory that build_index or run_experiment made.', required=True)
flags.DEFINE_string('query', None, 'Photo to search for.')
flags.DEFINE_string('box', None, 'ymin,xmin,ymax,xmax in [0, 1]: the part of the photo to search for.')
flags.DEFINE_bool(
  'verify',
  None,
  'Rank first the photos whose matches agree on one geometric transform, most inliers first. By default on if'
  ' the config of the run has a verification.',
)
flags.DEFINE_integer('top_k', 10, 'Number of results for --query; 0 = all.', lower_bound=0)
flags.DEFINE_enum('format', 'text', ['text', 'json'], 'How the answer to --query is printed.')
flags.DEFINE_string('html', None, 'Also write the answer to this HTML file, with thumbnails and boxes.')
flags.DEFINE_integer(
  'matches',
  24,
  'Number of results of --html that can be opened to see why they matched, about 80 kB each; 0 = none.',
  lower_bound=0,
)
common_flags.define_moved_photos()
flags.DEFINE_string('query_features', None, 'Directory that extract_features --queries made.')
flags.DEFINE_string('output', None, 'Directory of the rankings, with --query_features.')
flags.DEFINE_string(
  'config_path', None, 'Config of an experiment, with --query_features; by default that of the index.'
)
flags.DEFINE_multi_string('override', [], "Change a field, for example 'search.top_k: 100'. Repeatable.")
flags.DEFINE_bool('redo', False, 'Replace rankings that another config made.')
common_flags.define_warm()
FLAGS = flags.FLAGS


def main(_):
  if bool(FLAGS.query) == bool(FLAGS.query_features):
    raise UserError('give either --query (one photo) or --query_features (the queries of a data set)')
  if FLAGS.query:
    from delf_d2r.data.artefacts import single_query

    if not FLAGS.html:
      single_query.use_numpy_where_cheaper(FLAGS.index, verify=FLAGS.verify)
    from delf_d2r.report import answers

    answer = answers.search_photo(
      FLAGS.index,
      FLAGS.query,
      box=FLAGS.box,
      top_k=FLAGS.top_k,
      verify=FLAGS.verify,
      photos=FLAGS.images,
      preload=FLAGS.warm,
      page=FLAGS.html,
      matches=FLAGS.matches,
      form=FLAGS.format,
    )
    print(answer)
  elif not FLAGS.output:
    raise UserError('--query_features needs --output, a directory for the rankings')
  else:
    from delf_d2r import config
    from delf_d2r.data.artefacts.artefact import Artefact
    from delf_d2r.stages import search_index

    search_index.run(
      config.load_or_default(FLAGS.config_path, ['search'], overrides=FLAGS.override),
      Artefact.open(FLAGS.index, 'index'),
      Artefact.open(FLAGS.query_features, 'features'),
      pathlib.Path(FLAGS.output),
      redo=FLAGS.redo,
      warm=FLAGS.warm,
    )


if __name__ == '__main__':
  command_line.run(main)
