"""Compares boxes with controls: the ablation of the paper on cluttered scenes, with confidence intervals.

  python tests/benchmarks/benchmark_regions.py --detector=MODEL [--detector=MODEL] --output=DIR
  python tests/benchmarks/benchmark_regions.py --dataset=mini --detector=MODEL --output=DIR

Rows: no boxes, a uniform grid, the detected boxes (R-ASMK* as the paper has it, divided by the number of
visual words, and with region masks), boxes of their number and sizes at random positions in the same three
ways, regional search with the detected boxes, and the true boxes. Distractors have no true box: they get a
box of the size of one of a scene at a random position, so that every image has a box in that row. Differences
are paired by query, with a 95 % bootstrap interval.

The data set `clutter` is that of development_sets.py. A detector must not have been trained on the covers of
its scenes: the first of two detectors gets the scenes of covers 1 to 30 and every second distractor, the
second one the others.
"""

import argparse
import csv
import dataclasses
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

import numpy as np  # noqa: E402
from benchmarks import development_sets as sets  # noqa: E402
from benchmarks.measuring import print_table  # noqa: E402

from delf_d2r import config as configs  # noqa: E402
from delf_d2r.data.boxes import csv_file  # noqa: E402
from delf_d2r.data.ground_truth import ground_truth  # noqa: E402
from delf_d2r.data.photos.dataset import Dataset  # noqa: E402
from delf_d2r.data.photos.image_list import ImageList  # noqa: E402
from delf_d2r.data.photos.images import load_image  # noqa: E402
from delf_d2r.data.scenes import mini_benchmark  # noqa: E402
from delf_d2r.evaluation import metrics_files  # noqa: E402
from delf_d2r.evaluation.significance import bootstrap_interval  # noqa: E402
from delf_d2r.experiments import comparison, experiment  # noqa: E402
from delf_d2r.extractors import photo_boxes  # noqa: E402
from delf_d2r.geometry import boxes as box_geometry  # noqa: E402
from delf_d2r.protos.regions_pb2 import DetectorConfig  # noqa: E402
from delf_d2r.stages import evaluate_retrieval, extract_features, train_codebook  # noqa: E402
from delf_d2r.structures import Boxes  # noqa: E402

REGIONAL = 'aggregation.regions: REGIONAL_AGGREGATION'
DIVIDED = 'aggregation.normalize: true'
MASKS = 'aggregation.region_masks: true'


@dataclasses.dataclass(frozen=True)
class Task:
  """A data set with true boxes, and photos to train the codebook on; None: its own."""

  dataset: Dataset
  truth: pathlib.Path
  boxes: pathlib.Path
  codebook_photos: Dataset | None


def clutter(output: pathlib.Path) -> Task:
  truth = output / 'clutter.json'
  photos = sets.link_photos(output / 'photos')
  ground_truth.save_json(sets.clutter(), truth)
  codebook_photos = Dataset(ImageList(photos, sets.codebook_facades()))
  return Task(Dataset.load(photos, ground_truth=truth), truth, sets.boxes_path(photos), codebook_photos)


def mini(output: pathlib.Path) -> Task:
  made = mini_benchmark.generate(output / 'mini_benchmark')
  truth = made.ground_truth_path
  dataset = Dataset.load(made.images_dir, ground_truth=truth, query_images=made.queries_dir)
  return Task(dataset, truth, made.boxes_path, None)


def detected_boxes(task: Task, models: list[str]) -> dict[str, Boxes]:
  """Returns the boxes of each photo by the detector that was not trained on it."""
  detectors = [photo_boxes.load_detector(DetectorConfig(model_path=model)) for model in models]
  found = {}
  images = task.dataset.images
  for n, name in enumerate(images.names):
    is_scene = name in sets.SCENES
    fold = sets.SCENES.index(name) >= len(sets.SCENES) // 2 if is_scene else n % 2
    (boxes,) = detectors[int(fold) % len(detectors)].batch([load_image(images.path(name))])
    found[name] = box_geometry.select(boxes, min_score=0, min_area=0, max_overlap=1, max_boxes=0)
  return found


def true_boxes(task: Task) -> dict[str, Boxes]:
  """Returns the boxes of the file; images without one get one of the size of another at random."""
  names = task.dataset.images.names
  known = csv_file.read_boxes(task.boxes, names)
  templates = [Boxes(boxes.coordinates[:1], boxes.scores[:1]) for boxes in known.values() if len(boxes)]
  generator = np.random.default_rng(0)
  return {
    name: known.get(name)
    or box_geometry.random_placement(templates[generator.integers(len(templates))], generator)
    for name in names
  }


