"""Rules of `protos/experiment.proto`, and all rules of all stages together."""

from collections.abc import Callable, Iterator

from delf_d2r.config import same_extractor, shipped_codebook
from delf_d2r.config.rules import (
  aggregation,
  codebook,
  detection_data,
  detector,
  expansion,
  extraction,
  fusion,
  regions,
  training,
  verification,
  whitening,
)
from delf_d2r.config.rules.checks import check_range, prefixed, without_effect
from delf_d2r.errors import Problem
from delf_d2r.extractors import registry
from delf_d2r.extractors.registry import DescriptorKind
from delf_d2r.protos.aggregation_pb2 import AggregationConfig
from delf_d2r.protos.codebook_pb2 import CodebookConfig
from delf_d2r.protos.experiment_pb2 import EvaluationConfig, ExperimentConfig, ReportConfig, SearchConfig
from delf_d2r.protos.fusion_pb2 import FusionConfig
from delf_d2r.protos.regions_pb2 import RegionsConfig


def problems(config: ExperimentConfig) -> Iterator[Problem]:
  """Yields the problems of all stages that are present, and of their combination."""
  for stage, rules in _RULES.items():
    if config.HasField(stage):
      yield from prefixed(stage, rules(getattr(config, stage)))
  for stage, parts in _NESTED.items():
    for part in parts:
      if getattr(config, stage).HasField(part):
        name = f'{stage}.{part}'
        yield from prefixed(name, _RULES[part](getattr(getattr(config, stage), part)), f'{name}: ')
  yield from _between_stages(config)


def search_problems(config: SearchConfig) -> Iterator[Problem]:
  """Yields the problems of a SearchConfig."""
  yield from check_range(config, 'top_k', 0)


def evaluation_problems(config: EvaluationConfig) -> Iterator[Problem]:
  """Yields the problems of an EvaluationConfig."""
  if any(k < 1 for k in config.ks):
    yield Problem('ks', f'ks is {list(config.ks)}; every k must be at least 1')


def report_problems(config: ReportConfig) -> Iterator[Problem]:
  """Yields the problems of a ReportConfig."""
  yield from check_range(config, 'results_per_query', 1, 1000)
  yield from check_range(config, 'max_queries', 0)
  yield from check_range(config, 'matches', 0, 1000)


def _between_stages(config: ExperimentConfig) -> Iterator[Problem]:
  yield from _search_chain_problems(config)
  # Without an extraction of its own, fusion has no other search: fuse_rankings is given its rankings.
  if config.fusion.HasField('extraction'):
    yield from _fused_search_problems(config)
  if config.HasField('extraction') and config.regions.source == RegionsConfig.DETECTOR:
    rotates = config.regions.detector.apply_exif_orientation, config.extraction.apply_exif_orientation
    if rotates[0] != rotates[1]:
      found = [str(value).lower() for value in rotates]
      yield Problem(
        'regions.detector.apply_exif_orientation',
        f'regions.detector.apply_exif_orientation is {found[0]} but extraction.apply_exif_orientation is'
        f' {found[1]}, so boxes would be misplaced in rotated photos. Set both to the same value',
      )
  # A config of a single stage has no part `search`.
  if config.HasField('expansion') and config.HasField('search') and not config.HasField('verification'):
    yield Problem(
      'expansion',
      'expansion needs images that are verified, but there is no verification. Add verification { }, or'
      ' remove expansion',
    )
  if config.HasField('aggregation') and config.HasField('regions'):
    yield from _missing_regions(config, config.regions)


def _fused_search_problems(config: ExperimentConfig) -> Iterator[Problem]:
  """Yields the problems of a run of two searches whose rankings are fused."""
  other = config.fusion
  missing = [part for part in _NESTED['fusion'] if not other.HasField(part)]
  if missing:
    yield Problem('fusion', f'fusion lacks {", ".join(missing)} of the other search. Add them')
  if config.search.top_k:
    yield Problem(
      'search.top_k',
      f'search.top_k is {config.search.top_k}, but fusion adds the scores of all images. Set it to 0',
    )
  if other.normalization == FusionConfig.BACKGROUND:
    yield from _background_problems(config)
  yield from prefixed('fusion', _search_chain_problems(other), 'fusion: ')
  if other.HasField('aggregation') and config.HasField('regions'):
    yield from prefixed('fusion', _missing_regions(other, config.regions), 'fusion: ')


def _background_problems(config: ExperimentConfig) -> Iterator[Problem]:
  """Yields the problems of a run whose scores are standardised by a background model."""
  problem = (
    'fusion.normalization is BACKGROUND, whose model is of {}. Set normalization: Z_SCORE, or change {}'
  )
  local, other = config.aggregation, config.fusion
  if config.HasField('aggregation'):
    wrong = {
      'kernel': local.kernel == AggregationConfig.VLAD,
      'regions': local.regions == AggregationConfig.REGIONAL_SEARCH,
      'use_idf': local.use_idf,
      'compat': local.compat,
    }
    for field in (field for field, is_wrong in wrong.items() if is_wrong):
      what = 'ASMK or ASMK_STAR with one descriptor for each photo, without use_idf and compat'
      yield Problem(f'aggregation.{field}', problem.format(what, f'aggregation.{field}'))
  if other.aggregation.kernel != AggregationConfig.VLAD or other.codebook.num_words != 1:
    what = 'global descriptors, VLAD of one visual word, in the other search'
    yield Problem('fusion.aggregation.kernel', problem.format(what, 'fusion.aggregation and fusion.codebook'))


