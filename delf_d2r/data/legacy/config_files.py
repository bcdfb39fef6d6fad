"""Converts configs of the tensorflow/models DELF code (docs/reference.md 1.4, 1.5, 3.6)."""

import pathlib
from collections.abc import Sequence
from typing import TypeVar

from absl import logging
from google.protobuf import text_format
from google.protobuf.message import Message

from delf_d2r import config as configs
from delf_d2r.errors import ConfigError
from delf_d2r.protos import aggregation_pb2, delf_legacy_config_pb2, experiment_pb2, extraction_pb2

Legacy = delf_legacy_config_pb2.DelfConfig
LegacyAggregation = delf_legacy_config_pb2.AggregationConfig
Aggregation = aggregation_pb2.AggregationConfig

_Message = TypeVar('_Message', bound=Message)
_KERNELS = {
  LegacyAggregation.VLAD: Aggregation.VLAD,
  LegacyAggregation.ASMK: Aggregation.ASMK,
  LegacyAggregation.ASMK_STAR: Aggregation.ASMK_STAR,
}


def parse(path: str | pathlib.Path) -> Legacy | None:
  """Parses a `delf_config`; returns None if the file is something else."""
  # Fields that no config of this project has at its top level.
  own = (
    'delf_local_config',
    'delf_global_config',
    'use_local_features',
    'use_global_features',
    'is_tf2_exported',
  )
  return _parse(path, Legacy(), own)


def parse_aggregation(path: str | pathlib.Path) -> LegacyAggregation | None:
  """Parses an `aggregation_config`; returns None if the file is something else."""
  own = (
    'codebook_size',
    'feature_dimensionality',
    'aggregation_type',
    'use_l2_normalization',
    'codebook_path',
    'use_regional_aggregation',
    'feature_batch_size',
  )
  return _parse(path, LegacyAggregation(), own)


def _parse(path: str | pathlib.Path, message: _Message, own: Sequence[str]) -> _Message | None:
  """Parses a message; returns None if the file is another one or has none of the message's own fields."""
  try:
    text_format.Parse(pathlib.Path(path).read_text(encoding='utf-8-sig'), message)
  except (OSError, UnicodeDecodeError, text_format.ParseError):
    return None
  return message if any(message.HasField(field) for field in own) else None


def load_extraction(
  path: str | pathlib.Path | None, *, overrides: Sequence[str] = ()
) -> experiment_pb2.ExperimentConfig:
  """Loads the part `extraction` of a config file of this project, or converts a `delf_config`.

  Without a path, the overrides are applied to the defaults.

  Raises:
    ConfigError: the file is neither, or contradicts itself.
  """
  legacy = parse(path) if path else None
  if legacy is None:
    return configs.load_or_default(path, ['extraction'], overrides=overrides)
  overrides = [configs.to_text(as_experiment(legacy)), *overrides]
  return configs.load_or_default(None, ['extraction'], overrides=overrides)


def load_aggregation(
  path: str | pathlib.Path | None, *, overrides: Sequence[str] = ()
) -> experiment_pb2.ExperimentConfig:
  """Loads the part `aggregation` of a config file of this project, or converts an `aggregation_config`.

  Of the latter, `codebook_path` and the sizes have no effect: the codebook is an input of its own. Without a
  path, the overrides are applied to the defaults.

  Raises:
    ConfigError: the file is neither, or contradicts itself.
  """
  legacy = parse_aggregation(path) if path else None
  if legacy is None:
    return configs.load_or_default(path, ['aggregation'], overrides=overrides)
  experiment = experiment_pb2.ExperimentConfig(aggregation=as_aggregation(legacy))
  return configs.load_or_default(None, ['aggregation'], overrides=[configs.to_text(experiment), *overrides])


def as_aggregation(config: LegacyAggregation) -> Aggregation:
  """Converts the `aggregation_config` of an index to one that makes the same descriptors and scores.

  Two peculiarities of scores are left out; `aggregation.compat` has them. That of queries says nothing more:
  queries have one region and, unless overridden, one visual word for each feature.

  Raises:
    ConfigError: the kernel is INVALID.
  """
  _refuse(config.aggregation_type not in _KERNELS, 'aggregation_type: INVALID', 'it is no kernel')
  converted = Aggregation(
    kernel=_KERNELS[config.aggregation_type],
    regions=Aggregation.REGIONAL_AGGREGATION if config.use_regional_aggregation else Aggregation.WHOLE_IMAGE,
    num_assignments=config.num_assignments,
    normalize=config.use_l2_normalization,
  )
  if converted.kernel != Aggregation.VLAD:
    converted.alpha, converted.tau = config.alpha, config.tau
  return converted


