"""What the fields of a config may be, and how they depend on each other."""

import dataclasses
from collections.abc import Callable, Iterator

from delf_d2r.protos import (
  aggregation_pb2,
  codebook_pb2,
  detection_data_pb2,
  detector_pb2,
  expansion_pb2,
  experiment_pb2,
  extraction_pb2,
  regions_pb2,
  training_pb2,
  verification_pb2,
)

Regions = regions_pb2.RegionsConfig
Extraction = extraction_pb2.ExtractionConfig
Aggregation = aggregation_pb2.AggregationConfig
Detector = detector_pb2.DetectorModelConfig


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
  if config.extraction.extractor == Extraction.GLOBAL:
    yield from _for_global_descriptors(config)
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
  for field, source in (('detector', Regions.DETECTOR), ('random', Regions.RANDOM)):
    if config.HasField(field) and config.source != source:
      wanted = f'source: {Regions.Source.Name(source)}'
      yield _belongs_to(field, wanted, Regions.Source.Name(config.source))
  for part, rules in _REGIONS_RANGES.items():
    for field, bounds in rules.items():
      for problem in _range(getattr(config, part), field, *bounds):
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
  extractor = Extraction.Extractor.Name(config.extractor)
  if config.HasField('root_sift'):
    if config.extractor not in (Extraction.ROOT_SIFT, Extraction.ROOT_SIFT_AND_DELF):
      yield _belongs_to('root_sift', 'extractor: ROOT_SIFT or ROOT_SIFT_AND_DELF', extractor)
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
  if config.extractor in (Extraction.DELF, Extraction.ROOT_SIFT_AND_DELF):
    yield from _delf(config)
  elif config.HasField('delf'):
    yield _belongs_to('delf', 'extractor: DELF or ROOT_SIFT_AND_DELF', extractor)
  if config.extractor == Extraction.GLOBAL:
    yield from _global(config)
  elif config.HasField('global_descriptor'):
    yield _belongs_to('global_descriptor', 'extractor: GLOBAL', extractor)
  elif config.region_features == Extraction.SHARED_FEATURE_MAP and config.extractor != Extraction.DELF:
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
  yield from _image_scales('delf', delf)
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
    yield from _pca('delf.pca', delf.pca)


def _global(config: Extraction) -> Iterator[Problem]:
  options = config.global_descriptor
  yield from _image_scales('global_descriptor', options)
  if not options.gem_power > 0:
    yield Problem(
      'global_descriptor.gem_power',
      f'global_descriptor.gem_power is {options.gem_power:g}; it must be positive',
    )
  if not options.model_path and not options.backbone_weights:
    yield Problem(
      'global_descriptor.backbone_weights',
      'global_descriptor.backbone_weights is empty; give "imagenet", a file of weights, or model_path',
    )
  if options.HasField('pca'):
    yield from _pca('global_descriptor.pca', options.pca)
  if config.region_features != Extraction.CROP:
    name = Extraction.RegionFeatures.Name(config.region_features)
    yield Problem(
      'region_features',
      f'region_features is {name}, but a global descriptor has no features inside a box. Set'
      ' region_features: CROP',
    )
  if config.min_attention:
    yield _belongs_to('min_attention', 'extractor: ROOT_SIFT or DELF', 'GLOBAL')


def _image_scales(part: str, options) -> Iterator[Problem]:
  if any(not 0 < scale <= 8 for scale in options.image_scales):
    scales = [round(scale, 4) for scale in options.image_scales]
    field = f'{part}.image_scales'
    yield Problem(field, f'{field} is {scales}; every scale must be in (0, 8]')


def _pca(part: str, pca: extraction_pb2.DelfPcaConfig) -> Iterator[Problem]:
  if pca.dimensions < 0:
    yield Problem(f'{part}.dimensions', f'{part}.dimensions is {pca.dimensions}; it must be at least 0')
  files = [field for field in ('mean_path', 'projection_matrix_path') if getattr(pca, field)]
  if pca.path and (files or pca.variances_path):
    yield Problem(f'{part}.path', f'{part} has both path and .datum files; give one of them')
  elif not pca.path and len(files) < 2:
    yield Problem(
      part,
      f'{part} needs either path, a directory of train_pca, or both mean_path and projection_matrix_path',
    )
  elif pca.whitening and not pca.path and not pca.variances_path:
    yield Problem(f'{part}.whitening', f'{part}.whitening needs variances_path beside the other files')