def _search_chain_problems(config: ExperimentConfig | FusionConfig) -> Iterator[Problem]:
  """Yields the problems between extraction, codebook and aggregation."""
  record = registry.record(config.extraction.extractor)
  if record.descriptors is DescriptorKind.GLOBAL:
    yield from _global_descriptor_problems(config, record.name)
  if config.HasField('codebook') and config.codebook.source == CodebookConfig.SHIPPED:
    yield from _shipped_codebook_problems(config)
  elif config.HasField('codebook'):
    yield from _projection_problems(config, record)
  is_compact = config.aggregation.value_type != AggregationConfig.FLOAT32
  if is_compact and config.HasField('codebook') and config.codebook.num_words != 1:
    yield without_effect('aggregation.value_type', 'codebook.num_words: 1', str(config.codebook.num_words))
  if record.descriptors is DescriptorKind.CHANNEL and config.HasField('aggregation'):
    yield Problem(
      'extraction.extractor',
      f'extraction.extractor is {record.name}, whose regions have no descriptors to search with. Set'
      ' verification.extraction to it',
    )


def _shipped_codebook_problems(config: ExperimentConfig | FusionConfig) -> Iterator[Problem]:
  """Yields the problems of the codebook of the package with another extractor or kernel."""
  shipped = shipped_codebook.load()
  if shipped is None or shipped_codebook.is_resolved(config.codebook):
    return
  other = 'Set codebook.source: K_MEANS and num_words, to train a codebook of its own'
  difference = same_extractor.difference(config.extraction, shipped.extraction)
  if config.HasField('extraction') and difference:
    field, ours, theirs = difference
    yield Problem(
      'codebook.source',
      f'codebook.source is SHIPPED, but the codebook of the package was trained for extraction.{field}'
      f' {theirs}, found {ours}. {other}, or use the extractor that it was trained for',
    )
  kernel = config.aggregation.kernel
  is_projected = shipped.codebook.bits or any(shipped.codebook.projection.kinds)
  if config.HasField('aggregation') and is_projected and kernel != AggregationConfig.ASMK_STAR:
    name = AggregationConfig.Kernel.Name(kernel)
    yield Problem(
      'codebook.source',
      'codebook.source is SHIPPED, but the codebook of the package projects residuals, which has a meaning'
      f' only with aggregation.kernel: ASMK_STAR, found {name}. {other}',
    )


def _projection_problems(
  config: ExperimentConfig | FusionConfig, record: registry.ExtractorRecord
) -> Iterator[Problem]:
  """Yields the problems of a projection of residuals before their signs are taken."""
  projection = config.codebook.projection
  kernel = config.aggregation.kernel
  for field, is_set in (('projection', any(projection.kinds)), ('bits', bool(config.codebook.bits))):
    if is_set and config.HasField('aggregation') and kernel != AggregationConfig.ASMK_STAR:
      name = AggregationConfig.Kernel.Name(kernel)
      yield without_effect(f'codebook.{field}', 'aggregation.kernel: ASMK_STAR', name)
  # Whatever the dimensions are.
  num_kinds = max(len(record.unit_origins(8)), 1)
  if config.HasField('extraction') and len(projection.kinds) not in (0, 1, num_kinds):
    yield Problem(
      'codebook.projection.kinds',
      f'codebook.projection.kinds has {len(projection.kinds)} values, but extraction.extractor: {record.name}'
      f' has {num_kinds} kinds of local features. Give one for each, or one for all',
    )


def _missing_regions(config: ExperimentConfig | FusionConfig, boxes: RegionsConfig) -> Iterator[Problem]:
  """Yields a problem if regions are aggregated but there are none."""
  regional = config.aggregation.regions != AggregationConfig.WHOLE_IMAGE
  if regional and boxes.source == RegionsConfig.NONE:
    name = AggregationConfig.Regions.Name(config.aggregation.regions)
    yield Problem(
      'aggregation.regions',
      f'aggregation.regions is {name} but regions.source is NONE, so there is nothing to aggregate or search'
      ' except the whole image. Set regions.source, or aggregation.regions: WHOLE_IMAGE',
    )


def _global_descriptor_problems(config: ExperimentConfig | FusionConfig, extractor: str) -> Iterator[Problem]:
  """Yields the problems of a search by global descriptors.

  A global descriptor is stored as a VLAD with a single visual word at the origin. With any other codebook, a
  residual would take its place.
  """
  if config.HasField('codebook') and config.codebook.source != CodebookConfig.ORIGIN:
    yield Problem(
      'codebook.source',
      f'extraction.extractor is {extractor}, whose descriptors have no visual words. Set'
      " 'codebook { source: ORIGIN num_words: 1 }'",
    )
  if config.HasField('aggregation') and config.aggregation.kernel != AggregationConfig.VLAD:
    name = AggregationConfig.Kernel.Name(config.aggregation.kernel)
    yield Problem(
      'aggregation.kernel',
      f'aggregation.kernel is {name}, but extraction.extractor: {extractor} is compared by kernel: VLAD'
      ' alone',
    )


_RULES: dict[str, Callable[..., Iterator[Problem]]] = {
  'regions': regions.problems,
  'extraction': extraction.problems,
  'codebook': codebook.problems,
  'aggregation': aggregation.problems,
  'search': search_problems,
  'evaluation': evaluation_problems,
  'report': report_problems,
  'verification': verification.problems,
  'fusion': fusion.problems,
  'expansion': expansion.problems,
  'whitening': whitening.problems,
  'training': training.problems,
  'detection_records': detection_data.records_problems,
  'detection_scenes': detection_data.scenes_problems,
  'detector_training': detector.problems,
}

# Parts of a stage that are configs of other stages.
_NESTED = {'fusion': ('extraction', 'codebook', 'aggregation'), 'verification': ('extraction',)}
