r"""Extracts local features of photos and their boxes, or of the queries of a data set.

  d2r extract_features --config_path=configs/experiments/sift_rasmk_star.pbtxt --images=photos \
    --boxes=out/boxes --output=out/features
  d2r extract_features --config_path=... --images=photos --ground_truth=truth.json --queries \
    --output=out/query_features

Config: the part `extraction` of an experiment, an ExtractionConfig, or a delf_config of the tensorflow/models
DELF code. A run that was stopped continues where it was stopped. Photos that cannot be decoded are named in
errors.jsonl.
"""

import pathlib

from absl import flags

from delf_d2r import command_line, common_flags
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.legacy import config_files
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.errors import UserError
from delf_d2r.stages import extract_features

common_flags.define_config('extraction')
common_flags.define_images()
common_flags.define_output('the features')
common_flags.define_workers()
common_flags.define_cluster()
flags.DEFINE_string(
  'boxes', None, 'Directory that detect_boxes made; by default only whole images are extracted.'
)
flags.DEFINE_bool('queries', False, 'Extract the query images of --ground_truth, cropped to their boxes.')
FLAGS = flags.FLAGS


def main(_):
  common_flags.require_config()
  loaded = config_files.load_extraction(FLAGS.config_path, overrides=FLAGS.override)
  dataset = Dataset.load(
    FLAGS.images,
    ground_truth=FLAGS.ground_truth,
    query_images=FLAGS.query_images,
    exclude=FLAGS.exclude,
    strict=FLAGS.strict,
  )
  workers = common_flags.cluster() or FLAGS.workers
  options = {'workers': workers, 'strict': FLAGS.strict, 'redo': FLAGS.redo}
  output = pathlib.Path(FLAGS.output)
  if not FLAGS.queries:
    boxes = Artefact.open(FLAGS.boxes, 'boxes') if FLAGS.boxes else None
    extract_features.run(loaded, dataset, output, boxes=boxes, **options)
  elif dataset.queries is None or FLAGS.boxes:
    raise UserError('--queries needs --ground_truth, where the queries and their boxes are, and no --boxes')
  else:
    extract_features.run_queries(loaded, dataset.queries, output, **options)


if __name__ == '__main__':
  command_line.run(main)
