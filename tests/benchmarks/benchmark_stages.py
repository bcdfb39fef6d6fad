"""Measures every stage of a run: CPU time, wall time and peak memory of all its processes together.

  python tests/benchmarks/benchmark_stages.py --work=/tmp/stages

Runs the stages on the miniature benchmark (real photos, 12 queries), each in its own process. Memory is
private memory, without mapped files. benchmark_memory.py measures how it grows with the number of photos.
"""

import argparse
import functools
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

from benchmarks.measuring import print_table  # noqa: E402

from delf_d2r import config as configs  # noqa: E402
from delf_d2r.data.artefacts.artefact import Artefact  # noqa: E402
from delf_d2r.data.photos.dataset import Dataset  # noqa: E402
from delf_d2r.data.scenes import mini_benchmark  # noqa: E402
from delf_d2r.experiments import experiment  # noqa: E402
from delf_d2r.planning.costs import measure  # noqa: E402
from delf_d2r.planning.stage_rate import SilencedStage, bytes_of  # noqa: E402
from delf_d2r.stages import (  # noqa: E402
  aggregate_features,
  build_index,
  detect_boxes,
  extract_features,
  rerank_results,
  search_index,
  train_codebook,
)


def parse_flags():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--work', type=pathlib.Path, required=True, help='folder of what is made')
  parser.add_argument('--config_path', default='configs/experiments/mini/d2r_rasmk_star.pbtxt')
  parser.add_argument('--workers', type=int, default=2)
  return parser.parse_args()


def main() -> None:
  flags = parse_flags()
  overrides = ['verification { }']
  config = configs.load(flags.config_path, (*experiment.STAGES, 'verification'), overrides=overrides)
  made = mini_benchmark.generate(flags.work / 'photos')
  dataset = Dataset.load(made.images_dir, ground_truth=made.ground_truth_path, query_images=made.queries_dir)
  rows = []

  def run(kind: str, stage, *arguments, output: str = '', **options) -> Artefact:
    output = flags.work / (output or kind)
    cost = measure(SilencedStage(functools.partial(stage, config, *arguments, output, **options)))
    name = stage.__module__.rpartition('.')[2]
    rows.append((name, cost.cpu_seconds, cost.seconds, cost.memory / 1e6, bytes_of(output) / 1e6))
    return Artefact.open(output, kind)

  workers = {'workers': flags.workers}
  boxes = run('boxes', detect_boxes.run, dataset, **workers)
  features = run('features', extract_features.run, dataset, boxes=boxes, **workers)
  codebook = run('codebook', train_codebook.run, features)
  descriptors = run('descriptors', aggregate_features.run, features, codebook, **workers)
  index = run('index', build_index.run, descriptors, codebook, **workers)
  queries = run('features', extract_features.run_queries, dataset.queries, output='query_features', **workers)
  rankings = run('rankings', search_index.run, index, queries)
  run(
    'rankings',
    rerank_results.run,
    rankings,
    features,
    queries,
    output='reranked',
    ground_truth_path=made.ground_truth_path,
    **workers,
  )
  print(f'{len(dataset.images)} photos, {len(dataset.queries)} queries, {flags.workers} workers')
  print_table(('stage', 'CPU s', 'wall s', 'peak memory, MB', 'disk, MB'), rows)


if __name__ == '__main__':
  main()
