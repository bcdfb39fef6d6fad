"""Splits an index by image into shards for several servers.

  d2r split_index --index=OUT/index --shards=4 --output=SPLIT

Makes SPLIT/front, SPLIT/shard-00000-of-00004 and so on, each for a machine of its own. `d2r serve_shard`
serves a shard; `d2r serve --index=SPLIT/front --shards=...` searches all of them, with the same rankings as
the whole index. A run that was stopped continues after the last finished shard.
"""

import pathlib

from absl import flags

from delf_d2r import command_line, common_flags
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.sharding.layout import MOST_SHARDS
from delf_d2r.stages import split_index

common_flags.define_artefact('index', 'build_index')
flags.DEFINE_integer(
  'shards', None, 'Number of shards.', lower_bound=1, upper_bound=MOST_SHARDS, required=True
)
common_flags.define_output('the shards and their front')
FLAGS = flags.FLAGS


def main(_):
  split_index.run(
    Artefact.open(FLAGS.index, 'index'), pathlib.Path(FLAGS.output), shards=FLAGS.shards, redo=FLAGS.redo
  )


if __name__ == '__main__':
  command_line.run(main)
