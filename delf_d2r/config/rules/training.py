"""Rules of `protos/training.proto`."""

from collections.abc import Iterator

from delf_d2r.config.rules.checks import Ranges, check_part_ranges, check_range, without_effect
from delf_d2r.errors import Problem
from delf_d2r.protos import training_pb2


def problems(config: training_pb2.TrainDelfConfig) -> Iterator[Problem]:
  """Yields the problems of a TrainDelfConfig."""
  for field in ('steps', 'batch_size', 'checkpoint_every', 'keep_checkpoints', 'encoder_start_photos'):
    yield from check_range(config, field, 1)
  for field in ('seed', 'summary_every', 'pictures_every', 'reader_threads'):
    yield from check_range(config, field, 0)
  yield from check_range(config, 'image_size', 32, 4096)
  yield from check_range(config, 'encoder_start_power', 0, 1)
  yield from check_range(config, 'class_balance', 0, 1)
  yield from check_range(config, 'photos_of_class', 0)
  yield from check_part_ranges(config, _RANGES)
  is_classification = config.objective == training_pb2.TrainDelfConfig.CLASSIFICATION
  if is_classification and config.HasField('warped_pairs'):
    yield without_effect('warped_pairs', 'objective: WARPED_PAIRS', 'CLASSIFICATION')
  if not is_classification and config.image_size % 32:
    yield Problem(
      'image_size',
      f'image_size is {config.image_size}; with objective WARPED_PAIRS it must be a multiple of 32, so that'
      ' the positions of the cells of the feature map are known',
    )
  yield from _global_head(config, is_classification)
  if config.augmentation.min_aspect_ratio > config.augmentation.max_aspect_ratio:
    yield Problem('augmentation.min_aspect_ratio', 'augmentation.min_aspect_ratio is above max_aspect_ratio')
  if any(not 0 < scale <= 8 for scale in config.validation.scales):
    yield Problem('validation.scales', 'validation.scales must be in (0, 8]')


def _global_head(config: training_pb2.TrainDelfConfig, is_classification: bool) -> Iterator[Problem]:
  """Yields the problems of what trains and measures the global head, and of the groups of a batch."""
  model, metrics = config.model, training_pb2.ValidationConfig
  objective = training_pb2.TrainDelfConfig.Objective.Name(config.objective)
  fields = {
    'global_start': config.HasField('global_start'),
    'loss.metric': config.loss.HasField('metric'),
    'loss.trimmed_share': config.loss.trimmed_share > 0,
    'class_balance': config.class_balance > 0,
    'photos_of_class': config.photos_of_class > 1,
  }
  for field in (field for field, is_set in fields.items() if is_set and not is_classification):
    yield without_effect(field, 'objective: CLASSIFICATION', objective)
  wanted = (config.validation.metric, *config.validation.also)
  fields = {
    'global_start': config.HasField('global_start'),
    'loss.metric': config.loss.HasField('metric'),
    'model.global_input_normalized': model.global_input_normalized,
    'model.arcface_sub_centers': model.arcface_sub_centers > 1,
    'validation.metric': metrics.GLOBAL_RETRIEVAL_MAP in wanted,
  }
  for field in (field for field, is_set in fields.items() if is_set and not model.global_dimensions):
    yield Problem(field, f'{field} is about the global head, but model.global_dimensions is 0: there is none')
  if config.photos_of_class > 1 and config.batch_size % config.photos_of_class:
    yield Problem(
      'photos_of_class',
      f'photos_of_class is {config.photos_of_class}, which does not divide batch_size {config.batch_size}',
    )
  if config.loss.HasField('metric') and config.photos_of_class < 2:
    yield Problem(
      'photos_of_class',
      f'photos_of_class is {config.photos_of_class}, but loss.metric compares photos of one class; set 4',
    )
  if config.validation.also:
    retrieval = (metrics.RETRIEVAL_MAP, metrics.GLOBAL_RETRIEVAL_MAP)
    if not set(wanted) <= set(retrieval):
      names = ', '.join(metrics.Metric.Name(metric) for metric in wanted)
      yield Problem(
        'validation.also',
        f'validation.also adds RETRIEVAL_MAP and GLOBAL_RETRIEVAL_MAP to each other, found {names}',
      )
  if config.global_start.photos < 0:
    yield Problem('global_start.photos', f'global_start.photos is {config.global_start.photos}; 0 means all')
  if not 0 <= config.global_start.power <= 1:
    yield Problem(
      'global_start.power', f'global_start.power is {config.global_start.power:g}; it must be in [0, 1]'
    )
  if config.loss.HasField('metric') and not config.loss.metric.temperature > 0:
    yield Problem(
      'loss.metric.temperature',
      f'loss.metric.temperature is {config.loss.metric.temperature:g}; it must be positive',
    )


# Inclusive bounds.
PHOTOMETRIC_RANGES: Ranges = {
  'brightness': (0, 1),
  'contrast': (0, 0.99),
  'saturation': (0, 0.99),
  'hue': (0, 0.5),
  'grey_probability': (0, 1),
  'noise': (0, 1),
  'blur': (0, 16),
  'min_jpeg_quality': (1, 100),
}
OPTIMIZER_RANGES: Ranges = {
  'learning_rate': (0, 10),
  'final_learning_rate': (0, 10),
  'warmup_steps': (0,),
  'momentum': (0, 0.9999),
  'clip_norm': (0,),
  'backbone_factor': (0, 100),
}
_RANGES: dict[str, Ranges] = {
  'augmentation': {
    'min_area': (0.001, 1),
    'min_aspect_ratio': (0.01, 100),
    'max_aspect_ratio': (0.01, 100),
    **PHOTOMETRIC_RANGES,
  },
  'loss': {
    'descriptor_weight': (0,),
    'attention_weight': (0,),
    'reconstruction_weight': (0,),
    'global_weight': (0,),
    'weight_decay': (0,),
    'label_smoothing': (0, 0.99),
    'trimmed_share': (0, 0.9),
  },
  'warped_pairs': {
    'min_side': (0.05, 1),
    'max_zoom': (1, 4),
    'max_rotation': (0, 180),
    'max_shift': (0, 0.5),
    'perspective': (0, 0.2),
    'pairs': (2, 65536),
    'temperature': (0.001, 10),
    'min_distance': (0,),
    'attended_share': (0.01, 1),
  },
  'optimizer': OPTIMIZER_RANGES,
  'validation': {
    'every': (1,),
    'max_photos': (0,),
    'image_size': (32, 4096),
    'max_features': (1, 100_000),
    'num_words': (1, 2**24),
  },
}
