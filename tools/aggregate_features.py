r"""Aggregates local features: VLAD, ASMK, ASMK* and their regional forms.

  d2r aggregate_features --config_path=configs/experiments/sift_rasmk_star.pbtxt --features=out/features \
    --codebook=out/codebook --output=out/descriptors

Config: the part `aggregation` of an experiment, or an AggregationConfig, of this package or of the
tensorflow/models DELF code.
"""

import pathlib

from absl import flags

from delf_d2r import command_line, common_flags
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.legacy import config_files
from delf_d2r.stages import aggregate_features

common_flags.define_config('aggregation')
common_flags.define_artefact('features', 'extract_features')
common_flags.define_artefact('codebook', 'train_codebook')
common_flags.define_output('the aggregated descriptors')
common_flags.define_workers()
common_flags.define_cluster()
FLAGS = flags.FLAGS


def main(_):
  common_flags.require_config()
  aggregate_features.run(
    config_files.load_aggregation(FLAGS.config_path, overrides=FLAGS.override),
    Artefact.open(FLAGS.features, 'features'),
    Artefact.open(FLAGS.codebook, 'codebook'),
    pathlib.Path(FLAGS.output),
    workers=common_flags.cluster() or FLAGS.workers,
    strict=FLAGS.strict,
    redo=FLAGS.redo,
  )


if __name__ == '__main__':
  command_line.run(main)
