r"""Exports a landmark detector as a SavedModel that detect_boxes and others can load.

  d2r export_detector --trained=out/detector --output=out/detector_model --half_weights
  d2r detect_boxes --override='regions { source: DETECTOR detector { model_path: "out/detector_model" } }' ...

The SavedModel has the signature of TensorFlow's Object Detection API and needs only TensorFlow: it can be
loaded by tf.saved_model.load and tensorflow_hub.load. model_card.md in it describes how it was made.
"""

import pathlib

from absl import flags

from delf_d2r import command_line, common_flags
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.errors import UserError
from delf_d2r.stages import export_detector

flags.DEFINE_string('trained', None, 'Directory that train_detector made.')
common_flags.define_config('detector_training', default='')
flags.DEFINE_string('weights', '', 'File .weights.npz for the network of --config_path.')
flags.DEFINE_string('output', None, 'Directory of the SavedModel; must not exist.', required=True)
flags.DEFINE_string('name', 'Landmark detector', 'Name of the model on its card.')
flags.DEFINE_string('notes', '', 'Text for the card: training data, licence, advice for users.')
flags.DEFINE_bool('half_weights', False, 'Store the weights in half precision, which halves the size.')
flags.DEFINE_float(
  'min_score', None, 'Minimum score of the boxes in the output; by default that of the config.', 0, 1
)
flags.DEFINE_float(
  'nms_iou', None, 'Maximum intersection over union of two boxes; by default that of the config.', 0, 1
)
flags.DEFINE_integer(
  'max_detections', None, 'Maximum number of boxes; by default that of the config.', 1, 1000
)
FLAGS = flags.FLAGS


def main(_):
  if bool(FLAGS.trained) == bool(FLAGS.config_path or FLAGS.override):
    raise UserError(
      'give either --trained, a directory of train_detector, or --config_path or --override with --weights'
    )
  options = export_detector.Options(
    name=FLAGS.name,
    notes=FLAGS.notes,
    half_weights=FLAGS.half_weights,
    min_score=FLAGS.min_score,
    nms_iou=FLAGS.nms_iou,
    max_detections=FLAGS.max_detections,
  )
  output = pathlib.Path(FLAGS.output)
  if FLAGS.trained:
    export_detector.run_trained(Artefact.open(FLAGS.trained, 'detector'), output, options)
  else:
    loaded = common_flags.load_config('detector_training')
    export_detector.run(loaded.detector_training.model, FLAGS.weights, output, options)


if __name__ == '__main__':
  command_line.run(main)
