"""Rules of `protos/aggregation.proto`."""

from collections.abc import Iterator

from delf_d2r.config.rules.checks import check_range, is_changed, without_effect
from delf_d2r.errors import Problem
from delf_d2r.protos import aggregation_pb2

Aggregation = aggregation_pb2.AggregationConfig


def problems(config: Aggregation) -> Iterator[Problem]:
  """Yields the problems of an AggregationConfig."""
  yield from check_range(config, 'num_assignments', 1, 1000)
  yield from check_range(config, 'query_num_assignments', 1, 1000)
  yield from check_range(config, 'images_per_shard', 1)
  yield from check_range(config, 'tau', -1, 1)
  if not 0 < config.alpha <= 100:
    yield Problem('alpha', f'alpha is {config.alpha:g}; it must be in (0, 100]')
  if config.kernel == Aggregation.VLAD:
    for field in ('alpha', 'tau'):
      if is_changed(config, field):
        yield without_effect(field, 'kernel: ASMK or ASMK_STAR', 'VLAD')
  if config.value_type != Aggregation.FLOAT32 and config.kernel != Aggregation.VLAD:
    yield without_effect('value_type', 'kernel: VLAD', Aggregation.Kernel.Name(config.kernel))
  if config.HasField('whole_image_weight'):
    if not 0 < config.whole_image_weight <= 100:
      yield Problem(
        'whole_image_weight',
        f'whole_image_weight is {config.whole_image_weight:g}; it must be in (0, 100]. To use the boxes'
        ' alone, give it a small weight such as 0.01',
      )
    # 1 is what there is without the field: an override can say it to take the weight of a config back.
    if config.whole_image_weight != 1 and config.regions != Aggregation.REGIONAL_AGGREGATION:
      found = Aggregation.Regions.Name(config.regions)
      yield without_effect('whole_image_weight', 'regions: REGIONAL_AGGREGATION', found)
  if config.region_masks:
    if config.kernel == Aggregation.VLAD:
      yield without_effect('region_masks', 'kernel: ASMK or ASMK_STAR', 'VLAD')
    if config.regions != Aggregation.REGIONAL_AGGREGATION:
      found = Aggregation.Regions.Name(config.regions)
      yield without_effect('region_masks', 'regions: REGIONAL_AGGREGATION', found)
