"""Compares the runtimes and precisions of the package's network: CPU time of a photo, and its features.

  python tests/benchmarks/benchmark_runtimes.py [--count=5]

The default config (configs/experiments/default.pbtxt) with its detector's boxes, one thread. Every photo has
another shape and is read once by each variant, in turn, as in a run; the first photos warm up. `signs`
is the share of components of DELF's descriptors, and of the global descriptor, whose sign is another one than
that of TensorFlow, at the places that both find.
"""

import os

for variable in (
  'OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'NUMBA_NUM_THREADS', 'TF_NUM_INTRAOP_THREADS',
  'TF_NUM_INTEROP_THREADS',
):  # fmt: skip
  os.environ[variable] = '1'

import argparse  # noqa: E402
import collections  # noqa: E402
import pathlib  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from benchmarks.measuring import DEFAULT_PHOTOS, print_table  # noqa: E402

from delf_d2r import config as configs  # noqa: E402
from delf_d2r.data.photos.images import load_image  # noqa: E402
from delf_d2r.engine import fused_search  # noqa: E402
from delf_d2r.extractors import delf, photo_boxes, region_extractor, root_sift  # noqa: E402
from delf_d2r.extractors.region_extractor import RegionExtractor  # noqa: E402
from delf_d2r.models.converted import runtimes  # noqa: E402
from delf_d2r.protos import extraction_pb2  # noqa: E402
from delf_d2r.structures import Boxes  # noqa: E402

Config = extraction_pb2.ExtractionConfig
WARMING = 2


def variants() -> dict[str, tuple[int, int]]:
  """Returns the runtime and the precision of each variant that can be run here."""
  wanted = {
    'TensorFlow': (Config.TENSORFLOW, Config.FLOAT32),
    'onnxruntime': (Config.ONNXRUNTIME, Config.FLOAT32),
    'onnxruntime int8': (Config.ONNXRUNTIME, Config.INT8),
    'OpenVINO': (Config.OPENVINO, Config.FLOAT32),
    'OpenVINO bfloat16': (Config.OPENVINO, Config.BFLOAT16),
    'OpenVINO int8': (Config.OPENVINO, Config.INT8),
  }
  return {
    name: choice
    for name, choice in wanted.items()
    if choice[0] == Config.TENSORFLOW or runtimes.is_installed(choice[0])
  }


def with_runtime(config: Config, runtime: int, precision: int) -> Config:
  changed = Config()
  changed.CopyFrom(config)
  changed.runtime, changed.precision = runtime, precision
  return changed


def changed_signs(ours: np.ndarray, theirs: np.ndarray) -> float:
  return float(np.mean(np.signbit(ours) != np.signbit(theirs)))


def common_signs(found, reference) -> float:
  """Returns the share of changed signs at the places that two extractions of a photo have in common."""
  keys = lambda one: {  # noqa: E731
    (*np.rint(place * 8).astype(int), int(1000 * scale)): k
    for k, (place, scale) in enumerate(zip(one.locations, one.scales, strict=True))
  }
  ours, theirs = keys(found), keys(reference)
  both = sorted(ours.keys() & theirs.keys())
  return changed_signs(
    found.descriptors[[ours[key] for key in both]], reference.descriptors[[theirs[key] for key in both]]
  )


def main(flags) -> None:
  cv2.setNumThreads(1)
  config = configs.load(ROOT / 'configs' / 'experiments' / 'default.pbtxt')
  second = fused_search.secondary_config(config).extraction
  detect = photo_boxes.build(config.regions)
  sift = RegionExtractor(root_sift.build(config.extraction), config.extraction)
  local, whole = {}, {}
  for name, choice in variants().items():
    local[name] = RegionExtractor(delf.build(with_runtime(config.extraction, *choice)), config.extraction)
    whole[name] = region_extractor.build(with_runtime(second, *choice))
  times: dict[tuple[str, str], list[float]] = collections.defaultdict(list)
  signs: dict[tuple[str, str], list[float]] = collections.defaultdict(list)

  def timed(part: str, name: str, function, *arguments):
    start = time.process_time()
    result = function(*arguments)
    times[part, name].append(1e3 * (time.process_time() - start))
    return result

  paths = sorted(flags.photos.rglob('*.jpg'))[:: flags.every][: flags.count + WARMING]
  for number, path in enumerate(paths):
    if number == WARMING:
      times.clear()
    photo = timed('decoding', '', load_image, path)
    boxes = timed('detection', '', detect, photo)
    timed('RootSIFT, photo', '', sift.extract, 'x', photo, Boxes.empty())
    timed('RootSIFT, photo and boxes', '', sift.extract, 'x', photo, boxes)
    reference = {}
    for name in local:
      alone = timed('DELF, photo', name, local[name].extract, 'x', photo, Boxes.empty())
      both = timed('DELF, photo and boxes', name, local[name].extract, 'x', photo, boxes)
      total = timed('global, photo and boxes', name, whole[name].extract, 'x', photo, boxes)
      found = {'DELF': alone.features, 'global': total.features, 'boxes': both.features}
      reference = reference or found
      signs['DELF', name].append(common_signs(found['DELF'], reference['DELF']))
      signs['global', name].append(
        changed_signs(found['global'].descriptors, reference['global'].descriptors)
      )
  mean = statistics.mean
  common = {part: mean(values) for (part, name), values in times.items() if not name}
  print_table(('part, one thread', 'CPU ms'), list(common.items()))
  shared = common['decoding'] + common['detection'] + common['RootSIFT, photo and boxes']
  rows = []
  for name in local:
    parts = [mean(times[part, name]) for part in ('DELF, photo', 'DELF, photo and boxes',
                                                  'global, photo and boxes')]  # fmt: skip
    rows.append(
      (name, *parts, shared + parts[1] + parts[2], mean(signs['DELF', name]), mean(signs['global', name]))
    )
  print_table(
    ('network by', 'DELF, photo', 'DELF, photo and boxes', 'global, photo and boxes', 'CPU ms, all parts',
     'signs of DELF', 'of global'),
    rows,
  )  # fmt: skip


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--photos', type=pathlib.Path, default=DEFAULT_PHOTOS)
  parser.add_argument('--every', type=int, default=37, help='take each so manieth photo')
  parser.add_argument('--count', type=int, default=6)
  main(parser.parse_args())
