r"""Adds the scores of two searches, for example by local and by global descriptors.

  d2r fuse_rankings --rankings=local/rankings --other=global/rankings --output=fused \
    --override='fusion.weight: 0.5'

Both must be rankings of all images (search.top_k: 0) for the same queries. The scores are first standardised
by their mean and standard deviation over the images of each query. The output is verified and evaluated like
any rankings.
"""

import pathlib

from absl import flags

from delf_d2r import command_line, common_flags, config
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.stages import fuse_rankings

common_flags.define_artefact('rankings', 'search_index --query_features')
common_flags.define_artefact('other', 'search_index --query_features')
flags.DEFINE_string(
  'config_path', None, 'Config of an experiment, or a FusionConfig; by default its defaults.'
)
flags.DEFINE_multi_string('override', [], "Change a field, for example 'fusion.weight: 0.3'. Repeatable.")
common_flags.define_output('the rankings')
FLAGS = flags.FLAGS


def main(_):
  fuse_rankings.run(
    config.load_or_default(FLAGS.config_path, ['fusion'], overrides=FLAGS.override),
    Artefact.open(FLAGS.rankings, 'rankings'),
    Artefact.open(FLAGS.other, 'rankings'),
    pathlib.Path(FLAGS.output),
    redo=FLAGS.redo,
  )


if __name__ == '__main__':
  command_line.run(main)
