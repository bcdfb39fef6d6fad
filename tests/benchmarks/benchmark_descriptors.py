"""Compares the default features with RootSIFT, DELF alone and a global descriptor, in one table.

  python tests/benchmarks/benchmark_descriptors.py --output=/tmp/descriptors [--workers=1]

Columns: mean average precision in per cent on the data sets of development_sets.py (those of DVD covers with
  200
facades as distractors) and on the mini benchmark of `d2r demo` (easy / medium / hard); bytes of the index of
landmarks and seconds of CPU for each photo. Codebooks are trained on 300 other facades. The last row adds the
scores of the global descriptor, times 0.5, to those of the default, both as z-scores over the index images of
a query. Every photo is extracted once for each row; an interrupted run resumes.
"""

import argparse
import dataclasses
import pathlib
import sys
import time
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

import numpy as np  # noqa: E402
from benchmarks import development_sets as sets  # noqa: E402
from benchmarks.measuring import print_table  # noqa: E402

from delf_d2r import config as configs  # noqa: E402
from delf_d2r.data.artefacts import artefact_writer, ranking_files, records  # noqa: E402
from delf_d2r.data.artefacts.artefact import Artefact, Plan  # noqa: E402
from delf_d2r.data.ground_truth import ground_truth  # noqa: E402
from delf_d2r.data.photos.dataset import Dataset  # noqa: E402
from delf_d2r.data.photos.image_list import ImageList  # noqa: E402
from delf_d2r.data.photos.images import load_image  # noqa: E402
from delf_d2r.data.scenes import mini_benchmark  # noqa: E402
from delf_d2r.evaluation import metrics_files, protocol  # noqa: E402
from delf_d2r.experiments import experiment  # noqa: E402
from delf_d2r.extractors import region_extractor  # noqa: E402
from delf_d2r.stages import evaluate_retrieval, extract_features, train_codebook  # noqa: E402
from delf_d2r.structures import Boxes  # noqa: E402

EXPERIMENTS = ('sift_asmk_star', 'delf_asmk_star', 'joined_asmk_star', 'gem_efficientnet_lite0')
FUSED = ('joined_asmk_star', 'gem_efficientnet_lite0')
WEIGHT = 0.5
PARTS = {
  'facades': sets.codebook_facades,
  'distractors': sets.distractors,
  'dvd_references': lambda: sets.REFERENCES,
  'dvd_phones': lambda: sets.PHOTOS,
  'scenes': lambda: sets.SCENES,
  'landmarks': lambda: sets.landmarks().index_images,
}
MINI = 'mini'


@dataclasses.dataclass(frozen=True)
class Task:
  """A data set as parts of the photos.

  Attributes:
    index: the parts that are searched.
    queries: the part that asks.
    truth: file of the ground truth.
    dataset: what both name.
  """

  index: tuple[str, ...]
  queries: str
  truth: pathlib.Path
  dataset: Dataset


def make_tasks(output: pathlib.Path) -> dict[str, Task]:
  """Returns the columns of the table."""
  photos = sets.link_photos(output / 'photos')

  def task(make, queries: str, *index: str) -> Task:
    truth = make()
    names = tuple(name for part in index for name in PARTS[part]())
    path = output / f'{truth.name}.json'
    ground_truth.save_json(dataclasses.replace(truth, index_images=names), path)
    return Task(index, queries, path, Dataset.load(photos, ground_truth=path))

  mini = mini_benchmark.generate(output / 'mini_benchmark')
  truth = mini.ground_truth_path
  dataset = Dataset.load(mini.images_dir, ground_truth=truth, query_images=mini.queries_dir)
  return {
    'landmarks': task(sets.landmarks, 'landmarks', 'landmarks'),
    'DVD photo -> reference': task(sets.dvd_photos, 'dvd_phones', 'dvd_references', 'distractors'),
    'DVD reference -> photos': task(sets.dvd_covers, 'dvd_references', 'dvd_phones', 'distractors'),
    'clutter': task(sets.clutter, 'dvd_references', 'scenes', 'distractors'),
    MINI: Task((MINI,), 'mini_queries', truth, dataset),
  }


def extract_parts(config, tasks: dict[str, Task], output: pathlib.Path, workers: int) -> dict[str, Artefact]:
  """Returns the features of every photo, by part."""
  folder, mini = output / 'features' / config.name, tasks[MINI].dataset
  photos = output / 'photos'
  parts = {name: Dataset(ImageList(photos, tuple(names()))) for name, names in PARTS.items()} | {MINI: mini}
  features = {
    name: extract_features.run(config, dataset, folder / name, boxes=None, workers=workers)
    for name, dataset in parts.items()
  }
  queries = folder / 'mini_queries'
  return features | {
    'mini_queries': extract_features.run_queries(config, mini.queries, queries, workers=workers)
  }


