"""Rules of the stage that makes boxes."""

from collections.abc import Iterator

from delf_d2r.config.rules.rules import Problem, belongs_to, in_range, is_changed
from delf_d2r.protos import regions_pb2

Regions = regions_pb2.RegionsConfig


def regions(config: Regions) -> Iterator[Problem]:
  """Yields what is wrong with the part `regions`."""
  yield from in_range(config, 'min_score', 0, 1)
  yield from in_range(config, 'min_area', 0, 1)
  yield from in_range(config, 'max_overlap', 0, 1)
  yield from in_range(config, 'max_boxes', 0)
  yield from in_range(config, 'images_per_shard', 1)
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
    yield belongs_to('uniform', 'source: UNIFORM', Regions.Source.Name(config.source))
  if is_changed(config, 'file_path') and config.source != Regions.FILE:
    yield belongs_to('file_path', 'source: FILE', Regions.Source.Name(config.source))
  for field, source in (('detector', Regions.DETECTOR), ('random', Regions.RANDOM)):
    if config.HasField(field) and config.source != source:
      wanted = f'source: {Regions.Source.Name(source)}'
      yield belongs_to(field, wanted, Regions.Source.Name(config.source))
  for part, rules in _REGIONS_RANGES.items():
    for field, bounds in rules.items():
      for problem in in_range(getattr(config, part), field, *bounds):
        yield Problem(f'{part}.{problem.field}', f'{part}.{problem.text}')
  if any(number < 0 for number in config.detector.classes):
    yield Problem(
      'detector.classes', f'detector.classes is {list(config.detector.classes)}; ids are at least 0'
    )


# Inclusive bounds.
_REGIONS_RANGES = {
  'detector': {
    'max_image_size': (0,),
    'batch_size': (1, 1024),
    'max_megapixels': (1, 10_000),
    'images_per_shard': (1,),
  },
  'random': {'seed': (0,)},
}
