"""Measures the peak memory of extraction and aggregation for many photos, and resumes a killed run.

  python tests/benchmarks/benchmark_memory.py --counts 10000 100000

Photos are links to one tiny picture, and features are few and short, so that only the memory that grows with
the number of photos is visible. Every stage runs in its own process, which reports its peak of resident
memory and that of its largest worker. The run with the most photos is repeated, killed by SIGKILL at a random
moment and resumed: `same` tells whether all its shards are equal to those of the first run.
"""

import argparse
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import cv2
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

from benchmarks.measuring import print_table  # noqa: E402
from support import processes  # noqa: E402

from delf_d2r import config as configs  # noqa: E402
from delf_d2r.data.artefacts import artefact_writer, records  # noqa: E402
from delf_d2r.data.artefacts.artefact import Artefact, Input, Plan  # noqa: E402
from delf_d2r.data.photos.dataset import Dataset  # noqa: E402
from delf_d2r.stages import aggregate_features, extract_features, train_codebook  # noqa: E402
from delf_d2r.structures import ImageFeatures, LocalFeatures  # noqa: E402

CONFIG = configs.load_or_default(
  None,
  ['extraction', 'codebook', 'aggregation'],
  overrides=['extraction { max_features: 20 } codebook { num_words: 32 iterations: 3 }'],
)
STAGES = ('extraction', 'aggregation')
DIMENSIONS = 128
FEATURES = 12
TRAINING_PHOTOS = 200


def parse_flags():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--counts', type=int, nargs='+', default=[10_000, 100_000])
  parser.add_argument('--stages', nargs='+', choices=STAGES, default=STAGES)
  parser.add_argument('--workers', type=int, default=2)
  parser.add_argument('--cluster', default='', help='address of a Ray cluster, or local, to work on')
  parser.add_argument('--seed', type=int, default=0, help='of the features and of the moment of the kill')
  parser.add_argument('--measure', nargs=3, help=argparse.SUPPRESS)
  return parser.parse_args()


def main():
  flags = parse_flags()
  if flags.measure:
    measure(flags)
    return
  rows = []
  with tempfile.TemporaryDirectory() as folder:
    for stage in flags.stages:
      for count in flags.counts:
        material = pathlib.Path(folder) / f'{stage}-{count}'
        material.mkdir()
        prepare(stage, count, material, flags.seed)
        rows.append((stage, count, *run(stage, material, material / 'made', flags)))
      same = resumes_to_the_same(stage, material, flags)
      rows[-1] = (*rows[-1][:-1], 'yes' if same else 'NO')
  print_table(
    ('stage', 'photos', 'CPU s', 'main at start MB', 'main peak MB', 'largest worker peak MB', 'same'), rows
  )


def prepare(stage: str, count: int, material: pathlib.Path, seed: int) -> None:
  if stage == 'extraction':
    write_photos(material / 'photos', count)
    return
  rng = np.random.default_rng(seed)
  few = write_features(material / 'few', TRAINING_PHOTOS, rng)
  train_codebook.run(CONFIG, few, material / 'codebook')
  write_features(material / 'features', count, rng)


def write_photos(folder: pathlib.Path, count: int) -> None:
  folder.mkdir()
  noise = np.random.default_rng(0).integers(0, 255, (6, 6, 3), np.uint8)
  first = folder / '000' / '000000.png'
  for number in range(count):
    photo = folder / f'{number // 1000:03d}' / f'{number:06d}.png'
    if number % 1000 == 0:
      photo.parent.mkdir()
    if number % 50_000 == 0:  # A file has a limited number of links.
      first = photo
      cv2.imwrite(str(photo), cv2.resize(noise, (24, 24), interpolation=cv2.INTER_CUBIC))
    else:
      photo.hardlink_to(first)


