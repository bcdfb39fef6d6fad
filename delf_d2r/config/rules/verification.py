"""Rules of `protos/verification.proto`."""

from collections.abc import Iterator

from delf_d2r.config.rules.checks import Ranges, check_ranges, is_changed, without_effect
from delf_d2r.errors import Problem
from delf_d2r.protos.extraction_pb2 import ExtractionConfig
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
  if config.matching == VerificationConfig.SAME_CHANNEL:
    yield from _same_channel(config)
  elif config.extraction.extractor == ExtractionConfig.ACTIVATION_REGIONS:
    yield Problem(
      'matching',
      'extraction.extractor is ACTIVATION_REGIONS, whose regions have no descriptors. Set matching:'
      ' SAME_CHANNEL',
    )


def _same_channel(config: VerificationConfig) -> Iterator[Problem]:
  """Yields the problems of matching regions of the same channel, which have no descriptors."""
  if config.extraction.extractor != ExtractionConfig.ACTIVATION_REGIONS:
    found = ExtractionConfig.Extractor.Name(config.extraction.extractor)
    yield without_effect('matching', 'extraction { extractor: ACTIVATION_REGIONS }', found)
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
