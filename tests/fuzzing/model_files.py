"""Readers of files of TensorFlow: checkpoints of codebooks, SavedModels of detectors and local features."""

import multiprocessing
import pathlib

import numpy as np
from fuzzing.reader import Reader
from fuzzing.valid_files import files_of

_KINDS = {
  'TensorFlow checkpoint': ('by_name', 'by_object'),
  'TensorFlow detector': ('detector_1', 'detector_2', 'detector_callable'),
  'TensorFlow DELF': ('delf_1', 'delf_2'),
}


def readers(folder: pathlib.Path) -> list[Reader]:
  """Returns all readers; writes valid files to `folder`.

  Another process writes them, because fuzz_readers.py forks, which is impossible after TensorFlow has run.
  """
  process = multiprocessing.get_context('spawn').Process(target=_make, args=(folder,))
  process.start()
  process.join()
  assert process.exitcode == 0
  reads = (_checkpoint, _detector, _local_features)
  return [
    Reader(name, tuple(files_of(folder / kind) for kind in kinds), read)
    for (name, kinds), read in zip(_KINDS.items(), reads, strict=True)
  ]


def _make(folder: pathlib.Path) -> None:
  from support import detection_models, local_feature_models

  from delf_d2r.models import codebook_checkpoint

  words = np.random.default_rng(0).random((8, 4), np.float32)
  for kind in ('by_name', 'by_object'):
    (folder / kind).mkdir(parents=True)
    codebook_checkpoint.write(folder / kind / 'codebook', words, name_based=kind == 'by_name')
  detection_models.write_tf1(folder / 'detector_1')
  detection_models.write_tf2(folder / 'detector_2')
  detection_models.write_tf2(folder / 'detector_callable', is_callable=True)
  local_feature_models.write_tf1(folder / 'delf_1')
  local_feature_models.write_tf2(folder / 'delf_2')


def _checkpoint(folder: pathlib.Path) -> None:
  from delf_d2r.models import codebook_checkpoint

  assert np.isfinite(codebook_checkpoint.read(folder)).all()


def _detector(folder: pathlib.Path) -> None:
  from delf_d2r.models.saved_models import detections

  (found,) = detections.load(str(folder)).detect(np.full((1, 64, 64, 3), 100, np.uint8))
  assert len(found.boxes) == len(found.scores) == len(found.classes)


def _local_features(folder: pathlib.Path) -> None:
  from delf_d2r.models.saved_models import local_features

  model = local_features.load(str(folder))
  found = model.extract(np.full((64, 64, 3), 100, np.uint8), np.ones(1, np.float32), max_features=10)
  assert len(found.boxes) == len(found.features) <= 10
