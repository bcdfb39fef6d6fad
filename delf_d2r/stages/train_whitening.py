"""train_whitening: labelled global descriptors to the map that brings those of one object together."""

import hashlib
import pathlib

import numpy as np
from absl import logging

from delf_d2r.data.artefacts import artefact_writer, feature_files, pca_files
from delf_d2r.data.artefacts.artefact import Artefact, Input, Plan
from delf_d2r.data.photos import object_labels
from delf_d2r.errors import UserError
from delf_d2r.kernels import whitening
from delf_d2r.protos import experiment_pb2
from delf_d2r.stages import train_pca


def run(
  config: experiment_pb2.ExperimentConfig,
  features: Artefact,
  output: pathlib.Path,
  *,
  labels_path: str | pathlib.Path | None = None,
  redo: bool = False,
) -> Artefact:
  """Learns a whitening, which is written and used like the PCA of train_pca.

  Args:
    config: its part `whitening` says how.
    features: global descriptors that extract_features made, not reduced by a PCA.
    output: the artefact directory.
    labels_path: see object_labels.load.
    redo: replace an artefact of another config or other labels.

  Returns:
    The artefact.

  Raises:
    UserError: no two photos show the same object, a photo does not have exactly one feature, or the output
      cannot be written.
  """
  train_pca.require_unreduced(features)
  names, descriptors = _global_descriptors(features)
  groups = object_labels.load(labels_path, names)
  merged = experiment_pb2.ExperimentConfig(extraction=features.config.extraction, whitening=config.whitening)
  inputs = (features.as_input('features'), _as_input(groups, labels_path or features.path))
  with artefact_writer.writing(output, Plan(train_pca.KIND, merged, inputs), redo=redo) as writer:
    if writer.finished:
      return writer.reuse('whitening')
    # Photos without a label say nothing about differences between objects.
    labelled = np.unique(np.concatenate(groups))
    groups = [np.searchsorted(labelled, group) for group in groups]
    try:
      learned = whitening.learn(descriptors[labelled], groups, shrinkage=config.whitening.shrinkage)
    except ValueError as error:
      raise UserError(f'{features.path}: {error}') from None
    pca_files.save(learned, output)
    counts = {'objects': len(groups), 'photos': len(labelled), 'dimensions': learned.dimensions}
    logging.info('whitening: %d objects, %d photos, %d dimensions', *counts.values())
    return writer.finish(counts)


def _global_descriptors(features: Artefact) -> tuple[list[str], np.ndarray]:
  """Returns the names [N] and descriptors float32 [N, D] of the whole images."""
  names, rows = [], []
  for image in feature_files.read(features):
    found = image.region(0).descriptors
    if len(found) != 1:
      raise UserError(
        f'{features.path}: {image.name} has {len(found)} features, but a whitening is learned from images of'
        ' one, their global descriptor. Extract with extractor: GLOBAL and pooling: GEM, or use train_pca'
      )
    names.append(image.name)
    rows.append(found)
  return names, np.concatenate(rows)


def _as_input(groups: list[np.ndarray], place: str | pathlib.Path) -> Input:
  """Returns the groups of images that show one object as the input of an artefact."""
  text = '\n'.join(' '.join(map(str, group)) for group in groups)
  return Input('labels', hashlib.sha256(text.encode()).hexdigest()[:16], pathlib.Path(place).resolve())
