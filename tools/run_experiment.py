"""Runs every stage: photos to index and, with ground truth, to metrics and report.

  d2r run_experiment --images=photos --output=out
  d2r run_experiment --config_path=... --images=photos --ground_truth=truth.json --output=out
  d2r run_experiment ... --output=out --distractors=revisitop1m
  d2r run_experiment ... --output=out --cluster=HOST:PORT --gpus_per_worker=0.25

Stages that stand already and are still valid are skipped: run the same command again after a kill and it goes
on. Afterwards `d2r search_index --index=out --query=photo.jpg` answers photos. With --distractors the queries
are then asked among these, too, in out/with_distractors; all that was made before is used again as it is.
"""

import pathlib
import shlex

from absl import flags

from delf_d2r import command_line, common_flags, config
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.photos import distractor_list
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.experiments import distractors, experiment

common_flags.define_config('of every stage', default='configs/experiments/d2r_rasmk_star.pbtxt')
common_flags.define_images()
common_flags.define_output('the whole run')
common_flags.define_workers()
common_flags.define_cluster()
common_flags.define_sorting()
flags.DEFINE_string(
  'boxes_file',
  None,
  'Boxes for source: FILE or RANDOM: a CSV file or a directory, see d2r detect_boxes --help.',
)
flags.DEFINE_string(
  'codebook', None, 'Use the codebook that train_codebook made there, instead of training one.'
)
flags.DEFINE_string(
  'distractors',
  None,
  'Folder of photos to search among, beside those of --images: that of revisitop1m, or any other.',
)
flags.DEFINE_string('distractors_boxes_file', None, 'As --boxes_file, for the distractors.')
FLAGS = flags.FLAGS


def main(_):
  loaded = config.load(FLAGS.config_path, experiment.STAGES, overrides=FLAGS.override)
  dataset = Dataset.load(FLAGS.images, ground_truth=FLAGS.ground_truth, query_images=FLAGS.query_images)
  more = distractor_list.load(FLAGS.distractors) if FLAGS.distractors else None
  if more:
    # Now, not after all stages.
    distractor_list.require_disjoint(more, dataset)
  output = pathlib.Path(FLAGS.output)
  options = experiment.Options(
    FLAGS.workers,
    FLAGS.strict,
    FLAGS.redo,
    common_flags.cluster(),
    sorting_bytes=common_flags.sorting_bytes(),
  )
  outcome = experiment.run(
    loaded,
    dataset,
    output,
    ground_truth=FLAGS.ground_truth,
    boxes_path=FLAGS.boxes_file,
    given={'codebook': Artefact.open(FLAGS.codebook, 'codebook')} if FLAGS.codebook else None,
    options=options,
  )
  print(experiment.summary(outcome))
  print(f'report: {outcome.page}')
  if more:
    joined = distractors.run(
      loaded,
      outcome,
      more,
      output,
      ground_truth=FLAGS.ground_truth,
      boxes_path=FLAGS.distractors_boxes_file,
      options=options,
    )
    print(f'\namong {len(more):,} distractors\n{experiment.summary(joined)}')
    print(f'report: {joined.page}')
  print(f'search: {shlex.join(["d2r", "search_index", f"--index={output}", "--query=PHOTO"])}')


if __name__ == '__main__':
  command_line.run(main)
