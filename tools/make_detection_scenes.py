r"""Composes scenes with exact boxes from photos of objects and of backgrounds.

  d2r make_detection_scenes --objects=covers --backgrounds=facades --backgrounds=indoors --output=out/scenes
  d2r make_detection_scenes --objects=photos --boxes=boxes.csv --backgrounds=facades --output=out/scenes \
    --override='detection_scenes { num_scenes: 10000 image_size: 512 }'

Without --boxes each photo of --objects is filled by one object, and its subfolder is the group of the object.
The output has the form of that of make_detection_records; image/object/group identifies the landmark or thing
that an object is. The same seed gives the same bytes. Photos that cannot be used are named in errors.jsonl.

Config: the part `detection_scenes` of an experiment, or a DetectionScenesConfig; by default its defaults.
"""

import pathlib

from absl import flags

from delf_d2r import command_line, common_flags, config
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.stages import make_detection_scenes
from delf_d2r.stages.shared.sharded import Options

common_flags.define_config('detection_scenes', default='')
flags.DEFINE_string('objects', None, 'Folder of photos of objects, subfolders included.', required=True)
flags.DEFINE_string(
  'boxes',
  None,
  'File of their boxes in any form that make_detection_records reads. Photos without boxes are not used.',
)
flags.DEFINE_multi_string(
  'backgrounds', None, 'Folder of photos without objects, subfolders included. Repeatable.', required=True
)
common_flags.define_exclude()
common_flags.define_output('train and validation')
common_flags.define_workers()
FLAGS = flags.FLAGS


def main(_):
  make_detection_scenes.run(
    config.load_or_default(FLAGS.config_path, ['detection_scenes'], overrides=FLAGS.override),
    ImageList.from_folder(FLAGS.objects, exclude=FLAGS.exclude, strict=FLAGS.strict),
    [
      ImageList.from_folder(folder, exclude=FLAGS.exclude, strict=FLAGS.strict)
      for folder in FLAGS.backgrounds
    ],
    pathlib.Path(FLAGS.output),
    boxes_path=FLAGS.boxes,
    options=Options(workers=FLAGS.workers, strict=FLAGS.strict, redo=FLAGS.redo),
  )


if __name__ == '__main__':
  command_line.run(main)