def joined(parts: Sequence[Artefact], images: ImageList, output: pathlib.Path) -> Artefact:
  """Returns the features of several parts as one artefact."""
  if len(parts) == 1:
    return parts[0]
  inputs = (images.as_input(), *(part.as_input(f'part {n}') for n, part in enumerate(parts)))
  with artefact_writer.writing(output, Plan('features', parts[0].config, inputs)) as writer:
    if writer.finished:
      return Artefact.open(output, 'features')
    for shard in writer.ledger.missing(len(parts), 1):
      with writer.ledger.write(shard) as file:
        for record in parts[shard.number].records():
          whole = len(records.decode_features(record).region(0))
          file.add(record, images=1, whole_features=whole)
    return writer.finish()


def run(config, tasks: dict[str, Task], output: pathlib.Path, workers: int) -> dict[str, experiment.Outcome]:
  """Returns one row: an experiment on every data set."""
  features = extract_parts(config, tasks, output, workers)
  codebook = train_codebook.run(config, features['facades'], output / 'codebooks' / config.name)
  outcomes = {}
  for name, task in tasks.items():
    folder = output / 'runs' / task.truth.stem / config.name
    index = joined([features[part] for part in task.index], task.dataset.images, folder / 'features')
    given = {'features': index, 'codebook': codebook, 'query_features': features[task.queries]}
    outcomes[name] = experiment.run(config, task.dataset, folder, ground_truth=task.truth, given=given)
  return outcomes


def percents(values) -> str:
  """Formats the mAP of medium, or of all three protocols if they differ."""
  found = [100 * values[name].mean_average_precision for name in ('easy', 'medium', 'hard')]
  return f'{found[1]:.1f}' if np.isnan(found[2]) else ' / '.join(f'{value:.1f}' for value in found)


def measured(outcome: experiment.Outcome) -> str:
  return percents(
    metrics_files.read_metrics_json(outcome.artefacts['metrics'].path / evaluate_retrieval.METRICS)
  )


def fused(outcomes: Sequence[experiment.Outcome], task: Task) -> str:
  """Evaluates z(first scores) + WEIGHT * z(second scores), where z is over the index images of a query."""
  first, second = (ranking_files.load(outcome.artefacts['rankings'].path) for outcome in outcomes)
  if first.image_names != second.image_names:
    sys.exit('the two rankings are over different index images')
  ids = []
  for one, other in zip(first.rankings, second.rankings, strict=True):
    sums = z_scores(one, first.image_names) + WEIGHT * z_scores(other, first.image_names)
    ids.append(np.argsort(-sums, kind='stable'))
  queries = ground_truth.resolve(ground_truth.load(task.truth), first.image_names)
  return percents(protocol.evaluate(ids, queries, protocol.KS).protocols)


def z_scores(ranking, image_names) -> np.ndarray:
  """Scores by image id, of mean 0 and deviation 1: float64 [M]."""
  scores = np.zeros(len(image_names))
  scores[ranking.image_ids] = ranking.scores
  return (scores - scores.mean()) / max(scores.std(), 1e-12)


def cpu_seconds(config, paths: Sequence[pathlib.Path], boxes: Boxes | None = None) -> float:
  """Returns the CPU seconds of all threads for a photo with boxes, from decoded pixels to features."""
  extractor = region_extractor.build(config.extraction)
  photos = [load_image(path) for path in paths]
  boxes = boxes or Boxes.empty()
  extractor.extract('', photos[0], boxes)
  start = time.process_time()
  for photo in photos:
    extractor.extract('', photo, boxes)
  return (time.process_time() - start) / len(photos)


def main(flags) -> None:
  flags.output.mkdir(parents=True, exist_ok=True)
  tasks = make_tasks(flags.output)
  timed = [flags.output / 'photos' / name for name in PARTS['landmarks']()[::30]]
  rows, made = [], {}
  for name in flags.experiments:
    config = configs.load(f'configs/experiments/{name}.pbtxt', experiment.STAGES, overrides=flags.override)
    made[name] = run(config, tasks, flags.output, flags.workers)
    counts = made[name]['landmarks'].artefacts['index'].counts
    rows.append(
      (
        name,
        *(measured(made[name][task]) for task in tasks),
        round(counts['index_bytes'] / counts['images']),
        cpu_seconds(config, timed),
      )
    )
    print(rows[-1], flush=True)
  if made.keys() >= set(FUSED):
    both = (f'{FUSED[0]} + {WEIGHT:g} {FUSED[1]}', [made[name] for name in FUSED])
    scores = [fused([outcomes[task] for outcomes in both[1]], tasks[task]) for task in tasks]
    rows.append((both[0], *scores, '', ''))
  print_table(('mAP', *tasks, 'index bytes/photo', 'CPU s/photo'), rows)


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--output', type=pathlib.Path, required=True)
  parser.add_argument('--experiments', nargs='+', default=EXPERIMENTS, help='names in configs/experiments')
  parser.add_argument('--override', action='append', default=[], help='change a field of all; repeatable')
  parser.add_argument('--workers', type=int, default=None)
  main(parser.parse_args())