def write_boxes(boxes: dict[str, Boxes], path: pathlib.Path) -> pathlib.Path:
  with open(path, 'w', encoding='utf-8', newline='') as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow([*csv_file.COLUMNS, 'score'])
    for name, found in boxes.items():
      for box, score in zip(found.coordinates.tolist(), found.scores.tolist(), strict=True):
        writer.writerow([name, *(f'{side:.6f}' for side in box), f'{score:.6f}'])
  return path


def rows(detected: pathlib.Path, true: pathlib.Path, limits: str) -> dict[str, list[str]]:
  """Overrides of the base config for each row."""
  file = [f'regions {{ source: FILE file_path: "{detected}" {limits} }}']
  random = [f'regions {{ source: RANDOM random {{ like: "{detected}" }} {limits} }}']
  return {
    'no boxes': ['regions { source: NONE }', 'aggregation.regions: WHOLE_IMAGE'],
    'uniform 2 x 2': ['regions { source: UNIFORM uniform { boxes_per_side: 2 } }', REGIONAL],
    'detected': [*file, REGIONAL],
    'detected, divided': [*file, REGIONAL, DIVIDED],
    'detected, region masks': [*file, REGIONAL, MASKS],
    'random, sizes of detected': [*random, REGIONAL],
    'random, divided': [*random, REGIONAL, DIVIDED],
    'random, region masks': [*random, REGIONAL, MASKS],
    'detected, regional search': [*file, 'aggregation.regions: REGIONAL_SEARCH'],
    'true': [f'regions {{ source: FILE file_path: "{true}" }}', REGIONAL],
  }  # fmt: skip


def folder_name(row: str) -> str:
  return re.sub(r'\W+', '_', row)


def average_precisions(folder: pathlib.Path, protocol: str) -> np.ndarray:
  metrics = metrics_files.read_per_query(folder / 'metrics' / evaluate_retrieval.PER_QUERY)
  return np.array([query.average_precision for query in metrics.protocols[protocol].queries])


def difference(a: np.ndarray, b: np.ndarray) -> str:
  interval = bootstrap_interval(a, b, seed=0)
  return f'{100 * interval.mean:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]'


def main(flags) -> None:
  flags.output.mkdir(parents=True, exist_ok=True)
  task = {'clutter': clutter, 'mini': mini}[flags.dataset](flags.output)
  path = flags.output / 'detected.csv'
  if not path.exists():
    write_boxes(detected_boxes(task, flags.detector), path)
  true = write_boxes(true_boxes(task), flags.output / 'true.csv')
  overrides = {name: row for name, row in rows(path, true, flags.limits).items() if name not in flags.without}
  experiments = []
  for row in overrides:
    changes = [f'name: "{folder_name(row)}"', *overrides[row], *flags.override]
    experiments.append(configs.load(flags.config_path, experiment.STAGES, overrides=changes))
  options = experiment.Options(workers=flags.workers)
  codebooks = None
  if task.codebook_photos:
    photos = task.codebook_photos
    features = extract_features.run(
      experiments[0], photos, flags.output / 'codebook_features', boxes=None, workers=flags.workers
    )
    codebook = train_codebook.run(experiments[0], features, flags.output / 'codebook')
    codebooks = {config.name: codebook for config in experiments}
  outcome = comparison.run(
    experiments, task.dataset, flags.output, ground_truth=task.truth, codebooks=codebooks, options=options
  )
  scores = [average_precisions(flags.output / config.name, flags.protocol) for config in experiments]
  unboxed, random = scores[0], scores[list(overrides).index('random, sizes of detected')]
  table = [
    (
      name,
      f'{100 * np.nanmean(own):.1f}',
      difference(own, unboxed),
      difference(own, random),
      round(row.postings),
      round(row.index_bytes),
    )
    for name, own, row in zip(overrides, scores, outcome.rows, strict=True)
  ]
  header = ('boxes', f'mAP {flags.protocol}', 'over no boxes', 'over random boxes')
  print_table((*header, 'postings an image', 'index bytes an image'), table)


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--dataset', choices=['clutter', 'mini'], default='clutter')
  parser.add_argument('--protocol', choices=['easy', 'medium', 'hard'], default='medium')
  parser.add_argument('--detector', action='append', default=[], help='SavedModel. Repeatable.')
  parser.add_argument('--config_path', default='configs/experiments/delf_asmk_star.pbtxt')
  parser.add_argument('--limits', default='min_score: 0.1 max_overlap: 0.7 max_boxes: 5')
  parser.add_argument('--without', action='append', default=[], help='Row to leave out. Repeatable.')
  parser.add_argument('--override', action='append', default=[])
  parser.add_argument('--workers', type=int, default=2)
  parser.add_argument('--output', type=pathlib.Path, required=True)
  main(parser.parse_args())