def as_experiment(config: Legacy) -> experiment_pb2.ExperimentConfig:
  """Converts a `delf_config` to a config that extracts the same features.

  If it requests both local features and global descriptors, only local features are extracted, because an
  artefact holds one kind. Its size limits apply to crops and whole images, and EXIF orientation is ignored.
  Three fields have no effect: is_tf2_exported, because the form of a SavedModel is detected, and layer_name
  and iou_threshold, which are constants of its graph. Paths remain relative to the working directory.

  Raises:
    ConfigError: a setting has no counterpart in this project.
  """
  _refuse(config.use_square_images, 'use_square_images: true', 'photos keep their aspect ratio')
  _refuse(
    not (config.use_local_features or config.use_global_features),
    'neither use_local_features nor use_global_features',
    'there is nothing to extract',
  )
  make = _local if config.use_local_features else _global
  converted = extraction_pb2.ExtractionConfig(
    max_image_size=_limit(config, 'max_image_size'),
    min_image_size=_limit(config, 'min_image_size'),
    max_crop_size=_limit(config, 'max_image_size'),
    min_crop_size=_limit(config, 'min_image_size'),
    apply_exif_orientation=False,
  )
  converted.MergeFrom(make(config))
  return experiment_pb2.ExperimentConfig(extraction=converted)


def _local(config: Legacy) -> extraction_pb2.ExtractionConfig:
  local = config.delf_local_config
  _refuse(
    local.use_resized_coordinates, 'use_resized_coordinates: true', 'locations refer to the original photo'
  )
  _refuse(local.use_pca and not local.HasField('pca_parameters'), 'use_pca', 'it needs pca_parameters')
  if config.use_global_features:
    logging.warning(
      'use_global_features: global descriptors are ignored; set use_local_features: false to extract them'
    )
  converted = extraction_pb2.ExtractionConfig(
    extractor=extraction_pb2.ExtractionConfig.DELF,
    max_features=local.max_feature_num,
    min_attention=local.score_threshold,
    delf=extraction_pb2.DelfConfig(model_path=config.model_path, image_scales=config.image_scales),
  )
  if local.use_pca:
    pca = local.pca_parameters
    converted.delf.pca.CopyFrom(
      extraction_pb2.DelfPcaConfig(
        mean_path=pca.mean_path,
        projection_matrix_path=pca.projection_matrix_path,
        dimensions=pca.pca_dim,
        whitening=pca.use_whitening,
      )
    )
    if pca.use_whitening:
      converted.delf.pca.variances_path = pca.pca_variances_path
  return converted


def _global(config: Legacy) -> extraction_pb2.ExtractionConfig:
  options = config.delf_global_config
  _refuse(
    options.use_pca,
    'delf_global_config.use_pca',
    'it reduces the descriptor of every scale before the sum, this project reduces the sum; set it to false,'
    ' as for all published models',
  )
  scales, chosen = list(config.image_scales), list(options.image_scales_ind)
  wrong = [position for position in chosen if not 0 <= position < len(scales)]
  _refuse(bool(wrong), f'image_scales_ind {wrong}', f'there are {len(scales)} image_scales')
  return extraction_pb2.ExtractionConfig(
    extractor=extraction_pb2.ExtractionConfig.GLOBAL,
    global_descriptor=extraction_pb2.GlobalConfig(
      model_path=config.model_path,
      image_scales=[scales[position] for position in chosen] if chosen else scales,
    ),
  )


def _limit(config: Legacy, field: str) -> int:
  """Converts a size limit: a negative value means no limit in a `delf_config`, 0 in this project."""
  value = getattr(config, field)
  _refuse(value == 0, f'{field}: 0', 'no pixel would be left; give -1 for no limit')
  return max(value, 0)


def _refuse(is_refused: bool, what: str, why: str) -> None:
  if is_refused:
    raise ConfigError(
      f'the config of the tensorflow/models DELF code has {what}, which cannot be converted: {why}. Change'
      ' it, or write a config of this package'
    )
