"""Compares three kinds of features of boxes: of the crop, inside the box, and from shared feature maps.

  python tests/benchmarks/benchmark_region_features.py --output=/tmp/regions [--tasks clutter landmarks]

DELF alone, R-ASMK*; mean average precision in per cent with a uniform grid of 2 x 2 boxes and, for clutter,
with the true boxes; seconds of CPU for a photo with the four boxes of the grid. With the output of
benchmark_descriptors.py, its codebook and query features are reused.
"""

import argparse
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

from benchmarks import benchmark_descriptors as descriptors  # noqa: E402
from benchmarks import development_sets as sets  # noqa: E402
from benchmarks.measuring import print_table  # noqa: E402

from delf_d2r import config as configs  # noqa: E402
from delf_d2r.experiments import experiment  # noqa: E402
from delf_d2r.geometry.boxes import uniform_grid  # noqa: E402
from delf_d2r.protos.regions_pb2 import RegionsConfig as Regions  # noqa: E402
from delf_d2r.stages import train_codebook  # noqa: E402

WAYS = ('INSIDE', 'SHARED_FEATURE_MAP', 'CROP')
# What is measured with boxes from a file, beside the grid.
TRUE_BOXES = ('clutter',)
FROM_FILE = ('regions.source: FILE', 'aggregation.regions: REGIONAL_AGGREGATION')


def main(flags) -> None:
  def load(name: str, *changes: str):
    path = f'configs/experiments/{name}.pbtxt'
    return configs.load(path, experiment.STAGES, overrides=[*flags.override, *changes])

  flags.output.mkdir(parents=True, exist_ok=True)
  all_tasks = descriptors.make_tasks(flags.output)
  tasks = {name: all_tasks[name] for name in flags.tasks}
  plain = load('delf_asmk_star')
  features = descriptors.extract_parts(plain, all_tasks, flags.output, flags.workers)
  codebook = train_codebook.run(plain, features['facades'], flags.output / 'codebooks' / plain.name)
  paths = [flags.output / 'photos' / name for name in sets.landmarks().index_images[::60]]

  def measure(config, name: str, folder: str) -> str:
    task = tasks[name]
    given = {'codebook': codebook, 'query_features': features[task.queries]}
    if config.regions.source == Regions.NONE:
      given['features'] = descriptors.joined(
        [features[part] for part in task.index], task.dataset.images, flags.output / 'whole' / name
      )
    is_file = config.regions.source == Regions.FILE
    outcome = experiment.run(
      config,
      task.dataset,
      flags.output / 'regions' / name / folder,
      ground_truth=task.truth,
      boxes_path=sets.boxes_path(flags.output / 'photos') if is_file else None,
      given=given,
      options=experiment.Options(workers=flags.workers),
    )
    return descriptors.measured(outcome)

  whole = [measure(plain, name, 'no_boxes') for name in tasks]
  with_file = [name for name in tasks if name in TRUE_BOXES]
  rows = [('no boxes', *([''] * len(with_file)), *whole, descriptors.cpu_seconds(plain, paths))]
  print(rows[-1], flush=True)
  for way in WAYS:
    change = f'extraction.region_features: {way}'
    grid = load('delf_rasmk_star', change)
    from_file = load('delf_asmk_star', change, *FROM_FILE)
    uniform = grid.regions.uniform
    boxes = uniform_grid(uniform.boxes_per_side, overlap=uniform.overlap)
    row = [
      way,
      *(measure(from_file, name, f'{way.lower()}_true') for name in with_file),
      *(measure(grid, name, f'{way.lower()}_grid') for name in tasks),
      descriptors.cpu_seconds(grid, paths, boxes),
    ]
    rows.append(tuple(row))
    print(rows[-1], flush=True)
  header = (*(f'{name}, true boxes' for name in with_file), *(f'{name}, grid' for name in tasks))
  print_table(('features of boxes', *header, 'CPU s/photo'), rows)


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--output', type=pathlib.Path, required=True)
  parser.add_argument('--tasks', nargs='+', default=['clutter', 'landmarks'])
  parser.add_argument('--override', action='append', default=[], help='change a field of all; repeatable')
  parser.add_argument('--workers', type=int, default=None)
  main(parser.parse_args())
