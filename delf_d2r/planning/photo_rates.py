"""Detection and extraction, measured on a sample of photos."""

import csv
import functools
import pathlib
from collections.abc import Sequence

import numpy as np

from delf_d2r import config as configs
from delf_d2r.data.boxes.csv_file import COLUMNS
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.planning.costs import measure
from delf_d2r.planning.stage_rate import Quiet, Rate, bytes_of, rate_of
from delf_d2r.protos import experiment_pb2, regions_pb2
from delf_d2r.runtime import worker_pool
from delf_d2r.stages import detect_boxes, extract_features

_SEED = 0  # of random boxes


def of_photos(
  config: experiment_pb2.ExperimentConfig,
  photos: ImageList,
  work: pathlib.Path,
  *,
  boxes: int | None,
  workers: int,
) -> dict[str, Rate]:
  """The rates of `detection`, with a detector, and of `extraction`; see `measure_rates`.

  `features_few` and `features_many` in `work` are what was extracted.
  """
  detection, extraction = [], []
  finds = config.regions.source == regions_pb2.RegionsConfig.DETECTOR
  # Every fourth, since neighbours in a folder resemble each other.
  for size, names in (('few', photos.names[::4]), ('many', photos.names)):
    dataset = Dataset(ImageList(photos.root, names))
    found, features = work / f'boxes_{size}', work / f'features_{size}'
    find = functools.partial(detect_boxes.run, config, dataset, found, workers=workers)
    if finds:
      detection.append((len(names), measure(Quiet(find)), bytes_of(found)))
    if boxes is not None:
      regions = _file_of_boxes(names, boxes, work / f'boxes_{size}.csv')
      found = work / f'given_boxes_{size}'
      find = functools.partial(detect_boxes.run, regions, dataset, found, workers=workers)
    artefact = find()
    extracting = functools.partial(
      extract_features.run, config, dataset, features, boxes=artefact, workers=workers
    )
    extraction.append((len(names), measure(Quiet(extracting)), bytes_of(features)))
  measured = {'detection': detection, 'extraction': extraction}
  pool = {'workers': workers, 'cores': min(workers, worker_pool.available_cores())}
  return {stage: rate_of(*points, **pool) for stage, points in measured.items() if points}


def _file_of_boxes(names: Sequence[str], count: int, path: pathlib.Path) -> experiment_pb2.ExperimentConfig:
  """Writes `count` boxes at random places for each photo; the config that reads them."""
  rng = np.random.default_rng(_SEED)
  with open(path, 'w', encoding='utf-8', newline='') as file:
    rows = csv.writer(file)
    rows.writerow(COLUMNS)
    for name in names:
      for _ in range(count):
        size = rng.uniform(0.3, 0.7, 2)
        first = rng.uniform(0, 1 - size)
        rows.writerow((name, *first.round(4), *(first + size).round(4)))
  config = configs.default('regions')
  config.regions.source = regions_pb2.RegionsConfig.FILE
  config.regions.file_path = str(path)
  return config
