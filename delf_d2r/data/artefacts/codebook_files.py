"""The codebook on disk: `codebook.npy`, float32 [K, D], and `report.json` about its training."""

import dataclasses
import json
import pathlib

import numpy as np

from delf_d2r.codebook import Codebook, CodebookReport
from delf_d2r.data import files
from delf_d2r.errors import ArtefactError

CENTROIDS = 'codebook.npy'
REPORT = 'report.json'


def save(
  codebook: Codebook, report: CodebookReport, directory: pathlib.Path, *, approximate_recall: float
) -> None:
  """Writes a codebook and its report.

  Args:
    codebook: the codebook.
    report: its quality, which is written with the loss of each iteration.
    directory: of the artefact.
    approximate_recall: recall@1 of approximate assignment with these centroids.
  """
  save_centroids(codebook.centroids, directory)
  document = {
    'approximate_recall': approximate_recall,
    **dataclasses.asdict(report),
    'loss': list(codebook.loss),
  }
  files.write_atomically(directory / REPORT, json.dumps(document, indent=1) + '\n')


def save_centroids(centroids: np.ndarray, directory: pathlib.Path) -> None:
  """Writes `codebook.npy`."""
  files.save_array(directory / CENTROIDS, np.asarray(centroids, np.float32))


def copy(source: pathlib.Path, target: pathlib.Path) -> None:
  """Copies a codebook with its report."""
  save_centroids(load_centroids(source), target)
  if (source / REPORT).is_file():
    files.write_atomically(target / REPORT, (source / REPORT).read_bytes())


def load_recall(directory: pathlib.Path) -> float:
  """Returns recall@1 of approximate assignment as measured in training.

  It is 0 if it is not known, so that approximate assignment is not used.

  Raises:
    ArtefactError: the report is damaged.
  """
  try:
    return float(files.parse_json((directory / REPORT).read_text(encoding='utf-8'))['approximate_recall'])
  except FileNotFoundError:
    return 0.0
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise ArtefactError(f'{directory / REPORT}: damaged ({error}). {_remedy(directory)}') from None


def load_centroids(directory: pathlib.Path) -> np.ndarray:
  """Opens `codebook.npy`, float32 [K, D], by memory map.

  Raises:
    ArtefactError: it is missing, damaged, of another form, or not finite.
  """
  path = directory / CENTROIDS
  centroids = files.load_array(path)
  if centroids.dtype != np.float32 or centroids.ndim != 2 or not len(centroids):
    raise ArtefactError(
      f'{path}: expected float32 [K, D], found {centroids.dtype} {centroids.shape}. {_remedy(directory)}'
    )
  if not np.isfinite(centroids).all():
    raise ArtefactError(f'{path}: has values that are not finite. {_remedy(directory)}')
  return centroids


def _remedy(directory: pathlib.Path) -> str:
  # A stage skips a finished artefact, even if it is damaged.
  return f'Delete {directory} and run its stage again'
