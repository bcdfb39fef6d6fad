"""Rules of `protos/verification.proto`."""

from collections.abc import Iterator

from delf_d2r.config.rules.checks import Ranges, check_ranges, either, is_changed, without_effect
from delf_d2r.errors import Problem
from delf_d2r.extractors import registry
from delf_d2r.extractors.registry import DescriptorKind
from delf_d2r.protos.verification_pb2 import VerificationConfig


def problems(config: VerificationConfig) -> Iterator[Problem]:
  """Yields the problems of a VerificationConfig."""
  yield from check_ranges(config, _RANGES)
  name = VerificationConfig.Model.Name(config.model)
  is_homography = config.model == VerificationConfig.HOMOGRAPHY
  if config.estimator == VerificationConfig.DEGENSAC and not is_homography:
    yield Problem(
      'estimator',
      f'estimator DEGENSAC knows homographies only, but model is {name}. Set model: HOMOGRAPHY, or estimator:'
      ' USAC',
    )
  if config.compat and config.model != VerificationConfig.AFFINE:
    yield Problem(
      'model',
      f'compat is the affine model of the tensorflow/models DELF code, but model is {name}. Remove it',
    )
  record = registry.record(config.extraction.extractor)
  if config.matching == VerificationConfig.SAME_CHANNEL:
    yield from _same_channel(config)
  elif record.descriptors is DescriptorKind.CHANNEL:
    yield Problem(
      'matching',
      f'extraction.extractor is {record.name}, whose regions have no descriptors. Set matching: SAME_CHANNEL',
    )


def _same_channel(config: VerificationConfig) -> Iterator[Problem]:
  """Yields the problems of matching regions of the same channel, which have no descriptors."""
  record = registry.record(config.extraction.extractor)
  if record.descriptors is not DescriptorKind.CHANNEL:
    able = [other.name for other in registry.records() if other.descriptors is DescriptorKind.CHANNEL]
    yield without_effect('matching', f'extraction {{ extractor: {either(able)} }}', record.name)
  if config.compat:
    yield Problem(
      'compat', 'compat matches descriptors, which matching: SAME_CHANNEL does not use. Remove one of them'
    )
  for field in ('max_distance', 'ratio', 'mutual'):
    if is_changed(config, field):
      yield without_effect(field, 'matching: DESCRIPTORS', 'SAME_CHANNEL')


# Inclusive bounds.
_RANGES: Ranges = {
  'num_images': (1,),
  'max_distance': (1e-6,),
  'ratio': (1e-6, 1),
  'max_residual': (1e-3,),
  'trials': (1, 1_000_000),
  'min_inliers': (1,),
  'max_false_alarms': (1e-30,),
  'max_scale': (1,),
  'max_anisotropy': (1,),
  'min_spread': (0,),
  'seed': (0,),
  'queries_per_shard': (1,),
}
