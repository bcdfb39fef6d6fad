r"""Makes records for training a detector, from photos and a file of their boxes.

  d2r make_detection_records --images=gld/train --boxes=boxes_split1.csv --validation_boxes=boxes_split2.csv \
    --landmarks=train.csv --output=out/gld_boxes --override='detection_records.max_image_size: 512'
  d2r make_detection_records --images=photos --boxes=boxes.csv --output=out/boxes

Boxes are Google Landmark Boxes (id,box), a CSV file image,ymin,xmin,ymax,xmax[,class][,group] with
coordinates in [0, 1], or COCO JSON. The output has directories train and validation, each with TFRecord
shards in the form of the TF Object Detection API, label_map.pbtxt and contact_sheet.png. Boxes and photos
that cannot be used are named in errors.jsonl. A run that was stopped continues where it was stopped.

Config: the part `detection_records` of an experiment, or a DetectionRecordsConfig; by default its defaults.
"""

import pathlib

from absl import flags

from delf_d2r import command_line, common_flags, config
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.stages import make_detection_records
from delf_d2r.stages.shared.sharded import Options

common_flags.define_config('detection_records', default='')
flags.DEFINE_string('images', None, 'Folder of photos, subfolders included.', required=True)
common_flags.define_exclude()
flags.DEFINE_string('boxes', None, 'File of their boxes.', required=True)
flags.DEFINE_string(
  'validation_boxes',
  None,
  'File of the boxes of other photos, for validation; by default a share of --boxes.',
)
flags.DEFINE_string('landmarks', None, "Google Landmarks' train.csv, which lists the landmark of each id.")
common_flags.define_output('train and validation')
common_flags.define_workers()
FLAGS = flags.FLAGS


def main(_):
  make_detection_records.run(
    config.load_or_default(FLAGS.config_path, ['detection_records'], overrides=FLAGS.override),
    ImageList.from_folder(FLAGS.images, exclude=FLAGS.exclude, strict=FLAGS.strict),
    FLAGS.boxes,
    pathlib.Path(FLAGS.output),
    validation_boxes_path=FLAGS.validation_boxes,
    landmarks_path=FLAGS.landmarks,
    options=Options(workers=FLAGS.workers, strict=FLAGS.strict, redo=FLAGS.redo),
  )


if __name__ == '__main__':
  command_line.run(main)
