r"""Finds the boxes of every index image: by a detector, a uniform grid, a file, or none.

  d2r detect_boxes --config_path=configs/experiments/default.pbtxt --images=photos --output=out/boxes
  d2r detect_boxes --config_path=configs/experiments/random_boxes_rasmk_star.pbtxt --images=photos \
    --boxes_file=out/boxes --output=out/random_boxes

Config: the part `regions` of an experiment, or a RegionsConfig. A run that was stopped continues where it was
stopped. Photos that cannot be decoded are named in errors.jsonl. To apply other limits (regions.min_score,
...) to boxes that were detected already, give --override='regions.source: FILE' --boxes_file=out/boxes and
another --output.
"""

import pathlib

from absl import flags, logging

from delf_d2r import command_line, common_flags
from delf_d2r.data.artefacts import records
from delf_d2r.data.legacy import box_files
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.stages import detect_boxes

common_flags.define_config('regions')
common_flags.define_images()
common_flags.define_output('the boxes')
common_flags.define_workers()
common_flags.define_cluster()
flags.DEFINE_string(
  'boxes_file',
  None,
  'Boxes for source: FILE, or boxes that source: RANDOM imitates: a CSV file'
  ' image,ymin,xmin,ymax,xmax[,score], a directory that detect_boxes made, or a directory of .boxes'
  ' files of the tensorflow/models DELF code.',
)
flags.DEFINE_string(
  'legacy_output', None, 'Folder to write .boxes files of the tensorflow/models DELF code to, too.'
)
FLAGS = flags.FLAGS


def main(_):
  loaded = common_flags.load_config('regions')
  dataset = Dataset.load(
    FLAGS.images,
    ground_truth=FLAGS.ground_truth,
    query_images=FLAGS.query_images,
    exclude=FLAGS.exclude,
    strict=FLAGS.strict,
  )
  boxes = detect_boxes.run(
    loaded,
    dataset,
    pathlib.Path(FLAGS.output),
    boxes_path=FLAGS.boxes_file,
    workers=common_flags.cluster() or FLAGS.workers,
    strict=FLAGS.strict,
    redo=FLAGS.redo,
  )
  if FLAGS.legacy_output:
    count = box_files.write_directory(FLAGS.legacy_output, map(records.decode_boxes, boxes.records()))
    logging.info('%d .boxes files in %s', count, FLAGS.legacy_output)


if __name__ == '__main__':
  command_line.run(main)
