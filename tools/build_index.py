r"""Builds an inverted index of aggregated descriptors, which is all that a search needs.

  d2r build_index --config_path=configs/experiments/sift_rasmk_star.pbtxt --descriptors=out/descriptors \
    --codebook=out/codebook --output=out/index

Segments of 65,536 entries are built in parallel, by processes of this machine or, with --cluster, by workers
that see the same folders. A run that was stopped keeps the finished segments.

Config: the part `aggregation` of an experiment, or an AggregationConfig, of this package or of the
tensorflow/models DELF code. Its alpha, tau, normalize and
use_idf are the defaults of searches of this index.
"""

import pathlib

from absl import flags

from delf_d2r import command_line, common_flags
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.legacy import config_files
from delf_d2r.stages import build_index

common_flags.define_config('aggregation')
common_flags.define_artefact('descriptors', 'aggregate_features')
common_flags.define_artefact('codebook', 'train_codebook')
common_flags.define_output('the index')
common_flags.define_workers(skips_photos=False)
common_flags.define_cluster(skips_photos=False)
common_flags.define_sorting()
FLAGS = flags.FLAGS


def main(_):
  common_flags.require_config()
  build_index.run(
    config_files.load_aggregation(FLAGS.config_path, overrides=FLAGS.override),
    Artefact.open(FLAGS.descriptors, 'descriptors'),
    Artefact.open(FLAGS.codebook, 'codebook'),
    pathlib.Path(FLAGS.output),
    workers=common_flags.cluster() or FLAGS.workers,
    memory_budget=common_flags.sorting_bytes(),
    redo=FLAGS.redo,
  )


if __name__ == '__main__':
  command_line.run(main)
