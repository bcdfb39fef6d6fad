"""What the fields of a config may be, and how they depend on each other."""

import dataclasses
from collections.abc import Callable, Iterator

from delf_d2r.protos import (
  aggregation_pb2,
  codebook_pb2,
  experiment_pb2,
  extraction_pb2,
  regions_pb2,
  training_pb2,
)

Regions = regions_pb2.RegionsConfig
Extraction = extraction_pb2.ExtractionConfig
Aggregation = aggregation_pb2.AggregationConfig


@dataclasses.dataclass(frozen=True)
class Problem:
  """A field with a value that cannot be used, and what to do about it."""

  field: str
  text: str


def problems(config: experiment_pb2.ExperimentConfig) -> Iterator[Problem]:
  """Yields everything that is wrong with the stages that are present."""
  for stage, rules in _RULES.items():
    if config.HasField(stage):
      for problem in rules(getattr(config, stage)):
        yield Problem(f'{stage}.{problem.field}', problem.text)
  yield from _between_stages(config)


def _between_stages(config) -> Iterator[Problem]:
  if not (config.HasField('aggregation') and config.HasField('regions')):
    return
  regional = config.aggregation.regions != Aggregation.WHOLE_IMAGE
  if regional and config.regions.source == Regions.NONE:
    name = Aggregation.Regions.Name(config.aggregation.regions)
    yield Problem(
      'aggregation.regions',
      f'aggregation.regions is {name} but regions.source is NONE, so there is nothing to aggregate or search'
      ' beside the whole image. Set regions.source, or aggregation.regions: WHOLE_IMAGE',
    )


def _regions(config: Regions) -> Iterator[Problem]:
  yield from _range(config, 'min_score', 0, 1)
  yield from _range(config, 'min_area', 0, 1)
  yield from _range(config, 'max_overlap', 0, 1)
  yield from _range(config, 'max_boxes', 0)
  yield from _range(config, 'images_per_shard', 1)
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
    yield _belongs_to('uniform', 'source: UNIFORM', Regions.Source.Name(config.source))
  if _is_changed(config, 'file_path') and config.source != Regions.FILE:
    yield _belongs_to('file_path', 'source: FILE', Regions.Source.Name(config.source))


def _extraction(config: Extraction) -> Iterator[Problem]:
  yield from _range(config, 'max_features', 1)
  yield from _range(config, 'min_attention', 0)
  yield from _range(config, 'max_megapixels', 1, 10_000)
  yield from _range(config, 'images_per_shard', 1)
  for kind in ('image', 'crop'):
    yield from _range(config, f'max_{kind}_size', 0)
    yield from _range(config, f'min_{kind}_size', 0)
    largest, smallest = getattr(config, f'max_{kind}_size'), getattr(config, f'min_{kind}_size')
    if 0 < largest < smallest:
      yield Problem(
        f'min_{kind}_size',
        f'min_{kind}_size {smallest} is larger than max_{kind}_size {largest}; no photo can satisfy both',
      )
  if config.HasField('root_sift'):
    if config.extractor == Extraction.DELF:
      yield _belongs_to('root_sift', 'extractor: ROOT_SIFT or ROOT_SIFT_AND_DELF', 'DELF')
    sift = config.root_sift
    for field in ('contrast_threshold', 'edge_threshold'):
      if not getattr(sift, field) > 0:
        yield Problem(
          f'root_sift.{field}', f'root_sift.{field} is {getattr(sift, field):g}; it must be positive'
        )
    if not 1 <= sift.octave_layers <= 16:
      yield Problem(
        'root_sift.octave_layers', f'root_sift.octave_layers is {sift.octave_layers}; it must be in [1, 16]'
      )
  if config.extractor != Extraction.ROOT_SIFT:
    yield from _delf(config)
  elif config.HasField('delf'):
    yield _belongs_to('delf', 'extractor: DELF or ROOT_SIFT_AND_DELF', 'ROOT_SIFT')
  if config.region_features == Extraction.SHARED_FEATURE_MAP and config.extractor != Extraction.DELF:
    yield Problem(
      'region_features',
      'region_features is SHARED_FEATURE_MAP, but ROOT_SIFT has no feature maps. Set extractor: DELF, or'
      ' region_features: CROP or INSIDE',
    )
  if config.extractor == Extraction.ROOT_SIFT_AND_DELF and config.min_attention:
    yield Problem(
      'min_attention',
      f'min_attention is {config.min_attention:g}, but with ROOT_SIFT_AND_DELF it would cut two different'
      ' units. Set it to 0; max_features keeps the best of each',
    )


