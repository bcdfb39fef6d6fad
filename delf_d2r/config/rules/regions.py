"""Rules of `protos/regions.proto`."""

from collections.abc import Iterator

from delf_d2r.config.rules.checks import Ranges, check_part_ranges, check_range, is_changed, without_effect
from delf_d2r.errors import Problem
from delf_d2r.protos import regions_pb2

Regions = regions_pb2.RegionsConfig


def problems(config: Regions) -> Iterator[Problem]:
  """Yields the problems of a RegionsConfig."""
  yield from check_range(config, 'min_score', 0, 1)
  yield from check_range(config, 'min_area', 0, 1)
  yield from check_range(config, 'max_overlap', 0, 1)
  if config.HasField('max_area') and not (0 < config.max_area <= 1 and config.max_area >= config.min_area):
    yield Problem('max_area', f'max_area is {config.max_area:g}; it must be in (0, 1] and at least min_area')
  yield from check_range(config, 'max_boxes', 0)
  yield from check_range(config, 'images_per_shard', 1)
  if config.source == Regions.UNIFORM:
    levels = config.uniform.boxes_per_side
    if not levels or min(levels) < 1 or max(levels) > 64:
      yield Problem(
        'uniform.boxes_per_side',
        f'source is UNIFORM but uniform.boxes_per_side is {list(levels)}; give one or more numbers from 1 to'
        ' 64, for example uniform { boxes_per_side: [2] }',
      )
    if not 0 <= config.uniform.overlap < 1:
      yield Problem('uniform.overlap', f'uniform.overlap is {config.uniform.overlap:g}; it must be in [0, 1)')
  elif config.HasField('uniform'):
    yield without_effect('uniform', 'source: UNIFORM', Regions.Source.Name(config.source))
  if is_changed(config, 'file_path') and config.source != Regions.FILE:
    yield without_effect('file_path', 'source: FILE', Regions.Source.Name(config.source))
  for field, source in (('detector', Regions.DETECTOR), ('random', Regions.RANDOM)):
    if config.HasField(field) and config.source != source:
      wanted = f'source: {Regions.Source.Name(source)}'
      yield without_effect(field, wanted, Regions.Source.Name(config.source))
  yield from check_part_ranges(config, _RANGES)
  if any(number < 0 for number in config.detector.classes):
    yield Problem(
      'detector.classes', f'detector.classes is {list(config.detector.classes)}; ids are at least 0'
    )


# Inclusive bounds.
_RANGES: dict[str, Ranges] = {
  'detector': {
    'max_image_size': (0,),
    'batch_size': (1, 1024),
    'max_megapixels': (1, 10_000),
    'images_per_shard': (1,),
  },
  'random': {'seed': (0,)},
}
