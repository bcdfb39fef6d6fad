"""Rules of training a landmark detector, and of the records for it."""

from collections.abc import Iterator

from delf_d2r.config.rules.delf_training import PHOTOMETRIC_RANGES, TRAINING_RANGES
from delf_d2r.config.rules.rules import Problem, belongs_to, in_range, is_changed, ranges_of_parts
from delf_d2r.protos import detection_data_pb2, detector_pb2

Detector = detector_pb2.DetectorModelConfig


def detection_records(config: detection_data_pb2.DetectionRecordsConfig) -> Iterator[Problem]:
  """Yields what is wrong with the part `detection_records`."""
  yield from in_range(config, 'max_image_size', 0)
  yield from in_range(config, 'jpeg_quality', 1, 100)
  yield from in_range(config, 'validation_share', 0, 0.99)
  yield from in_range(config, 'seed', 0)
  yield from in_range(config, 'max_megapixels', 1, 10_000)
  yield from in_range(config, 'images_per_shard', 1)
  if len(set(config.classes)) < len(config.classes) or '' in config.classes:
    yield Problem('classes', f'classes is {list(config.classes)}; give distinct names of some length')


def detection_scenes(config: detection_data_pb2.DetectionScenesConfig) -> Iterator[Problem]:
  """Yields what is wrong with the part `detection_scenes`."""
  for field, bounds in _SCENE_RANGES.items():
    yield from in_range(config, field, *bounds)
  for what in ('objects', 'scale', 'jpeg_quality'):
    low, high = getattr(config, f'min_{what}'), getattr(config, f'max_{what}')
    if low > high:
      yield Problem(f'min_{what}', f'min_{what} {low:g} is larger than max_{what} {high:g}')
  shares = config.background_share + config.photo_share
  if shares > 1:
    yield Problem('photo_share', f'background_share and photo_share add up to {shares:g}; at most 1')


# Inclusive bounds.
_SCENE_RANGES = {
  'num_scenes': (1,),
  'image_size': (32, 4096),
  'seed': (0,),
  'validation_share': (0, 0.99),
  'group_exponent': (0, 1),
  'background_share': (0, 1),
  'photo_share': (0, 1),
  'min_objects': (0,),
  'max_objects': (0, 100),
  'num_decoys': (0, 100),
  'min_scale': (0.01, 1),
  'max_scale': (0.01, 1),
  'aspect_jitter': (1, 4),
  'tilt': (0, 45),
  'perspective': (0, 0.2),
  'feather_share': (0, 1),
  'occluded_share': (0, 1),
  'max_hidden': (0, 0.9),
  'truncated_share': (0, 1),
  'max_truncated': (0, 0.9),
  'relight': (0, 2),
  'max_blur': (0, 16),
  'max_noise': (0, 1),
  'min_jpeg_quality': (1, 100),
  'max_jpeg_quality': (1, 100),
  'scenes_per_shard': (1,),
}


def detector_training(config: detector_pb2.DetectorTrainingConfig) -> Iterator[Problem]:
  """Yields what is wrong with the part `detector_training`."""
  for field in ('steps', 'batch_size', 'checkpoint_every', 'keep_checkpoints', 'max_boxes'):
    yield from in_range(config, field, 1)
  for field in ('seed', 'summary_every', 'pictures_every', 'reader_threads'):
    yield from in_range(config, field, 0)
  yield from ranges_of_parts(config, _DETECTOR_RANGES)
  if config.frozen_levels not in (0, 2, 3, 4, 5):
    yield Problem(
      'frozen_levels', f'frozen_levels is {config.frozen_levels}; backbones have the levels 2 to 5, 0 is none'
    )
  for problem in _detector_model(config.model):
    yield Problem(f'model.{problem.field}', f'model.{problem.text}')
  for field in ('focal_alpha', 'focal_gamma', 'box_weight'):
    if config.model.architecture != Detector.RETINANET and is_changed(config.loss, field):
      yield belongs_to(f'loss.{field}', 'model.architecture: RETINANET', 'FASTER_RCNN')
  if config.augmentation.min_scale > config.augmentation.max_scale:
    yield Problem('augmentation.min_scale', 'augmentation.min_scale is above max_scale')


def _detector_model(config: Detector) -> Iterator[Problem]:
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
    yield belongs_to('second_stage', 'architecture: FASTER_RCNN', 'RETINANET')
  if config.backbone != Detector.EFFICIENTNET_LITE0 and config.backbone_weights == 'imagenet':
    yield Problem(
      'backbone_weights',
      'backbone_weights is "imagenet", which only EFFICIENTNET_LITE0 has; give the path of a checkpoint of'
      ' tf-models-official, or "" for random ones',
    )


# Inclusive bounds.
_DETECTOR_RANGES = {
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
  'optimizer': TRAINING_RANGES['optimizer'],
  'validation': {'every': (1,), 'max_photos': (0,)},
}
