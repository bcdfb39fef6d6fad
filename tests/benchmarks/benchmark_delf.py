"""Compares extraction of DELF (1024 pixels, four boxes) with that of the tensorflow/models DELF code.

  python tests/benchmarks/benchmark_delf.py [--rounds=5]

That code (docs/reference.md 3.2, 4.2) has one call for the image and one for each crop, 7 scales, and the
network as it was trained. All rows have the same network and weights, so crops must give equal features; the
last column is their greatest difference. CPU seconds are the sum over all threads, which other work on the
machine affects least.
"""

import argparse
import pathlib
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

import numpy as np  # noqa: E402
from benchmarks.measuring import DEFAULT_PHOTOS, print_table  # noqa: E402

from delf_d2r import config as configs  # noqa: E402
from delf_d2r.data.photos.images import load_image  # noqa: E402
from delf_d2r.extractors import region_extractor  # noqa: E402
from delf_d2r.extractors.delf import DelfExtractor  # noqa: E402
from delf_d2r.extractors.region_extractor import RegionExtractor  # noqa: E402
from delf_d2r.extractors.resize import resize  # noqa: E402
from delf_d2r.models.delf import export, network, pyramid  # noqa: E402
from delf_d2r.models.saved_models.local_features import LocalFeatureModel  # noqa: E402
from delf_d2r.protos import delf_model_pb2, extraction_pb2  # noqa: E402
from delf_d2r.runtime import worker_pool  # noqa: E402
from delf_d2r.structures import Boxes  # noqa: E402

# Of the sizes that a detector of landmarks finds: 16 to 64 % of the photo.
BOXES = Boxes.from_coordinates(
  [[0.1, 0.1, 0.9, 0.9], [0.2, 0.3, 0.8, 0.8], [0.0, 0.0, 0.6, 0.5], [0.6, 0.4, 1.0, 0.8]]
)
Config = extraction_pb2.ExtractionConfig
REFERENCE = 'as in tensorflow/models'


def alternate(functions: dict, *, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
  """Returns the median wall and CPU seconds of each function, called in turn after a round of warming up."""
  wall, cpu = ({name: [] for name in functions} for _ in range(2))
  for round_number in range(rounds + 1):
    for name, function in functions.items():
      start = time.perf_counter(), time.process_time()
      function()
      if round_number:
        wall[name].append(time.perf_counter() - start[0])
        cpu[name].append(time.process_time() - start[1])
  return tuple({name: statistics.median(own) for name, own in times.items()} for times in (wall, cpu))


def options(model_path: str, region_features=Config.CROP) -> Config:
  config = configs.default('extraction').extraction
  config.extractor, config.region_features = Config.DELF, region_features
  config.delf.model_path = model_path
  return configs.resolve(config)


def reference_extraction(model: network.Delf, config: Config) -> RegionExtractor:
  """Returns an extractor that calls the trained network, unprepared, for one crop at a time."""
  import tensorflow as tf

  @tf.function(
    input_signature=[
      tf.TensorSpec([None, None, 3], tf.uint8),
      tf.TensorSpec([None], tf.float32),
      tf.TensorSpec([], tf.int32),
      tf.TensorSpec([], tf.float32),
    ]
  )
  def run(image, scales, most, threshold):
    return pyramid.select(pyramid.extract(model, image[None], scales), most, threshold)

  def function(*, input_image, input_scales, input_max_feature_num, input_abs_thres):
    return run(input_image, input_scales, input_max_feature_num, input_abs_thres)

  loaded = LocalFeatureModel('as trained', 'TensorFlow 2', function)
  return RegionExtractor(DelfExtractor(loaded, config.delf, max_features=1000, min_attention=0), config)


class Worker:
  """Makes the function of one process."""

  def __init__(self, config: Config):
    self.config = config.SerializeToString()

  def __call__(self):
    extractor = region_extractor.build(Config.FromString(self.config))
    return lambda photo: len(extractor.extract('x', photo, BOXES).features)


def processes_seconds(config: Config, photos: list, *, workers: int) -> float:
  """Seconds a photo once all processes are at work."""
  # Each process has a few photos waiting before the first result is asked for; they warm it up.
  warm = 5 * workers
  results = worker_pool.map_ordered(Worker(config), [*(photos * warm)[:warm], *photos], workers=workers)
  for _ in range(warm):
    next(results)
  start = time.perf_counter()
  count = sum(1 for _ in results)
  return (time.perf_counter() - start) / count


def difference(a, b) -> str:
  """Returns the difference of the features of two extractions, by descending attention."""
  if len(a) != len(b):
    return f'{len(a)} and {len(b)} features'
  same = np.abs(a.locations - b.locations).max(axis=1) < 0.01
  apart = np.abs(a.descriptors[same] - b.descriptors[same]).max()
  return f'{np.mean(same):.4f} at the same place, those differ by {apart:.1e} at most'


def main(flags) -> None:
  paths = sorted(flags.photos.rglob('*.jpg'))[:: flags.every][: flags.count]
  photos = [resize(load_image(path), max_size=1024, min_size=1024) for path in paths]
  config = delf_model_pb2.DelfModelConfig(
    backbone_weights=flags.weights, attention=delf_model_pb2.DelfModelConfig.L2_NORM, reduced_dimensions=0
  )
  model = network.Delf(config)
  with tempfile.TemporaryDirectory() as folder:
    path = str(export.save(export.LocalFeatureModule(model), config, pathlib.Path(folder, 'model'), card={}))
    extractors = {
      REFERENCE: reference_extraction(model, options(path)),
      'crops': region_extractor.build(options(path)),
      'shared feature map': region_extractor.build(options(path, Config.SHARED_FEATURE_MAP)),
    }
    wall, cpu = alternate(
      {
        name: lambda extractor=extractor: extractor.extract('x', photos[0], BOXES)
        for name, extractor in extractors.items()
      },
      rounds=flags.rounds,
    )
    found = {name: extractor.extract('x', photos[0], BOXES) for name, extractor in extractors.items()}
    rows = [
      (name, wall[name], wall[REFERENCE] / wall[name], cpu[name], cpu[REFERENCE] / cpu[name],
       '' if name == 'shared feature map' else difference(found[name].features, found[REFERENCE].features))
      for name in extractors
    ]  # fmt: skip
    if flags.workers > 1:
      for name, region_features in (
        ('crops', Config.CROP),
        ('shared feature map', Config.SHARED_FEATURE_MAP),
      ):
        each = processes_seconds(options(path, region_features), photos, workers=flags.workers)
        rows.append((f'{name}, {flags.workers} processes', each, wall[REFERENCE] / each, '', '', ''))
  print_table(('one photo and 4 boxes', 's', 'times faster', 'CPU s', 'times less', 'features'), rows)


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--photos', type=pathlib.Path, default=DEFAULT_PHOTOS)
  parser.add_argument('--every', type=int, default=40, help='take each so manieth photo')
  parser.add_argument('--count', type=int, default=6)
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--workers', type=int, default=2, help='1: leave the processes out')
  parser.add_argument('--weights', default='imagenet', help="'' for random ones, which take as long")
  main(parser.parse_args())
