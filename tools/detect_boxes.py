"""Finds the boxes of every index image: a uniform grid, a file, or none.

  d2r detect_boxes --config_path=configs/experiments/sift_rasmk_star.pbtxt --images=photos --output=out/boxes

Config: the part `regions` of an experiment, or a RegionsConfig.
"""

import pathlib

from absl import flags

from delf_d2r import command_line, config
from delf_d2r.data.dataset import Dataset
from delf_d2r.stages import detect

command_line.define_config('regions')
command_line.define_images()
command_line.define_output('the boxes')
flags.DEFINE_string('boxes_file', None, 'CSV file image,ymin,xmin,ymax,xmax[,score], for source: FILE.')
FLAGS = flags.FLAGS


def main(_):
  dataset = Dataset.load(FLAGS.images, ground_truth=FLAGS.ground_truth, query_images=FLAGS.query_images)
  detect.run(
    config.load(FLAGS.config_path, ['regions'], overrides=FLAGS.override),
    dataset,
    pathlib.Path(FLAGS.output),
    boxes_path=FLAGS.boxes_file,
    redo=FLAGS.redo,
  )


if __name__ == '__main__':
  command_line.run(main)
