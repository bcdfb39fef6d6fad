"""Rules of `protos/detection_data.proto`."""

from collections.abc import Iterator

from delf_d2r.config.rules.checks import Ranges, check_range, check_ranges
from delf_d2r.errors import Problem
from delf_d2r.protos import detection_data_pb2


def records_problems(config: detection_data_pb2.DetectionRecordsConfig) -> Iterator[Problem]:
  """Yields the problems of a DetectionRecordsConfig."""
  yield from check_range(config, 'max_image_size', 0)
  yield from check_range(config, 'jpeg_quality', 1, 100)
  yield from check_range(config, 'validation_share', 0, 0.99)
  yield from check_range(config, 'seed', 0)
  yield from check_range(config, 'max_megapixels', 1, 10_000)
  yield from check_range(config, 'images_per_shard', 1)
  if len(set(config.classes)) < len(config.classes) or '' in config.classes:
    yield Problem('classes', f'classes is {list(config.classes)}; give distinct names that are not empty')


def scenes_problems(config: detection_data_pb2.DetectionScenesConfig) -> Iterator[Problem]:
  """Yields the problems of a DetectionScenesConfig."""
  yield from check_ranges(config, _SCENE_RANGES)
  for what in ('objects', 'scale', 'jpeg_quality'):
    low, high = getattr(config, f'min_{what}'), getattr(config, f'max_{what}')
    if low > high:
      yield Problem(f'min_{what}', f'min_{what} {low:g} is larger than max_{what} {high:g}')
  shares = config.background_share + config.photo_share
  if shares > 1:
    yield Problem('photo_share', f'background_share and photo_share add up to {shares:g}; at most 1')


# Inclusive bounds.
_SCENE_RANGES: Ranges = {
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
