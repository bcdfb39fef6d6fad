"""Converts extractor configs of the tensorflow/models DELF code (docs/reference.md 1.4, 3.6)."""

import pathlib
from collections.abc import Sequence

from absl import logging
from google.protobuf import text_format

from delf_d2r import config as configs
from delf_d2r.errors import ConfigError
from delf_d2r.protos import delf_legacy_config_pb2, experiment_pb2, extraction_pb2

Legacy = delf_legacy_config_pb2.DelfConfig


def parse(path: str | pathlib.Path) -> Legacy | None:
  """Parses a `delf_config`; returns None if the file is something else."""
  try:
    message = text_format.Parse(pathlib.Path(path).read_text(encoding='utf-8-sig'), Legacy())
  except (OSError, UnicodeDecodeError, text_format.ParseError):
    return None
  # Fields that no config of this project has at its top level.
  own = (
    'delf_local_config',
    'delf_global_config',
    'use_local_features',
    'use_global_features',
    'is_tf2_exported',
  )
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
      f'the delf_config has {what}, which cannot be converted: {why}. Change it, or write an ExtractionConfig'
    )
