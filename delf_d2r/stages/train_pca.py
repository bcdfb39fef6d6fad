"""train_pca: local features to the linear map that reduces them."""

import pathlib

import numpy as np
from absl import logging

from delf_d2r.data.artefacts import artefact_writer, feature_files, pca_files
from delf_d2r.data.artefacts.artefact import Artefact, Plan
from delf_d2r.errors import UserError
from delf_d2r.kernels.pca import Covariance
from delf_d2r.protos import experiment_pb2
from delf_d2r.runtime import progress

KIND = 'pca'


def run(features: Artefact, output: pathlib.Path, *, redo: bool = False) -> Artefact:
  """Computes all principal components of the whole-image features of an artefact, in one pass.

  Writes mean, components and variances as `.npy` and as `.datum` of the tensorflow/models DELF code.

  Args:
    features: the artefact of extract_features, not reduced by another PCA.
    output: the artefact directory.
    redo: replace an artefact of other features.

  Returns:
    The artefact.

  Raises:
    UserError: there are fewer descriptors than dimensions, or the output cannot be written.
  """
  require_unreduced(features)
  merged = experiment_pb2.ExperimentConfig(extraction=features.config.extraction)
  if features.config.HasField('regions'):
    merged.regions.CopyFrom(features.config.regions)
  plan = Plan(KIND, merged, (features.as_input('features'),))
  with artefact_writer.writing(output, plan, redo=redo) as writer:
    if writer.finished:
      return writer.reuse('pca')
    covariance = _covariance(features)
    pca = covariance.pca()
    pca_files.save(pca, output)
    variances = np.asarray(pca.variances)
    shares = np.cumsum(variances) / max(variances.sum(), np.finfo(np.float32).tiny)
    kept = [d for d in (32, 40, 64, 128, 256, 512) if d < pca.dimensions]
    logging.info(
      'pca: %d descriptors of %d dimensions; share of variance in the first %s',
      covariance.count,
      pca.dimensions,
      ', '.join(f'{d}: {shares[d - 1]:.3f}' for d in kept) or f'{pca.dimensions}: 1',
    )
    return writer.finish({'descriptors': covariance.count, 'dimensions': pca.dimensions})


def require_unreduced(features: Artefact) -> None:
  """Raises UserError if the features are reduced already."""
  for part in ('delf', 'global_descriptor'):
    if getattr(features.config.extraction, part).HasField('pca'):
      raise UserError(
        f'{features.path}: these features are reduced by a PCA. Extract them without extraction.{part}.pca'
      )


def _covariance(features: Artefact) -> Covariance:
  covariance: Covariance | None = None
  total = features.counts['images']
  for image in progress.track(
    feature_files.read(features), total=total, what='descriptors for the PCA', unit='images'
  ):
    descriptors = image.region(0).descriptors
    covariance = covariance or Covariance(descriptors.shape[1])
    covariance.add(descriptors)
  dimensions = covariance.dimensions if covariance else 0
  found = covariance.count if covariance else 0
  if covariance is None or found < max(dimensions, 2):
    raise UserError(
      f'{features.path}: has {found} descriptors of {dimensions} dimensions; a PCA needs at least as many'
      ' descriptors as dimensions. Extract more photos'
    )
  return covariance