def _codebook(config: codebook_pb2.CodebookConfig) -> Iterator[Problem]:
  yield from _range(config, 'num_words', 1, 2**24)
  yield from _range(config, 'iterations', 1, 10_000)
  yield from _range(config, 'seed', 0)
  yield from _range(config, 'max_descriptors', 0)
  yield from _range(config, 'max_descriptors_per_word', 0)
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


def _verification(config: verification_pb2.VerificationConfig) -> Iterator[Problem]:
  for field, bounds in _VERIFICATION_RANGES.items():
    yield from _range(config, field, *bounds)
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


def _expansion(config: expansion_pb2.QueryExpansionConfig) -> Iterator[Problem]:
  yield from _range(config, 'num_images', 1)
  yield from _range(config, 'min_inliers', 1)
  yield from _range(config, 'weight_alpha', 0, 100)
  yield from _range(config, 'min_images_per_word', 1)


# Inclusive bounds.
_VERIFICATION_RANGES = {
  'num_images': (1,),
  'max_distance': (1e-6,),
  'ratio': (1e-6, 1),
  'max_residual': (1e-3,),
  'trials': (1, 1_000_000),
  'min_inliers': (1,),
  'max_scale': (1,),
  'max_anisotropy': (1,),
  'min_spread': (0,),
  'seed': (0,),
  'queries_per_shard': (1,),
}


