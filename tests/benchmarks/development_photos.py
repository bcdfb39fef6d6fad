"""Runs experiments on the development photos beside the checkout and prints one table.

  python tests/benchmarks/development_photos.py --dataset=landmarks --output=/tmp/landmarks

landmarks: the `dev` photos; each is a query, leave-one-out, all photos of its landmark are positives.
dvd_covers: the reference photos are queries, the photos of four phones the index.
dvd_photos: the phones' photos are queries, the reference photos the index.
"""

import csv
import pathlib
from collections import defaultdict

from absl import flags

from delf_d2r import command_line, comparison, config, experiment
from delf_d2r.data import ground_truth
from delf_d2r.data.dataset import Dataset
from delf_d2r.data.ground_truth import GroundTruth, QueryGroundTruth
from delf_d2r.data.image_list import ImageList
from delf_d2r.stages import extract, train_codebook

DATA = pathlib.Path(__file__).resolve().parents[3] / 'shared' / 'data'
PHONES = ('Canon', 'Droid', 'E63', 'Palm')

flags.DEFINE_enum('dataset', None, ['landmarks', 'dvd_covers', 'dvd_photos'], 'Which photos.', required=True)
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


def landmarks() -> GroundTruth:
  by_landmark = defaultdict(list)
  with open(DATA / 'landmarks' / 'manifest.csv', encoding='utf-8') as file:
    for row in csv.DictReader(file):
      if row['split'] == 'dev':
        by_landmark[row['landmark']].append(row['path'])
  queries = [
    QueryGroundTruth(
      name=name, image=name, easy=tuple(other for other in names if other != name), junk=(name,)
    )
    for names in by_landmark.values()
    for name in names
  ]
  return GroundTruth('landmarks', tuple(query.image for query in queries), tuple(queries))


def dvd_covers() -> GroundTruth:
  numbers = [f'{number:03d}.jpg' for number in range(1, 61)]
  queries = [
    QueryGroundTruth(number, f'Reference/{number}', easy=tuple(f'{phone}/{number}' for phone in PHONES))
    for number in numbers
  ]
  index_images = [f'{phone}/{number}' for phone in PHONES for number in numbers]
  return GroundTruth('dvd_covers', tuple(index_images), tuple(queries))


def dvd_photos() -> GroundTruth:
  numbers = [f'{number:03d}.jpg' for number in range(1, 61)]
  queries = [
    QueryGroundTruth(f'{phone}/{number}', f'{phone}/{number}', easy=(f'Reference/{number}',))
    for phone in PHONES
    for number in numbers
  ]
  return GroundTruth('dvd_photos', tuple(f'Reference/{number}' for number in numbers), tuple(queries))


def train_codebooks(configs, output):
  """A codebook for each experiment, trained on other photos than those that are searched."""
  photos = ImageList.from_folder(DATA / 'facades')
  dataset = Dataset(ImageList(photos.root, photos.names[:300]))
  codebooks = {}
  for loaded in configs:
    features = extract.run(loaded, dataset, output / f'facades_{loaded.name}', boxes=None)
    folder = output / f'codebook_{loaded.name}'
    codebooks[loaded.name] = train_codebook.run(loaded, features, folder)
  return codebooks


def main(_):
  output = pathlib.Path(FLAGS.output)
  output.mkdir(parents=True, exist_ok=True)
  make = {'landmarks': landmarks, 'dvd_covers': dvd_covers, 'dvd_photos': dvd_photos}[FLAGS.dataset]
  truth = output / 'ground_truth.json'
  ground_truth.save_json(make(), truth)
  configs = [config.load(path, experiment.STAGES, overrides=FLAGS.override) for path in FLAGS.config_path]
  outcome = comparison.run(
    configs,
    Dataset.load(DATA / FLAGS.dataset.replace('photos', 'covers'), ground_truth=truth),
    output,
    ground_truth=truth,
    codebooks=train_codebooks(configs, output) if FLAGS.facades_codebook else None,
  )
  print(comparison.table_text(outcome))
  print(outcome.page)


if __name__ == '__main__':
  command_line.run(main)
