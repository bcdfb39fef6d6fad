"""What the fields of a config may be, and how they depend on each other."""

from collections.abc import Callable, Iterator

from delf_d2r.config.rules import delf_training, detector_training, extraction, retrieval
from delf_d2r.config.rules import regions as boxes
from delf_d2r.config.rules.rules import Problem
from delf_d2r.protos import aggregation_pb2, codebook_pb2, experiment_pb2, extraction_pb2, regions_pb2

Regions = regions_pb2.RegionsConfig
Extraction = extraction_pb2.ExtractionConfig
Aggregation = aggregation_pb2.AggregationConfig


def problems(config: experiment_pb2.ExperimentConfig) -> Iterator[Problem]:
  """Yields everything that is wrong with the stages that are present."""
  for stage, rules in _RULES.items():
    if config.HasField(stage):
      for problem in rules(getattr(config, stage)):
        yield Problem(f'{stage}.{problem.field}', problem.text)
  for stage, parts in _NESTED.items():
    for part in parts:
      if getattr(config, stage).HasField(part):
        for problem in _RULES[part](getattr(getattr(config, stage), part)):
          yield Problem(f'{stage}.{part}.{problem.field}', f'{stage}.{part}: {problem.text}')
  yield from _between_stages(config)


def _between_stages(config) -> Iterator[Problem]:
  yield from _of_one_search(config)
  # Without it the other search is none of ours: fuse_rankings is given its rankings.
  if config.fusion.HasField('extraction'):
    yield from _fusion(config)
  if config.HasField('extraction') and config.regions.source == Regions.DETECTOR:
    turned = config.regions.detector.apply_exif_orientation, config.extraction.apply_exif_orientation
    if turned[0] != turned[1]:
      found = [str(value).lower() for value in turned]
      yield Problem(
        'regions.detector.apply_exif_orientation',
        f'regions.detector.apply_exif_orientation is {found[0]} but extraction.apply_exif_orientation is'
        f' {found[1]}, so boxes would lie elsewhere in photos that are turned. Set both alike',
      )
  # A config of one stage alone has no stage `search`.
  if config.HasField('expansion') and config.HasField('search') and not config.HasField('verification'):
    yield Problem(
      'expansion',
      'expansion needs images that are verified, but there is no verification. Add verification { }, or'
      ' remove expansion',
    )
  if config.HasField('aggregation') and config.HasField('regions'):
    yield from _has_regions(config, config.regions)


def _fusion(config) -> Iterator[Problem]:
  """Two searches in one run."""
  fusion = config.fusion
  missing = [part for part in _NESTED['fusion'] if not fusion.HasField(part)]
  if missing:
    yield Problem('fusion', f'fusion lacks {", ".join(missing)} of the other search. Add them')
  if config.search.top_k:
    yield Problem(
      'search.top_k',
      f'search.top_k is {config.search.top_k}, but fusion adds the scores of all images. Set it to 0',
    )
  for problem in _of_one_search(fusion):
    yield Problem(f'fusion.{problem.field}', f'fusion: {problem.text}')
  if fusion.HasField('aggregation') and config.HasField('regions'):
    for problem in _has_regions(fusion, config.regions):
      yield Problem(f'fusion.{problem.field}', f'fusion: {problem.text}')


def _of_one_search(config) -> Iterator[Problem]:
  """Rules between extraction, codebook and aggregation."""
  if config.extraction.extractor == Extraction.GLOBAL:
    yield from _for_global_descriptors(config)
  if config.extraction.extractor == Extraction.ACTIVATION_REGIONS and config.HasField('aggregation'):
    yield Problem(
      'extraction.extractor',
      'extraction.extractor is ACTIVATION_REGIONS, whose regions have no descriptors to search with. Set'
      ' verification.extraction to it',
    )


def _has_regions(config, regions) -> Iterator[Problem]:
  """What is aggregated over regions needs some."""
  regional = config.aggregation.regions != Aggregation.WHOLE_IMAGE
  if regional and regions.source == Regions.NONE:
    name = Aggregation.Regions.Name(config.aggregation.regions)
    yield Problem(
      'aggregation.regions',
      f'aggregation.regions is {name} but regions.source is NONE, so there is nothing to aggregate or search'
      ' beside the whole image. Set regions.source, or aggregation.regions: WHOLE_IMAGE',
    )


def _for_global_descriptors(config) -> Iterator[Problem]:
  """A global descriptor is a VLAD of one word at the origin; with other words it would be a residual."""
  if config.HasField('codebook') and config.codebook.source != codebook_pb2.CodebookConfig.ORIGIN:
    yield Problem(
      'codebook.source',
      'extraction.extractor is GLOBAL, whose descriptors have no visual words. Set'
      " 'codebook { source: ORIGIN num_words: 1 }'",
    )
  if config.HasField('aggregation') and config.aggregation.kernel != Aggregation.VLAD:
    name = Aggregation.Kernel.Name(config.aggregation.kernel)
    yield Problem(
      'aggregation.kernel',
      f'aggregation.kernel is {name}, but extraction.extractor: GLOBAL is compared by kernel: VLAD alone',
    )


_RULES: dict[str, Callable[..., Iterator[Problem]]] = {
  'regions': boxes.regions,
  'extraction': extraction.extraction,
  'codebook': retrieval.codebook,
  'aggregation': retrieval.aggregation,
  'search': retrieval.search,
  'evaluation': retrieval.evaluation,
  'report': retrieval.report,
  'verification': retrieval.verification,
  'fusion': retrieval.fusion,
  'expansion': retrieval.expansion,
  'whitening': retrieval.whitening,
  'training': delf_training.training,
  'detection_records': detector_training.detection_records,
  'detection_scenes': detector_training.detection_scenes,
  'detector_training': detector_training.detector_training,
}

# Parts of one stage that are configs of another.
_NESTED = {'fusion': ('extraction', 'codebook', 'aggregation'), 'verification': ('extraction',)}
