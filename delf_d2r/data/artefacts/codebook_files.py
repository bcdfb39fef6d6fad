"""The codebook on disk.

codebook.npy      float32 [K, D], the visual words
report.json       about its training
projections.npy   float32 [P, D, B], of residuals before their signs are taken, one for each of P kinds of
                  local features; and
word_kinds.npy    uint8 [K], the kind of each word. Both are missing where residuals are taken as they are.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from delf_d2r.codebook import Codebook, CodebookReport
from delf_d2r.data import files
from delf_d2r.data.artefacts.artefact import MANIFEST, read_manifest
from delf_d2r.errors import ArtefactError
from delf_d2r.kernels.projection import Projection
from delf_d2r.protos import codebook_pb2

CENTROIDS = 'codebook.npy'
REPORT = 'report.json'
PROJECTIONS = 'projections.npy'
WORD_KINDS = 'word_kinds.npy'


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
  save_report(document, directory)


def save_report(document: Mapping[str, Any], directory: pathlib.Path) -> None:
  """Writes `report.json`."""
  files.write_atomically(directory / REPORT, json.dumps(document, indent=1) + '\n')


def save_centroids(centroids: np.ndarray, directory: pathlib.Path) -> None:
  """Writes `codebook.npy`."""
  files.save_array(directory / CENTROIDS, np.asarray(centroids, np.float32))


def save_projection(projection: Projection, directory: pathlib.Path) -> None:
  """Writes `projections.npy` and `word_kinds.npy`."""
  files.save_array(directory / PROJECTIONS, projection.matrices)
  files.save_array(directory / WORD_KINDS, projection.kinds)


def copy(source: pathlib.Path, target: pathlib.Path) -> None:
  """Copies a codebook with its projection and its report."""
  copy_words(source, target)
  projection = load_projection(source)
  if projection is not None:
    save_projection(projection, target)


def copy_words(source: pathlib.Path, target: pathlib.Path) -> None:
  """Copies a codebook with its report, but without its projection."""
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


def load_projection(directory: pathlib.Path) -> Projection | None:
  """Returns the projection of a codebook, or None if it has none.

  Raises:
    ArtefactError: a file is missing that the manifest asks for, or damaged, of another form, not finite, or
      does not fit `codebook.npy`.
  """
  paths = directory / PROJECTIONS, directory / WORD_KINDS
  if not any(path.exists() for path in paths) and not _needs_projection(directory):
    return None
  matrices, kinds = map(files.load_array, paths)
  try:
    projection = Projection(np.array(matrices), np.array(kinds))
  except ValueError as error:
    raise ArtefactError(f'{paths[0]}: {error}. {_remedy(directory)}') from None
  expected = load_centroids(directory).shape
  found = len(kinds), projection.dimensions
  if found != expected:
    raise ArtefactError(
      f'{paths[0]}: is of {found[0]} visual words of {found[1]} dimensions, {CENTROIDS} has {expected[0]} of'
      f' {expected[1]}. {_remedy(directory)}'
    )
  if not np.isfinite(projection.matrices).all():
    raise ArtefactError(f'{paths[0]}: has values that are not finite. {_remedy(directory)}')
  return projection


def _needs_projection(directory: pathlib.Path) -> bool:
  """Returns whether the manifest, if there is one, says that residuals are projected."""
  path = directory / MANIFEST
  return path.is_file() and is_projected(read_manifest(path).config.codebook)


def is_projected(config: codebook_pb2.CodebookConfig) -> bool:
  """Returns whether codebooks of a config have a projection."""
  return bool(config.bits) or any(config.projection.kinds)


def load_bits(directory: pathlib.Path) -> int:
  """Returns the dimensions of aggregated descriptors: those of the projection, or D without one.

  Raises:
    ArtefactError: a file is missing or damaged.
  """
  projection = load_projection(directory)
  return projection.bits if projection is not None else int(load_centroids(directory).shape[1])


def digest(directory: pathlib.Path) -> str:
  """Returns a digest of the visual words and the projection of their residuals.

  Raises:
    ArtefactError: a file is missing or damaged.
  """
  found = hashlib.sha256(np.ascontiguousarray(load_centroids(directory)).data)
  projection = load_projection(directory)
  if projection is not None:
    for array in (projection.matrices, projection.kinds):
      found.update(np.ascontiguousarray(array).data)
  return found.hexdigest()[:16]


def named_digest(directory: pathlib.Path, config: codebook_pb2.CodebookConfig) -> str:
  """Returns the digest by which an index names its codebook, or '' if it does not.

  Indexes of codebooks that were trained without a projection are what they always were.

  Args:
    directory: of the codebook.
    config: of the codebook.
  """
  is_named = is_projected(config) or config.source == codebook_pb2.CodebookConfig.SHIPPED
  return digest(directory) if is_named else ''


def _remedy(directory: pathlib.Path) -> str:
  # A stage skips a finished artefact, even if it is damaged.
  return f'Delete {directory} and run its stage again'