def _delf(config: Extraction) -> Iterator[Problem]:
  delf = config.delf
  if any(not 0 < scale <= 8 for scale in delf.image_scales):
    scales = [round(scale, 4) for scale in delf.image_scales]
    yield Problem('delf.image_scales', f'delf.image_scales is {scales}; every scale must be in (0, 8]')
  if not 0 < delf.nms_iou <= 1:
    yield Problem('delf.nms_iou', f'delf.nms_iou is {delf.nms_iou:g}; it must be in (0, 1]')
  if delf.nms_iou < 1 and config.region_features == Extraction.SHARED_FEATURE_MAP:
    yield Problem(
      'delf.nms_iou',
      f'delf.nms_iou {delf.nms_iou:g} has no effect with region_features: SHARED_FEATURE_MAP. Set it to 1, or'
      ' region_features: CROP',
    )
  if delf.min_cells_across_box < 0:
    yield Problem(
      'delf.min_cells_across_box',
      f'delf.min_cells_across_box is {delf.min_cells_across_box}; it must be at least 0',
    )
  if delf.HasField('pca'):
    yield from _pca(delf.pca)


def _pca(pca: extraction_pb2.DelfPcaConfig) -> Iterator[Problem]:
  if pca.dimensions < 0:
    yield Problem('delf.pca.dimensions', f'delf.pca.dimensions is {pca.dimensions}; it must be at least 0')
  files = [field for field in ('mean_path', 'projection_matrix_path') if getattr(pca, field)]
  if pca.path and (files or pca.variances_path):
    yield Problem('delf.pca.path', 'delf.pca has both path and .datum files; give one of them')
  elif not pca.path and len(files) < 2:
    yield Problem(
      'delf.pca',
      'delf.pca needs either path, a directory of train_pca, or both mean_path and projection_matrix_path',
    )
  elif pca.whitening and not pca.path and not pca.variances_path:
    yield Problem('delf.pca.whitening', 'delf.pca.whitening needs variances_path beside the other files')


def _codebook(config: codebook_pb2.CodebookConfig) -> Iterator[Problem]:
  yield from _range(config, 'num_words', 1, 2**24)
  yield from _range(config, 'iterations', 1, 10_000)
  yield from _range(config, 'seed', 0)
  yield from _range(config, 'max_descriptors', 0)
  yield from _range(config, 'max_descriptors_per_word', 0)
  if 0 < config.max_descriptors < config.num_words:
    yield Problem(
      'max_descriptors',
      f'max_descriptors {config.max_descriptors} is less than num_words {config.num_words}; k-means needs at'
      ' least one descriptor for each visual word. Raise the one or lower the other',
    )


def _aggregation(config: Aggregation) -> Iterator[Problem]:
  yield from _range(config, 'num_assignments', 1, 1000)
  yield from _range(config, 'query_num_assignments', 1, 1000)
  yield from _range(config, 'images_per_shard', 1)
  yield from _range(config, 'tau', -1, 1)
  if not 0 < config.alpha <= 100:
    yield Problem('alpha', f'alpha is {config.alpha:g}; it must be in (0, 100]')
  if config.kernel == Aggregation.VLAD:
    for field in ('alpha', 'tau'):
      if _is_changed(config, field):
        yield _belongs_to(field, 'kernel: ASMK or ASMK_STAR', 'VLAD')


def _search(config: experiment_pb2.SearchConfig) -> Iterator[Problem]:
  yield from _range(config, 'top_k', 0)


def _evaluation(config: experiment_pb2.EvaluationConfig) -> Iterator[Problem]:
  if any(k < 1 for k in config.ks):
    yield Problem('ks', f'ks is {list(config.ks)}; every k must be at least 1')


def _report(config: experiment_pb2.ReportConfig) -> Iterator[Problem]:
  yield from _range(config, 'results_per_query', 1, 1000)
  yield from _range(config, 'max_queries', 0)