def write_features(path: pathlib.Path, count: int, rng: np.random.Generator) -> Artefact:
  config = configs.resolve(type(CONFIG)(extraction=CONFIG.extraction))
  with artefact_writer.writing(
    path, Plan('features', config, (Input('images', str(count), path),))
  ) as writer:
    for shard in writer.ledger.missing(count, 1024):
      with writer.ledger.write(shard) as file:
        for item in shard.items:
          data = records.encode_features(features(f'{item:06d}.jpg', rng))
          file.add(data, images=1, features=FEATURES, whole_features=FEATURES)
    return writer.finish()


def features(name: str, rng: np.random.Generator) -> ImageFeatures:
  descriptors = rng.standard_normal((FEATURES, DIMENSIONS), np.float32)
  descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
  ones = np.ones(FEATURES, np.float32)
  locations = rng.uniform(0, 100, (FEATURES, 2)).astype(np.float32)
  local = LocalFeatures(locations, ones, ones, descriptors)
  return ImageFeatures(name, 100, 100, np.array([[0, 0, 1, 1]], np.float32), np.array([0, FEATURES]), local)


def measure(flags) -> None:
  """Runs one stage in this process and tells its memory."""
  stage, material, output = flags.measure[0], *map(pathlib.Path, flags.measure[1:])
  workers = flags.workers
  if flags.cluster:
    from delf_d2r.distributed import cluster

    workers = cluster.pool(flags.cluster, workers=workers)
  at_start = processes.peak_bytes()
  workers_peak = watched_children()
  if stage == 'extraction':
    extract_features.run(CONFIG, Dataset.load(material / 'photos'), output, boxes=None, workers=workers)
  else:
    found, codebook = (Artefact.open(material / kind, kind) for kind in ('features', 'codebook'))
    aggregate_features.run(CONFIG, found, codebook, output, workers=workers)
  used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
  cpu = sum(usage.ru_utime + usage.ru_stime for usage in used)
  print(json.dumps([cpu, *(peak / 1e6 for peak in (at_start, processes.peak_bytes(), workers_peak[0]))]))


def watched_children() -> list[int]:
  """Returns the peak memory of the largest process below this one, for as long as this one lasts.

  What getrusage tells of children counts the memory of the parent that they were forked from.
  """
  largest = [0]

  def watch():
    while True:
      largest[0] = max([largest[0], *map(processes.peak_bytes, processes.descendants(os.getpid()))])
      time.sleep(0.2)

  threading.Thread(target=watch, daemon=True).start()
  return largest


def command(stage: str, material: pathlib.Path, output: pathlib.Path, flags) -> list[str]:
  own = [f'--workers={flags.workers}', f'--cluster={flags.cluster}']
  return [sys.executable, __file__, *own, '--measure', stage, str(material), str(output)]


def run(stage: str, material: pathlib.Path, output: pathlib.Path, flags) -> tuple:
  made = subprocess.run(
    command(stage, material, output, flags), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
  )
  return (*map(round, json.loads(made.stdout.splitlines()[-1])), '')


def resumes_to_the_same(stage: str, material: pathlib.Path, flags) -> bool:
  """Kills a run at a random moment, when some of its shards are finished, and finishes it."""
  expected, output = material / 'made', material / 'killed'
  shards = shard_bytes(expected)
  moment = random.Random(flags.seed).randint(1, max(len(shards) - 1, 1))
  process = subprocess.Popen(
    command(stage, material, output, flags), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
  )
  while process.poll() is None and len(list(output.glob('*.tfrecord'))) < moment:
    time.sleep(0.01)
  os.kill(process.pid, signal.SIGKILL)
  process.wait()
  assert not (output / 'manifest.pbtxt').exists()
  run(stage, material, output, flags)
  same = shard_bytes(output) == shards
  shutil.rmtree(output)
  return same


def shard_bytes(artefact: pathlib.Path) -> dict[str, bytes]:
  return {file.name: file.read_bytes() for file in artefact.glob('*.tfrecord')}


if __name__ == '__main__':
  main()
