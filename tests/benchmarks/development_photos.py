"""Runs experiments on the development photos, which are beside the checkout, and prints one table.

  python tests/benchmarks/development_photos.py --dataset=landmarks --output=/tmp/landmarks

The data sets are those of development_sets.py.
"""

import pathlib

import development_sets as sets
from absl import flags

from delf_d2r import command_line, config
from delf_d2r.data.ground_truth import ground_truth
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.experiments import comparison, experiment
from delf_d2r.stages import extract_features, train_codebook

flags.DEFINE_enum('dataset', None, list(sets.SETS), 'Which photos.', required=True)
flags.DEFINE_string('output', None, 'Folder for artefacts and report.', required=True)
flags.DEFINE_multi_string(
  'config_path',
  ['configs/experiments/sift_asmk_star.pbtxt', 'configs/experiments/sift_rasmk_star.pbtxt'],
  'Experiments to compare.',
)
flags.DEFINE_multi_string('override', [], 'Change a field of all experiments. Repeatable.')
flags.DEFINE_bool(
  'facades_codebook', False, 'Train codebooks on 300 photos of facades instead of the index, as one should.'
)
FLAGS = flags.FLAGS


def train_codebooks(configs, output):
  """Returns a codebook for each experiment, trained on other photos than those that are searched."""
  dataset = Dataset(ImageList(sets.DATA / 'facades', sets.codebook_facades()))
  codebooks = {}
  for loaded in configs:
    features = extract_features.run(loaded, dataset, output / f'facades_{loaded.name}', boxes=None)
    folder = output / f'codebook_{loaded.name}'
    codebooks[loaded.name] = train_codebook.run(loaded, features, folder)
  return codebooks


def main(_):
  output = pathlib.Path(FLAGS.output)
  output.mkdir(parents=True, exist_ok=True)
  truth = output / 'ground_truth.json'
  ground_truth.save_json(sets.SETS[FLAGS.dataset](), truth)
  photos = sets.link_photos(output / 'photos')
  configs = [config.load(path, experiment.STAGES, overrides=FLAGS.override) for path in FLAGS.config_path]
  outcome = comparison.run(
    configs,
    Dataset.load(photos, ground_truth=truth),
    output,
    ground_truth=truth,
    boxes_path=sets.boxes_path(photos),
    codebooks=train_codebooks(configs, output) if FLAGS.facades_codebook else None,
  )
  print(comparison.table_text(outcome))
  print(outcome.page)


if __name__ == '__main__':
  command_line.run(main)