def _training(config: training_pb2.TrainDelfConfig) -> Iterator[Problem]:
  for field in ('steps', 'batch_size', 'checkpoint_every', 'keep_checkpoints', 'encoder_start_photos'):
    yield from _range(config, field, 1)
  for field in ('seed', 'summary_every', 'pictures_every', 'reader_threads'):
    yield from _range(config, field, 0)
  yield from _range(config, 'image_size', 32, 4096)
  yield from _range(config, 'encoder_start_power', 0, 1)
  for part, rules in _TRAINING_RANGES.items():
    for field, bounds in rules.items():
      for problem in _range(getattr(config, part), field, *bounds):
        yield Problem(f'{part}.{problem.field}', f'{part}.{problem.text}')
  is_classification = config.objective == training_pb2.TrainDelfConfig.CLASSIFICATION
  if is_classification and config.HasField('warped_pairs'):
    yield _belongs_to('warped_pairs', 'objective: WARPED_PAIRS', 'CLASSIFICATION')
  if not is_classification and config.image_size % 32:
    yield Problem(
      'image_size',
      f'image_size is {config.image_size}; with objective WARPED_PAIRS it must be a multiple of 32, so that'
      ' cells of the feature map have known places',
    )
  if config.augmentation.min_aspect_ratio > config.augmentation.max_aspect_ratio:
    yield Problem('augmentation.min_aspect_ratio', 'augmentation.min_aspect_ratio is above max_aspect_ratio')
  if any(not 0 < scale <= 8 for scale in config.validation.scales):
    yield Problem('validation.scales', 'validation.scales must be in (0, 8]')


# Inclusive bounds.
_TRAINING_RANGES = {
  'augmentation': {
    'min_area': (0.001, 1),
    'min_aspect_ratio': (0.01, 100),
    'max_aspect_ratio': (0.01, 100),
    'brightness': (0, 1),
    'contrast': (0, 0.99),
    'saturation': (0, 0.99),
    'hue': (0, 0.5),
    'grey_probability': (0, 1),
    'noise': (0, 1),
    'blur': (0, 16),
    'min_jpeg_quality': (1, 100),
  },
  'loss': {
    'descriptor_weight': (0,),
    'attention_weight': (0,),
    'reconstruction_weight': (0,),
    'global_weight': (0,),
    'weight_decay': (0,),
    'label_smoothing': (0, 0.99),
  },
  'warped_pairs': {
    'min_side': (0.05, 1),
    'max_zoom': (1, 4),
    'max_rotation': (0, 180),
    'max_shift': (0, 0.5),
    'perspective': (0, 0.2),
    'pairs': (2, 65536),
    'temperature': (0.001, 10),
    'min_distance': (0,),
    'attended_share': (0.01, 1),
  },
  'optimizer': {
    'learning_rate': (0, 10),
    'final_learning_rate': (0, 10),
    'warmup_steps': (0,),
    'momentum': (0, 0.9999),
    'clip_norm': (0,),
    'backbone_factor': (0, 100),
  },
  'validation': {
    'every': (1,),
    'max_photos': (0,),
    'image_size': (32, 4096),
    'max_features': (1, 100_000),
    'num_words': (1, 2**24),
  },
}

_RULES: dict[str, Callable[..., Iterator[Problem]]] = {
  'regions': _regions,
  'extraction': _extraction,
  'codebook': _codebook,
  'aggregation': _aggregation,
  'search': _search,
  'evaluation': _evaluation,
  'report': _report,
  'training': _training,
}


def _is_changed(config, field: str) -> bool:
  """Whether a field is set to something else than its default, which resolved configs write out."""
  descriptor = config.DESCRIPTOR.fields_by_name[field]
  if not config.HasField(field):
    return False
  return not descriptor.has_default_value or getattr(config, field) != descriptor.default_value


def _range(config, field: str, low: float, high: float | None = None) -> Iterator[Problem]:
  value = getattr(config, field)
  # Written so that NaN is out of range.
  if not (value >= low and (high is None or value <= high)):
    wanted = f'at least {low:g}' if high is None else f'in [{low:g}, {high:g}]'
    yield Problem(field, f'{field} is {value:g}; it must be {wanted}')


def _belongs_to(field: str, wanted: str, found: str) -> Problem:
  return Problem(field, f'{field} has an effect only with {wanted}, found {found}. Remove it or change that')
