"""Predicts time, memory, disk and cost of a run, from rates of this machine.

  d2r plan --images=1000000 --sample=DIR
  d2r plan --images=1000000 --sample=DIR --boxes=4 --memory=16 --price_per_hour=0.4
  d2r plan --images=1000000 --features=600 --override='codebook.num_words: 65536'

Runs the stages of the config on some photos of --sample, or on made features, at two sizes; that takes a few
minutes. Quiet machines give the best predictions. With --memory the table is followed by the commands that
fit into so much.
"""

import pathlib
import tempfile

from absl import flags

from delf_d2r import command_line, common_flags, config
from delf_d2r.data import files
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.errors import UserError
from delf_d2r.experiments import experiment
from delf_d2r.planning import plan, rates

common_flags.define_config('of every stage', default='configs/experiments/d2r_rasmk_star.pbtxt')
flags.DEFINE(common_flags.CountParser(), 'images', None, 'Number of photos to plan for.', required=True)
flags.DEFINE_string('sample', None, 'Folder of photos like those of the run; none: made features.')
flags.DEFINE_integer('sample_photos', 64, 'Photos of --sample to measure.', lower_bound=8)
flags.DEFINE_integer(
  'boxes', None, 'Boxes for each photo; by default those of the config.', lower_bound=0, upper_bound=1000
)
flags.DEFINE_integer('features', 1000, 'Features of the whole of an image, without --sample.', lower_bound=1)
flags.DEFINE_integer('dimensions', 128, 'Their dimensions.', lower_bound=1)
flags.DEFINE_float('memory', None, 'Memory of the machine, in GB.', lower_bound=0.1)
flags.DEFINE_float('price_per_hour', None, 'Of the machine.', lower_bound=0)
flags.DEFINE_integer('workers', None, 'Processes; one for each core by default.', lower_bound=1)
flags.DEFINE_enum('format', 'text', ['text', 'json'], 'How the plan is printed.')
flags.DEFINE_string(
  'work', None, 'Folder for what is made while measuring, made if missing; a temporary one by default.'
)
FLAGS = flags.FLAGS


def main(_):
  loaded = config.load(FLAGS.config_path, experiment.STAGES, overrides=FLAGS.override)
  photos = None
  if FLAGS.sample:
    every = ImageList.from_folder(FLAGS.sample)
    if len(every) < 8:
      raise UserError(f'{FLAGS.sample}: expected at least 8 photos, found {len(every)}')
    step = max(1, len(every) // FLAGS.sample_photos)
    photos = ImageList(every.root, every.names[::step][: FLAGS.sample_photos])
  parent = pathlib.Path(FLAGS.work or tempfile.gettempdir())
  with files.user_errors('cannot write', parent):
    parent.mkdir(parents=True, exist_ok=True)
    folder = tempfile.TemporaryDirectory(dir=parent)
  with folder as work:
    measured = rates.measure_rates(
      loaded,
      pathlib.Path(work),
      photos=photos,
      features=FLAGS.features,
      boxes=FLAGS.boxes,
      dimensions=FLAGS.dimensions,
      workers=FLAGS.workers,
    )
  made = plan.make_plan(
    loaded,
    measured,
    images=FLAGS.images,
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
