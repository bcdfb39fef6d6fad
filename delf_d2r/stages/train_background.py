"""train_background: descriptors of background photos to what a query scores with unrelated images.

`fusion.normalization: BACKGROUND` standardises the scores of both searches by it. Background photos show what
an index may show, each something else.
"""

import pathlib
from collections.abc import Iterator

import numpy as np
from absl import logging
from threadpoolctl import threadpool_limits

from delf_d2r import aggregator
from delf_d2r.data.artefacts import artefact_writer, background_files, codebook_files, records
from delf_d2r.data.artefacts.artefact import Artefact, Plan
from delf_d2r.data.artefacts.background_files import KIND, Background
from delf_d2r.errors import UserError
from delf_d2r.extractors import registry
from delf_d2r.kernels import background as kernels
from delf_d2r.protos.aggregation_pb2 import AggregationConfig
from delf_d2r.protos.experiment_pb2 import ExperimentConfig
from delf_d2r.runtime import progress
from delf_d2r.structures import AggregatedDescriptor


def run(descriptors: Artefact, other: Artefact, output: pathlib.Path, *, redo: bool = False) -> Artefact:
  """Measures a background model.

  Args:
    descriptors: the artefact of aggregate_features, of local features of background photos. Its config
      says how scores are computed.
    other: the same, of global descriptors of background photos: VLAD of one visual word.
    output: the artefact directory.
    redo: replace an artefact of other inputs.

  Returns:
    The artefact.

  Raises:
    UserError: the descriptors are of other kernels, too few, or of a codebook or network that is gone, or
      the output cannot be written.
  """
  _require_kernels(descriptors, other)
  options = descriptors.config.aggregation
  config = _joint_config(descriptors.config, other.config)
  inputs = (descriptors.as_input('descriptors'), other.as_input('other_descriptors'))
  with artefact_writer.writing(output, Plan(KIND, config, inputs), redo=redo) as writer:
    if writer.finished:
      return writer.reuse('background model')
    codebook = _codebook(descriptors)
    images = list(_whole_images(descriptors))
    rows = [image.values[0] for image in _whole_images(other) if len(image)]
    # Sums of several threads would depend on their number.
    with threadpool_limits(1, user_api='blas'):
      try:
        words = kernels.word_statistics(
          images,
          len(codebook_files.load_centroids(codebook)),
          kernel=aggregator.kernel(options),
          alpha=options.alpha,
          tau=options.tau,
          normalize=aggregator.normalizes(options),
        )
        global_statistics = kernels.descriptor_statistics(np.array(rows, np.float32))
      except ValueError as error:
        raise UserError(f'{descriptors.path}, {other.path}: {error}') from None
    found = Background(
      config, words, global_statistics, codebook_files.digest(codebook), _models(other), len(images)
    )
    background_files.save(found, output)
    counts = {'images': len(images), 'words': len(words.presence), 'dimensions': len(global_statistics.mean)}
    logging.info(
      'background model: %d photos, %d visual words, global descriptors of %d dimensions', *counts.values()
    )
    return writer.finish(counts)


def _require_kernels(descriptors: Artefact, other: Artefact) -> None:
  """Raises UserError unless the descriptors are of the kernels that have a background model."""
  options, global_options = descriptors.config.aggregation, other.config.aggregation
  name = AggregationConfig.Kernel.Name
  if not aggregator.kernel(options).is_selective or options.regions == AggregationConfig.REGIONAL_SEARCH:
    raise UserError(
      f'{descriptors.path}: of kernel {name(options.kernel)} and'
      f' {AggregationConfig.Regions.Name(options.regions)}, but a background model is of ASMK or ASMK_STAR'
      ' with one descriptor for each photo. Give such descriptors'
    )
  for field in ('use_idf', 'compat'):
    if getattr(options, field):
      raise UserError(
        f'{descriptors.path}: aggregation.{field} is true, which has no background model. Aggregate without'
        ' it'
      )
  if global_options.kernel != AggregationConfig.VLAD or other.config.codebook.num_words != 1:
    raise UserError(
      f'{other.path}: of kernel {name(global_options.kernel)} and {other.config.codebook.num_words} visual'
      ' words, but the other descriptors are global ones, VLAD of one word. Give such descriptors'
    )


def _joint_config(config: ExperimentConfig, other: ExperimentConfig) -> ExperimentConfig:
  """Returns the config of the local descriptors with that of the global ones in its part `fusion`."""
  joint = ExperimentConfig()
  for part in ('regions', 'extraction', 'codebook', 'aggregation'):
    if config.HasField(part):
      getattr(joint, part).CopyFrom(getattr(config, part))
  for part in ('extraction', 'codebook', 'aggregation'):
    getattr(joint.fusion, part).CopyFrom(getattr(other, part))
  return joint


def _whole_images(artefact: Artefact) -> Iterator[AggregatedDescriptor]:
  total = artefact.counts['images']
  for data in progress.track(artefact.records(), total=total, what='background', unit='images'):
    yield records.decode_descriptors(data).descriptors[0]


def _codebook(descriptors: Artefact) -> pathlib.Path:
  """Returns the codebook of descriptors; ArtefactError if it is gone or another one."""
  return descriptors.open_input('codebook', 'codebook', remedy='Aggregate again').path


def _models(descriptors: Artefact) -> dict[str, str]:
  """Returns the fingerprints of the networks that descriptors were extracted by, by role."""
  features = descriptors.open_input('features', 'features', remedy='Aggregate again')
  roles = registry.model_files(features.config.extraction).keys()
  return {item.role: item.fingerprint for item in features.inputs if item.role in roles}
