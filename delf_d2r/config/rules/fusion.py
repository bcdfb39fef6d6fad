"""Rules of `protos/fusion.proto`."""

from collections.abc import Iterator

from delf_d2r.config.rules.checks import check_range, without_effect
from delf_d2r.errors import Problem
from delf_d2r.protos import fusion_pb2

Fusion = fusion_pb2.FusionConfig


def problems(config: Fusion) -> Iterator[Problem]:
  """Yields the problems of a FusionConfig, except those of its other search."""
  yield from check_range(config, 'weight', 0, 1e6)
  if config.HasField('power'):
    if not 0 < config.power <= 10:
      yield Problem('power', f'power is {config.power:g}; it must be in (0, 10]')
    if config.power != 1 and config.normalization != Fusion.BACKGROUND:
      found = Fusion.Normalization.Name(config.normalization)
      yield without_effect('power', 'normalization: BACKGROUND', found)
  if config.HasField('norm_order'):
    if not 1 <= config.norm_order <= 100:
      yield Problem(
        'norm_order',
        f'norm_order is {config.norm_order:g}; it must be in [1, 100], where 1 is the sum of both parts',
      )
    if config.norm_order != 1 and config.normalization != Fusion.BACKGROUND:
      found = Fusion.Normalization.Name(config.normalization)
      yield without_effect('norm_order', 'normalization: BACKGROUND', found)
  if config.both_sides and config.normalization != Fusion.BACKGROUND:
    found = Fusion.Normalization.Name(config.normalization)
    yield without_effect('both_sides', 'normalization: BACKGROUND', found)
  if config.background_path and config.normalization != Fusion.BACKGROUND:
    found = Fusion.Normalization.Name(config.normalization)
    yield without_effect('background_path', 'normalization: BACKGROUND', found)