def _training(config: training_pb2.TrainDelfConfig) -> Iterator[Problem]:
  for field in ('steps', 'batch_size', 'checkpoint_every', 'keep_checkpoints', 'encoder_start_photos'):
    yield from _range(config, field, 1)
  for field in ('seed', 'summary_every', 'pictures_every', 'reader_threads'):
    yield from _range(config, field, 0)
  yield from _range(config, 'image_size', 32, 4096)
  yield from _range(config, 'encoder_start_power', 0, 1)
  yield from _ranges_of_parts(config, _TRAINING_RANGES)
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
_PHOTOMETRIC_RANGES = {
  'brightness': (0, 1),
  'contrast': (0, 0.99),
  'saturation': (0, 0.99),
  'hue': (0, 0.5),
  'grey_probability': (0, 1),
  'noise': (0, 1),
  'blur': (0, 16),
  'min_jpeg_quality': (1, 100),
}
_TRAINING_RANGES = {
  'augmentation': {
    'min_area': (0.001, 1),
    'min_aspect_ratio': (0.01, 100),
    'max_aspect_ratio': (0.01, 100),
    **_PHOTOMETRIC_RANGES,
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


def _detection_records(config: detection_data_pb2.DetectionRecordsConfig) -> Iterator[Problem]:
  yield from _range(config, 'max_image_size', 0)
  yield from _range(config, 'jpeg_quality', 1, 100)
  yield from _range(config, 'validation_share', 0, 0.99)
  yield from _range(config, 'seed', 0)
  yield from _range(config, 'max_megapixels', 1, 10_000)
  yield from _range(config, 'images_per_shard', 1)
  if len(set(config.classes)) < len(config.classes) or '' in config.classes:
    yield Problem('classes', f'classes is {list(config.classes)}; give distinct names of some length')


def _detection_scenes(config: detection_data_pb2.DetectionScenesConfig) -> Iterator[Problem]:
  for field, bounds in _SCENE_RANGES.items():
    yield from _range(config, field, *bounds)
  for what in ('objects', 'scale', 'jpeg_quality'):
    low, high = getattr(config, f'min_{what}'), getattr(config, f'max_{what}')
    if low > high:
      yield Problem(f'min_{what}', f'min_{what} {low:g} is larger than max_{what} {high:g}')
  shares = config.background_share + config.photo_share
  if shares > 1:
    yield Problem('photo_share', f'background_share and photo_share add up to {shares:g}; at most 1')


# Inclusive bounds.
_SCENE_RANGES = {
  'num_scenes': (1,),
  'image_size': (32, 4096),
  'seed': (0,),
  'validation_share': (0, 0.99),
  'group_exponent': (0, 1),
  'background_share': (0, 1),
  'photo_share': (0, 1),
  'min_objects': (0,),
  'max_objects': (0, 100),
  'num_decoys': (0, 100),
  'min_scale': (0.01, 1),
  'max_scale': (0.01, 1),
  'aspect_jitter': (1, 4),
  'tilt': (0, 45),
  'perspective': (0, 0.2),
  'feather_share': (0, 1),
  'occluded_share': (0, 1),
  'max_hidden': (0, 0.9),
  'truncated_share': (0, 1),
  'max_truncated': (0, 0.9),
  'relight': (0, 2),
  'max_blur': (0, 16),
  'max_noise': (0, 1),
  'min_jpeg_quality': (1, 100),
  'max_jpeg_quality': (1, 100),
  'scenes_per_shard': (1,),
}


def _detector_training(config: detector_pb2.DetectorTrainingConfig) -> Iterator[Problem]:
  for field in ('steps', 'batch_size', 'checkpoint_every', 'keep_checkpoints', 'max_boxes'):
    yield from _range(config, field, 1)
  for field in ('seed', 'summary_every', 'pictures_every', 'reader_threads'):
    yield from _range(config, field, 0)
  yield from _ranges_of_parts(config, _DETECTOR_RANGES)
  if config.frozen_levels not in (0, 2, 3, 4, 5):
    yield Problem(
      'frozen_levels', f'frozen_levels is {config.frozen_levels}; backbones have the levels 2 to 5, 0 is none'
    )
  for problem in _detector_model(config.model):
    yield Problem(f'model.{problem.field}', f'model.{problem.text}')
  for field in ('focal_alpha', 'focal_gamma', 'box_weight'):
    if config.model.architecture != Detector.RETINANET and _is_changed(config.loss, field):
      yield _belongs_to(f'loss.{field}', 'model.architecture: RETINANET', 'FASTER_RCNN')
  if config.augmentation.min_scale > config.augmentation.max_scale:
    yield Problem('augmentation.min_scale', 'augmentation.min_scale is above max_scale')


def _detector_model(config: Detector) -> Iterator[Problem]:
  if config.min_level > config.max_level:
    yield Problem('min_level', f'min_level {config.min_level} is above max_level {config.max_level}')
  multiple = 2**config.max_level
  if config.image_size % multiple:
    below = max(config.image_size // multiple, 1) * multiple
    yield Problem(
      'image_size',
      f'image_size is {config.image_size}; with max_level {config.max_level} it must be a multiple of'
      f' {multiple}, for example {below} or {below + multiple}',
    )
  if any(not ratio > 0 for ratio in config.aspect_ratios):
    yield Problem('aspect_ratios', f'aspect_ratios is {list(config.aspect_ratios)}; all must be positive')
  if config.architecture == Detector.RETINANET and config.HasField('second_stage'):
    yield _belongs_to('second_stage', 'architecture: FASTER_RCNN', 'RETINANET')
  if config.backbone != Detector.EFFICIENTNET_LITE0 and config.backbone_weights == 'imagenet':
    yield Problem(
      'backbone_weights',
      'backbone_weights is "imagenet", which only EFFICIENTNET_LITE0 has; give the path of a checkpoint of'
      ' tf-models-official, or "" for random ones',
    )


# Inclusive bounds.
_DETECTOR_RANGES = {
  'model': {
    'image_size': (32, 4096),
    'min_level': (2, 5),
    'max_level': (2, 7),
    'pyramid_filters': (1, 4096),
    'head_convs': (0, 16),
    'head_filters': (1, 4096),
    'anchor_size': (0.1, 64),
    'anchor_scales': (1, 16),
    'min_score': (0, 0.99),
    'nms_iou': (0.01, 1),
    'max_detections': (1, 1000),
    'norm_momentum': (0, 0.9999),
  },
  'augmentation': {
    'min_scale': (0.1, 4),
    'max_scale': (0.1, 4),
    'min_visible': (0, 1),
    **_PHOTOMETRIC_RANGES,
  },
  'loss': {
    'weight_decay': (0,),
    'focal_alpha': (0, 1),
    'focal_gamma': (0, 10),
    'box_weight': (0,),
  },
  'optimizer': _TRAINING_RANGES['optimizer'],
  'validation': {'every': (1,), 'max_photos': (0,)},
}

_RULES: dict[str, Callable[..., Iterator[Problem]]] = {
  'regions': _regions,
  'extraction': _extraction,
  'codebook': _codebook,
  'aggregation': _aggregation,
  'search': _search,
  'evaluation': _evaluation,
  'report': _report,
  'verification': _verification,
  'expansion': _expansion,
  'training': _training,
  'detection_records': _detection_records,
  'detection_scenes': _detection_scenes,
  'detector_training': _detector_training,
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


def _ranges_of_parts(config, table: dict[str, dict[str, tuple]]) -> Iterator[Problem]:
  """Checks `config.part.field` against `table[part][field]`, inclusive bounds."""
  for part, rules in table.items():
    for field, bounds in rules.items():
      for problem in _range(getattr(config, part), field, *bounds):
        yield Problem(f'{part}.{problem.field}', f'{part}.{problem.text}')


def _belongs_to(field: str, wanted: str, found: str) -> Problem:
  return Problem(field, f'{field} has an effect only with {wanted}, found {found}. Remove it or change that')
