"""Rules of the stages that make boxes and features."""

from collections.abc import Iterator

from delf_d2r.config_rules.rules import Problem, belongs_to, in_range, is_changed
from delf_d2r.protos import extraction_pb2, regions_pb2

Regions = regions_pb2.RegionsConfig
Extraction = extraction_pb2.ExtractionConfig


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


def extraction(config: Extraction) -> Iterator[Problem]:
  """Yields what is wrong with the part `extraction`."""
  yield from in_range(config, 'max_features', 1)
  yield from in_range(config, 'min_attention', 0)
  yield from in_range(config, 'max_megapixels', 1, 10_000)
  yield from in_range(config, 'images_per_shard', 1)
  for kind in ('image', 'crop'):
    yield from in_range(config, f'max_{kind}_size', 0)
    yield from in_range(config, f'min_{kind}_size', 0)
    largest, smallest = getattr(config, f'max_{kind}_size'), getattr(config, f'min_{kind}_size')
    if 0 < largest < smallest:
      yield Problem(
        f'min_{kind}_size',
        f'min_{kind}_size {smallest} is larger than max_{kind}_size {largest}; no photo can satisfy both',
      )
  extractor = Extraction.Extractor.Name(config.extractor)
  if config.HasField('root_sift'):
    if config.extractor not in (Extraction.ROOT_SIFT, Extraction.ROOT_SIFT_AND_DELF):
      yield belongs_to('root_sift', 'extractor: ROOT_SIFT or ROOT_SIFT_AND_DELF', extractor)
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
    yield belongs_to('delf', 'extractor: DELF or ROOT_SIFT_AND_DELF', extractor)
  if config.extractor == Extraction.GLOBAL:
    yield from _global(config)
  elif config.HasField('global_descriptor'):
    yield belongs_to('global_descriptor', 'extractor: GLOBAL', extractor)
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
    yield belongs_to('min_attention', 'extractor: ROOT_SIFT or DELF', 'GLOBAL')


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
