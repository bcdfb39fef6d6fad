"""Compares landmark detectors with the uniform grid: average precision and recall for each landmark.

  python tests/benchmarks/benchmark_detector.py --records='towers/train/detection-*' --model=detector_model

Records are those of make_detection_records. A detector must be evaluated on landmarks that it was not trained
on: give several pairs of --records and --model, in the same order, for cross-validation. The boxes of the
grid are, in this order, the whole photo, 2 x 2 and 3 x 3: its recall at 5 is that of the whole photo and its
quarters.
"""

import argparse
import glob
import pathlib
import statistics
import sys
import time
from collections import defaultdict

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

from benchmarks.measuring import print_table  # noqa: E402

from delf_d2r.data.artefacts import tfrecord  # noqa: E402
from delf_d2r.data.training import detection_examples  # noqa: E402
from delf_d2r.evaluation import detection_metrics  # noqa: E402
from delf_d2r.extractors import photo_boxes  # noqa: E402
from delf_d2r.geometry import boxes as box_geometry  # noqa: E402
from delf_d2r.protos.regions_pb2 import DetectorConfig  # noqa: E402

GRID = box_geometry.uniform_grid([1, 2, 3], overlap=0.3)


def examples(pattern: str):
  """Returns the photos of some shards that have a box."""
  for path in sorted(glob.glob(pattern)):
    for data in tfrecord.read_file(pathlib.Path(path)):
      example = detection_examples.decode(data)
      if len(example.boxes):
        yield example


def main(flags) -> None:
  truths, found = defaultdict(list), defaultdict(list)
  times = []
  for pattern, model in zip(flags.records, flags.model, strict=True):
    detector = photo_boxes.load_detector(DetectorConfig(model_path=model))
    for example in examples(pattern):
      image = example.image()
      start = time.perf_counter()
      (boxes,) = detector.batch([image])
      times.append(time.perf_counter() - start)
      truths[example.groups[0]].append(example.boxes)
      found[example.groups[0]].append(boxes)
  header = ('landmark', 'photos', 'boxes', 'AP@.5', *(f'recall at {k}' for k in detection_metrics.RECALL_AT))
  rows = []
  for group in sorted(truths):
    grid = [GRID] * len(truths[group])
    for name, boxes in ((group, found[group]), (f'{group}, uniform grid', grid)):
      metrics = detection_metrics.evaluate(truths[group], boxes)
      recalls = [metrics[f'recall@{k}'] for k in detection_metrics.RECALL_AT]
      ap50 = metrics['ap50'] if boxes is not grid else ''
      rows.append((name, len(boxes), sum(map(len, truths[group])), ap50, *recalls))
  print_table(header, rows)
  print(f'\nDetection takes {1e3 * statistics.median(times):.0f} ms a photo (median).')


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--records', action='append', required=True, help='Pattern of shards. Repeatable.')
  parser.add_argument('--model', action='append', required=True, help='SavedModel for them. Repeatable.')
  main(parser.parse_args())
