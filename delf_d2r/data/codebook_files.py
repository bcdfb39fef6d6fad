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


def save(codebook: Codebook, report: CodebookReport, directory: pathlib.Path) -> None:
  """Writes centroids, loss of each iteration and the quality report."""
  save_centroids(codebook.centroids, directory)
  document = {'loss': list(codebook.loss), **dataclasses.asdict(report)}
  files.write_atomically(directory / REPORT, json.dumps(document, indent=1) + '\n')


def save_centroids(centroids: np.ndarray, directory: pathlib.Path) -> None:
  """Writes `codebook.npy`."""
  files.save_array(directory / CENTROIDS, np.asarray(centroids, np.float32))


def load_centroids(directory: pathlib.Path) -> np.ndarray:
  """Reads `codebook.npy`: float32 [K, D], memory-mapped.

  Raises:
    ArtefactError: it is missing, damaged, of another form, or not finite.
  """
  path = directory / CENTROIDS
  centroids = files.load_array(path)
  if centroids.dtype != np.float32 or centroids.ndim != 2 or not len(centroids):
    raise ArtefactError(
      f'{path}: expected float32 [K, D], found {centroids.dtype} {centroids.shape}. Run train_codebook again'
    )
  if not np.isfinite(centroids).all():
    raise ArtefactError(f'{path}: has values that are not finite. Run train_codebook again')
  return centroids
