"""Rules of the stage that makes features."""

from collections.abc import Iterator

from delf_d2r.config.rules.rules import Problem, belongs_to, in_range, is_changed
from delf_d2r.protos import delf_model_pb2, extraction_pb2

Extraction = extraction_pb2.ExtractionConfig
DelfModel = delf_model_pb2.DelfModelConfig


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
    if config.extractor not in (Extraction.ROOT_SIFT, Extraction.ROOT_SIFT_AND_DELF, Extraction.PATCHES):
      yield belongs_to('root_sift', 'extractor: ROOT_SIFT, ROOT_SIFT_AND_DELF or PATCHES', extractor)
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
      f'region_features is SHARED_FEATURE_MAP, but {extractor} has no feature maps. Set extractor: DELF, or'
      ' region_features: CROP or INSIDE',
    )
  if config.extractor == Extraction.PATCHES:
    yield from _patches(config.patches)
  elif config.HasField('patches'):
    yield belongs_to('patches', 'extractor: PATCHES', extractor)
  if config.extractor == Extraction.ACTIVATION_REGIONS:
    yield from _activation_regions(config.activation_regions)
  elif config.HasField('activation_regions'):
    yield belongs_to('activation_regions', 'extractor: ACTIVATION_REGIONS', extractor)
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
  if delf.HasField('network'):
    yield from _network(delf)


def _network(delf: extraction_pb2.DelfConfig) -> Iterator[Problem]:
  """What a network without training of its own may have."""
  network = delf.network
  if delf.model_path:
    yield Problem('delf.model_path', 'delf has both model_path and network; give one of them')
  if not network.backbone_weights:
    yield Problem(
      'delf.network.backbone_weights',
      'delf.network.backbone_weights is empty; give "imagenet" or a file of weights',
    )
  if network.smoothing < 1 or network.smoothing % 2 == 0:
    yield Problem(
      'delf.network.smoothing',
      f'delf.network.smoothing is {network.smoothing}; it must be odd and at least 1',
    )
  attention = DelfModel.Attention.Name(network.attention)
  trained = [
    f'{field} {value}'
    for field, value, free in (
      ('attention', attention, 'L2_NORM'),
      ('reduced_dimensions', network.reduced_dimensions, 0),
      ('global_dimensions', network.global_dimensions, 0),
      ('num_classes', network.num_classes, 0),
    )
    if value != free
  ]
  if trained:
    yield Problem(
      'delf.network',
      f'delf.network has parts that need training ({", ".join(trained)}). Set attention: L2_NORM and'
      ' reduced_dimensions: 0, or make a model of it with export_delf and give model_path',
    )


def _global(config: Extraction) -> Iterator[Problem]:
  options = config.global_descriptor
  yield from _image_scales('global_descriptor', options)
  for field in ('gem_power', 'scale_power'):
    if not getattr(options, field) > 0:
      yield Problem(
        f'global_descriptor.{field}',
        f'global_descriptor.{field} is {getattr(options, field):g}; it must be positive',
      )
  if not 1 <= options.region_levels <= 16:
    yield Problem(
      'global_descriptor.region_levels',
      f'global_descriptor.region_levels is {options.region_levels}; it must be in [1, 16]',
    )
  is_regional = options.pooling == extraction_pb2.GlobalConfig.R_MAC
  if is_regional and options.model_path:
    yield Problem(
      'global_descriptor.pooling',
      'global_descriptor.pooling is R_MAC, but the model at model_path pools by itself. Remove one of them',
    )
  for field in ('gem_power', 'scale_power') if is_regional else ('region_levels',):
    if is_changed(options, field):
      wanted = 'GEM' if is_regional else 'R_MAC'
      found = 'R_MAC' if is_regional else 'GEM'
      yield belongs_to(f'global_descriptor.{field}', f'pooling: {wanted}', found)
  if options.model_path and is_changed(options, 'scale_power'):
    yield Problem(
      'global_descriptor.scale_power',
      f'global_descriptor.scale_power is {options.scale_power:g}, but the descriptors of a model may be'
      ' negative,'
      ' which have no power. Remove it',
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


def _patches(patches: extraction_pb2.PatchConfig) -> Iterator[Problem]:
  if not patches.model_path:
    yield Problem(
      'patches.model_path',
      'patches.model_path is empty; give a file of ONNX or the directory of a SavedModel',
    )
  if not 4 <= patches.patch_size <= 512:
    yield Problem('patches.patch_size', f'patches.patch_size is {patches.patch_size}; it must be in [4, 512]')
  if not 0 < patches.magnification <= 100:
    yield Problem(
      'patches.magnification', f'patches.magnification is {patches.magnification:g}; it must be in (0, 100]'
    )


def _activation_regions(regions: extraction_pb2.ActivationRegionsConfig) -> Iterator[Problem]:
  if not regions.backbone_weights:
    yield Problem(
      'activation_regions.backbone_weights',
      'activation_regions.backbone_weights is empty; give "imagenet" or a file of weights',
    )
  if not 0 < regions.threshold <= 1:
    yield Problem(
      'activation_regions.threshold',
      f'activation_regions.threshold is {regions.threshold:g}; it must be in (0, 1]',
    )
  if regions.regions_per_channel < 1:
    yield Problem(
      'activation_regions.regions_per_channel',
      f'activation_regions.regions_per_channel is {regions.regions_per_channel}; it must be at least 1',
    )


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
