r"""Exports a DELF network as a SavedModel that extract_features and others can load.

  d2r export_delf --trained=out/delf --output=out/delf_model
  d2r export_delf --config_path=configs/training/X.pbtxt --weights=best.weights.h5 --output=out/delf_model
  d2r extract_features --override='extraction { extractor: DELF delf { model_path: "out/delf_model" } }' ...

The SavedModel has the signature of the exports of the tensorflow/models DELF code and can be loaded by
tf.saved_model.load and tensorflow_hub.load. model_card.md in it describes how it was made.
"""

import pathlib

from absl import flags

from delf_d2r import command_line, common_flags
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.errors import UserError
from delf_d2r.stages import export_delf

flags.DEFINE_string('trained', None, 'Directory that train_delf made.')
common_flags.define_config('training', default='')
flags.DEFINE_string(
  'weights', '', 'File .weights.h5 for the network of --config_path; by default its backbone_weights.'
)
flags.DEFINE_string('output', None, 'Directory of the SavedModel; must not exist.', required=True)
flags.DEFINE_string('name', 'DELF', 'Name of the model on its card.')
flags.DEFINE_string('notes', '', 'Text for the card: training data, licence, advice for users.')
flags.DEFINE_string('pca', '', 'Directory that train_pca made; the reduction becomes part of the model.')
flags.DEFINE_integer('pca_dimensions', 0, 'Number of components of the PCA to keep; 0 = all.', lower_bound=0)
flags.DEFINE_bool('whitening', False, 'Divide each component by its standard deviation.')
flags.DEFINE_float(
  'nms_iou',
  1.0,
  'Drop features whose patch overlaps a better one by a larger intersection over union; 1 drops none.',
)
flags.DEFINE_bool('half_weights', False, 'Store the weights in half precision, which halves the size.')
FLAGS = flags.FLAGS


def main(_):
  if bool(FLAGS.trained) == bool(FLAGS.config_path or FLAGS.override):
    raise UserError(
      'give either --trained, a directory of train_delf, or --config_path or --override with --weights'
    )
  options = export_delf.Options(
    name=FLAGS.name,
    notes=FLAGS.notes,
    pca=FLAGS.pca,
    dimensions=FLAGS.pca_dimensions,
    whitening=FLAGS.whitening,
    nms_iou=FLAGS.nms_iou,
    half_weights=FLAGS.half_weights,
  )
  output = pathlib.Path(FLAGS.output)
  if FLAGS.trained:
    export_delf.run_trained(Artefact.open(FLAGS.trained, 'delf'), output, options)
  else:
    loaded = common_flags.load_config('training')
    export_delf.run(loaded.training.model, FLAGS.weights, output, options)


if __name__ == '__main__':
  command_line.run(main)
