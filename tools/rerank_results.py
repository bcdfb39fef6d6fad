"""Re-ranks the best images of rankings by spatial verification.

  d2r rerank_results --rankings=out/rankings --features=out/features --query_features=out/query_features \\
    --output=out/reranked

Local features are matched, and the images are ranked by the number of matches that agree on one affine
transform between the two photos. The output is evaluated like any rankings, and holds the inliers of
every pair.
"""

import pathlib

from absl import flags

from delf_d2r import command_line, common_flags, config
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.stages import rerank_results

common_flags.define_artefact('rankings', 'search_index --query_features')
common_flags.define_artefact('features', 'extract_features')
common_flags.define_artefact('query_features', 'extract_features --queries')
flags.DEFINE_string(
  'config_path', None, 'Config of an experiment, or a VerificationConfig; by default its defaults.'
)
flags.DEFINE_multi_string(
  'override', [], "Change a field, for example 'verification.num_images: 200'. Repeatable."
)
flags.DEFINE_string('ground_truth', None, 'Ground truth that lists the junk; only for verification.junk.')
flags.DEFINE_integer('workers', None, 'Threads; one for each core by default.', lower_bound=1)
common_flags.define_output('the verified rankings')
FLAGS = flags.FLAGS


def main(_):
  rerank_results.run(
    config.load_or_default(FLAGS.config_path, ['verification'], overrides=FLAGS.override),
    Artefact.open(FLAGS.rankings, 'rankings'),
    Artefact.open(FLAGS.features, 'features'),
    Artefact.open(FLAGS.query_features, 'features'),
    pathlib.Path(FLAGS.output),
    ground_truth_path=FLAGS.ground_truth,
    workers=FLAGS.workers,
    redo=FLAGS.redo,
  )


if __name__ == '__main__':
  command_line.run(main)
