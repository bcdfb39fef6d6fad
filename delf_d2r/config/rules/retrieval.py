"""Rules of the stages from codebook to report."""

from collections.abc import Iterator

from delf_d2r.config.rules.rules import Problem, belongs_to, in_range, is_changed
from delf_d2r.protos import (
  aggregation_pb2,
  codebook_pb2,
  expansion_pb2,
  experiment_pb2,
  extraction_pb2,
  fusion_pb2,
  verification_pb2,
  whitening_pb2,
)

Aggregation = aggregation_pb2.AggregationConfig
Extraction = extraction_pb2.ExtractionConfig


def codebook(config: codebook_pb2.CodebookConfig) -> Iterator[Problem]:
  """Yields what is wrong with the part `codebook`."""
  yield from in_range(config, 'num_words', 1, 2**24)
  yield from in_range(config, 'iterations', 1, 10_000)
  yield from in_range(config, 'seed', 0)
  yield from in_range(config, 'max_descriptors', 0)
  yield from in_range(config, 'max_descriptors_per_word', 0)
  if config.source == codebook_pb2.CodebookConfig.ORIGIN and config.num_words != 1:
    yield Problem(
      'num_words', f'source is ORIGIN, which is one word, but num_words is {config.num_words}. Set it to 1'
    )
  if 0 < config.max_descriptors < config.num_words:
    yield Problem(
      'max_descriptors',
      f'max_descriptors {config.max_descriptors} is less than num_words {config.num_words}; k-means needs at'
      ' least one descriptor for each visual word. Raise the one or lower the other',
    )


def aggregation(config: Aggregation) -> Iterator[Problem]:
  """Yields what is wrong with the part `aggregation`."""
  yield from in_range(config, 'num_assignments', 1, 1000)
  yield from in_range(config, 'query_num_assignments', 1, 1000)
  yield from in_range(config, 'images_per_shard', 1)
  yield from in_range(config, 'tau', -1, 1)
  if not 0 < config.alpha <= 100:
    yield Problem('alpha', f'alpha is {config.alpha:g}; it must be in (0, 100]')
  if config.kernel == Aggregation.VLAD:
    for field in ('alpha', 'tau'):
      if is_changed(config, field):
        yield belongs_to(field, 'kernel: ASMK or ASMK_STAR', 'VLAD')


def search(config: experiment_pb2.SearchConfig) -> Iterator[Problem]:
  """Yields what is wrong with the part `search`."""
  yield from in_range(config, 'top_k', 0)


def evaluation(config: experiment_pb2.EvaluationConfig) -> Iterator[Problem]:
  """Yields what is wrong with the part `evaluation`."""
  if any(k < 1 for k in config.ks):
    yield Problem('ks', f'ks is {list(config.ks)}; every k must be at least 1')


def report(config: experiment_pb2.ReportConfig) -> Iterator[Problem]:
  """Yields what is wrong with the part `report`."""
  yield from in_range(config, 'results_per_query', 1, 1000)
  yield from in_range(config, 'max_queries', 0)
  yield from in_range(config, 'matches', 0, 1000)


def verification(config: verification_pb2.VerificationConfig) -> Iterator[Problem]:
  """Yields what is wrong with the part `verification`."""
  for field, bounds in _VERIFICATION_RANGES.items():
    yield from in_range(config, field, *bounds)
  name = verification_pb2.VerificationConfig.Model.Name(config.model)
  is_homography = config.model == verification_pb2.VerificationConfig.HOMOGRAPHY
  if config.estimator == verification_pb2.VerificationConfig.DEGENSAC and not is_homography:
    yield Problem(
      'estimator',
      f'estimator DEGENSAC knows homographies only, but model is {name}. Set model: HOMOGRAPHY, or estimator:'
      ' USAC',
    )
  if config.compat and config.model != verification_pb2.VerificationConfig.AFFINE:
    yield Problem('model', f'compat is the affine model of the research code, but model is {name}. Remove it')
  if config.matching == verification_pb2.VerificationConfig.SAME_CHANNEL:
    yield from _same_channel(config)
  elif config.extraction.extractor == Extraction.ACTIVATION_REGIONS:
    yield Problem(
      'matching',
      'extraction.extractor is ACTIVATION_REGIONS, whose regions have no descriptors. Set matching:'
      ' SAME_CHANNEL',
    )


def _same_channel(config: verification_pb2.VerificationConfig) -> Iterator[Problem]:
  if config.extraction.extractor != Extraction.ACTIVATION_REGIONS:
    found = Extraction.Extractor.Name(config.extraction.extractor)
    yield belongs_to('matching', 'extraction { extractor: ACTIVATION_REGIONS }', found)
  if config.compat:
    yield Problem(
      'compat', 'compat matches descriptors, which matching: SAME_CHANNEL has not. Remove one of them'
    )
  for field in ('max_distance', 'ratio', 'mutual'):
    if is_changed(config, field):
      yield belongs_to(field, 'matching: DESCRIPTORS', 'SAME_CHANNEL')


def fusion(config: fusion_pb2.FusionConfig) -> Iterator[Problem]:
  """Yields what is wrong with the part `fusion`, the other search apart."""
  yield from in_range(config, 'weight', 0, 1e6)


def whitening(config: whitening_pb2.WhiteningConfig) -> Iterator[Problem]:
  """Yields what is wrong with the part `whitening`."""
  yield from in_range(config, 'shrinkage', 0, 1e6)


def expansion(config: expansion_pb2.QueryExpansionConfig) -> Iterator[Problem]:
  """Yields what is wrong with the part `expansion`."""
  yield from in_range(config, 'num_images', 1)
  yield from in_range(config, 'min_inliers', 1)
  yield from in_range(config, 'weight_alpha', 0, 100)
  yield from in_range(config, 'min_images_per_word', 1)


# Inclusive bounds.
_VERIFICATION_RANGES = {
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
