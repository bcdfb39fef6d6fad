"""Searches for every query again together with its verified images (query expansion).

  d2r expand_queries --rankings=out/reranked --index=out/index --features=out/features \\
    --query_features=out/query_features --output=out/expanded

--rankings are those of rerank_results, made from the same index, features and query features. The output is
evaluated like any rankings.
"""

import pathlib

from absl import flags

from delf_d2r import command_line, common_flags, config
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.stages import expand_queries

common_flags.define_artefact('rankings', 'rerank_results')
common_flags.define_artefact('index', 'build_index')
common_flags.define_artefact('features', 'extract_features')
common_flags.define_artefact('query_features', 'extract_features --queries')
flags.DEFINE_string(
  'config_path', None, 'Config of an experiment, or a QueryExpansionConfig; by default its defaults.'
)
flags.DEFINE_multi_string(
  'override', [], "Change a field, for example 'expansion.num_images: 3'. Repeatable."
)
common_flags.define_output('the rankings of the expanded queries')
FLAGS = flags.FLAGS


def main(_):
  expand_queries.run(
    config.load_or_default(FLAGS.config_path, ['expansion'], overrides=FLAGS.override),
    Artefact.open(FLAGS.rankings, 'rankings'),
    Artefact.open(FLAGS.index, 'index'),
    Artefact.open(FLAGS.features, 'features'),
    Artefact.open(FLAGS.query_features, 'features'),
    pathlib.Path(FLAGS.output),
    redo=FLAGS.redo,
  )


if __name__ == '__main__':
  command_line.run(main)
