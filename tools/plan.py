"""Predicts time, memory, disk and cost of a run, from rates of this machine.

  d2r plan --images=1000000 --sample=DIR
  d2r plan --images=1000000 --sample=DIR --boxes=4 --memory=16 --price_per_hour=0.4
  d2r plan --images=1000000 --features=600 --override='codebook.num_words: 65536'

Runs the stages of the config on some photos of --sample, or on synthetic features, at two sizes, which takes
a few minutes. A machine without other work gives the best predictions. With --memory the table is followed by
the commands that fit into that memory.
"""

from absl import flags

from delf_d2r import command_line, common_flags, config
from delf_d2r.experiments import experiment, run_experiment
from delf_d2r.planning import plan

common_flags.define_config(None, default=run_experiment.DEFAULT_CONFIG)
flags.DEFINE(common_flags.CountParser(), 'images', None, 'Number of photos to plan for.', required=True)
flags.DEFINE_string(
  'sample', None, 'Folder of photos like those of the run; without it, synthetic features are measured.'
)
flags.DEFINE_integer(
  'sample_photos', 64, 'Number of photos of --sample to measure on.', lower_bound=plan.LEAST_PHOTOS
)
flags.DEFINE_integer(
  'boxes', None, 'Boxes of each photo; by default those of the config.', lower_bound=0, upper_bound=1000
)
flags.DEFINE_integer('features', 1000, 'Features of a whole image, without --sample.', lower_bound=1)
flags.DEFINE_integer('dimensions', 128, 'Dimensions of these features.', lower_bound=1)
flags.DEFINE_float('memory', None, 'Memory of the machine in GB.', lower_bound=0.1)
flags.DEFINE_float('price_per_hour', None, 'Price of the machine for an hour.', lower_bound=0)
flags.DEFINE_integer('workers', None, 'Processes; one for each core by default.', lower_bound=1)
flags.DEFINE_enum('format', 'text', ['text', 'json'], 'How the plan is printed.')
flags.DEFINE_string(
  'work', None, 'Folder for temporary artefacts, made if missing; by default that of the system.'
)
FLAGS = flags.FLAGS


def main(_):
  made = plan.measure_and_plan(
    config.load(FLAGS.config_path, experiment.STAGES, overrides=FLAGS.override),
    images=FLAGS.images,
    sample=FLAGS.sample,
    sample_photos=FLAGS.sample_photos,
    features=FLAGS.features,
    boxes=FLAGS.boxes,
    dimensions=FLAGS.dimensions,
    workers=FLAGS.workers,
    work=FLAGS.work,
    memory=1e9 * FLAGS.memory if FLAGS.memory else None,
    price_per_hour=FLAGS.price_per_hour,
    config_flags=[
      plan.flag('config_path', FLAGS.config_path),
      *(plan.flag('override', override) for override in FLAGS.override),
    ],
  )
  print({'text': plan.to_text, 'json': plan.to_json}[FLAGS.format](made))


if __name__ == '__main__':
  command_line.run(main)
