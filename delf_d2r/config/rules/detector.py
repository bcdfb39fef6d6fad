"""Rules of `protos/detector.proto`."""

from collections.abc import Iterator

from delf_d2r.config.rules.checks import (
  Ranges,
  check_part_ranges,
  check_range,
  is_changed,
  prefixed,
  without_effect,
)
from delf_d2r.config.rules.training import OPTIMIZER_RANGES, PHOTOMETRIC_RANGES
from delf_d2r.errors import Problem
from delf_d2r.protos import detector_pb2

Detector = detector_pb2.DetectorModelConfig


def problems(config: detector_pb2.DetectorTrainingConfig) -> Iterator[Problem]:
  """Yields the problems of a DetectorTrainingConfig."""
  for field in ('steps', 'batch_size', 'checkpoint_every', 'keep_checkpoints', 'max_boxes'):
    yield from check_range(config, field, 1)
  for field in ('seed', 'summary_every', 'pictures_every', 'reader_threads'):
    yield from check_range(config, field, 0)
  yield from check_part_ranges(config, _RANGES)
  if config.frozen_levels not in (0, 2, 3, 4, 5):
    yield Problem(
      'frozen_levels', f'frozen_levels is {config.frozen_levels}; backbones have the levels 2 to 5, 0 is none'
    )
  yield from prefixed('model', _model_problems(config.model), 'model.')
  for field in ('focal_alpha', 'focal_gamma', 'box_weight'):
    if config.model.architecture != Detector.RETINANET and is_changed(config.loss, field):
      yield without_effect(f'loss.{field}', 'model.architecture: RETINANET', 'FASTER_RCNN')
  if config.augmentation.min_scale > config.augmentation.max_scale:
    yield Problem('augmentation.min_scale', 'augmentation.min_scale is above max_scale')


def _model_problems(config: Detector) -> Iterator[Problem]:
  if config.min_level > config.max_level:
    yield Problem('min_level', f'min_level {config.min_level} is above max_level {config.max_level}')
  multiple = 2**config.max_level
  if config.image_size % multiple:
    below = max(config.image_size // multiple, 1) * multiple
    yield Problem(
      'image_size',
      f'image_size is {config.image_size}; with max_level {config.max_level} it must be a multiple of'
      f' {multiple}, for example {below} or {below + multiple}',
    )
  if any(not ratio > 0 for ratio in config.aspect_ratios):
    yield Problem('aspect_ratios', f'aspect_ratios is {list(config.aspect_ratios)}; all must be positive')
  if config.architecture == Detector.RETINANET and config.HasField('second_stage'):
    yield without_effect('second_stage', 'architecture: FASTER_RCNN', 'RETINANET')
  if config.backbone != Detector.EFFICIENTNET_LITE0 and config.backbone_weights == 'imagenet':
    yield Problem(
      'backbone_weights',
      'backbone_weights is "imagenet", which only EFFICIENTNET_LITE0 has; give the path of a checkpoint of'
      ' tf-models-official, or "" for random ones',
    )


# Inclusive bounds.
_RANGES: dict[str, Ranges] = {
  'model': {
    'image_size': (32, 4096),
    'min_level': (2, 5),
    'max_level': (2, 7),
    'pyramid_filters': (1, 4096),
    'head_convs': (0, 16),
    'head_filters': (1, 4096),
    'anchor_size': (0.1, 64),
    'anchor_scales': (1, 16),
    'min_score': (0, 0.99),
    'nms_iou': (0.01, 1),
    'max_detections': (1, 1000),
    'norm_momentum': (0, 0.9999),
  },
  'augmentation': {
    'min_scale': (0.1, 4),
    'max_scale': (0.1, 4),
    'min_visible': (0, 1),
    **PHOTOMETRIC_RANGES,
  },
  'loss': {
    'weight_decay': (0,),
    'focal_alpha': (0, 1),
    'focal_gamma': (0, 10),
    'box_weight': (0,),
  },
  'optimizer': OPTIMIZER_RANGES,
  'validation': {'every': (1,), 'max_photos': (0,)},
}
