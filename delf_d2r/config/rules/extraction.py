"""Rules of `protos/extraction.proto` that hold for every extractor, and of messages that several share.

The rules of one extractor are in its own file and come from its record (extractors/registry.py).
"""

from collections.abc import Iterator

from delf_d2r.config.rules.checks import check_range, either, without_effect
from delf_d2r.errors import Problem
from delf_d2r.extractors import registry
from delf_d2r.extractors.registry import DescriptorKind
from delf_d2r.protos import extraction_pb2

Extraction = extraction_pb2.ExtractionConfig

# The runtimes that have a precision, fastest first: what AUTO chooses among.
RUNTIMES: dict[int, tuple[Extraction.Runtime, ...]] = {
  Extraction.FLOAT32: (Extraction.ONNXRUNTIME, Extraction.TENSORFLOW, Extraction.OPENVINO),
  Extraction.BFLOAT16: (Extraction.OPENVINO,),
  Extraction.INT8: (Extraction.ONNXRUNTIME, Extraction.OPENVINO),
}


def problems(config: Extraction) -> Iterator[Problem]:
  """Yields the problems of an ExtractionConfig."""
  yield from check_range(config, 'max_features', 1)
  yield from check_range(config, 'min_attention', 0)
  yield from check_range(config, 'max_megapixels', 1, 10_000)
  yield from check_range(config, 'images_per_shard', 1)
  for kind in ('image', 'crop'):
    yield from check_range(config, f'max_{kind}_size', 0)
    yield from check_range(config, f'min_{kind}_size', 0)
    largest, smallest = getattr(config, f'max_{kind}_size'), getattr(config, f'min_{kind}_size')
    if 0 < largest < smallest:
      yield Problem(
        f'min_{kind}_size',
        f'min_{kind}_size {smallest} is larger than max_{kind}_size {largest}; no photo can satisfy both',
      )
  record = registry.record(config.extractor)
  for field, owners in _owners().items():
    if config.HasField(field) and field not in record.own_fields:
      yield without_effect(field, f'extractor: {either(owners)}', record.name)
  yield from _region_features(config, record)
  yield from _runtime(config, record)
  yield from record.problems(config)


def _owners() -> dict[str, list[str]]:
  """Returns the names of the extractors that each message field has an effect with."""
  owners: dict[str, list[str]] = {}
  for record in registry.records():
    for field in record.own_fields:
      owners.setdefault(field, []).append(record.name)
  return owners


def _runtime(config: Extraction, record: registry.ExtractorRecord) -> Iterator[Problem]:
  """Yields the problems of what runs a network: only that of the package has a form for all runtimes."""
  precision = Extraction.Precision.Name(config.precision)
  runtime = Extraction.Runtime.Name(config.runtime)
  is_float = config.precision == Extraction.FLOAT32
  if is_float and config.runtime in (Extraction.TENSORFLOW, Extraction.AUTO):
    return
  field, value = ('runtime', runtime) if is_float else ('precision', precision)
  if not record.uses_network:
    able = [other.name for other in registry.records() if other.uses_network]
    yield without_effect(field, f'extractor: {either(able)}', record.name)
  elif not registry.is_shipped_model(config):
    yield Problem(
      field,
      f'{field} is {value}, but only the model that comes with the package has a form for it; the model of'
      f' this config is another one. Remove {field}, or name no other model',
    )
  elif config.runtime not in (Extraction.AUTO, *RUNTIMES[config.precision]):
    able = [Extraction.Runtime.Name(other) for other in RUNTIMES[config.precision]]
    yield Problem(
      'precision',
      f'precision is {precision}, but runtime: {runtime} has it not. Set runtime: AUTO or {either(able)}, or'
      ' precision: FLOAT32',
    )


def _region_features(config: Extraction, record: registry.ExtractorRecord) -> Iterator[Problem]:
  if record.descriptors is DescriptorKind.GLOBAL:
    if config.region_features != Extraction.CROP:
      name = Extraction.RegionFeatures.Name(config.region_features)
      yield Problem(
        'region_features',
        f'region_features is {name}, but a global descriptor has no features inside a box. Set'
        ' region_features: CROP',
      )
  elif config.region_features == Extraction.SHARED_FEATURE_MAP and not record.has_feature_maps:
    able = [other.name for other in registry.records() if other.has_feature_maps]
    yield Problem(
      'region_features',
      f'region_features is SHARED_FEATURE_MAP, but {record.name} has no feature maps. Set extractor:'
      f' {either(able)}, or region_features: CROP or INSIDE',
    )


def image_scales(
  part: str, options: extraction_pb2.DelfConfig | extraction_pb2.GlobalConfig
) -> Iterator[Problem]:
  """Yields the problems of the scales of an image pyramid; `part` is the field of `options`."""
  if any(not 0 < scale <= 8 for scale in options.image_scales):
    scales = [round(scale, 4) for scale in options.image_scales]
    field = f'{part}.image_scales'
    yield Problem(field, f'{field} is {scales}; every scale must be in (0, 8]')


def pca(part: str, pca: extraction_pb2.DelfPcaConfig) -> Iterator[Problem]:
  """Yields the problems of a reduction of descriptors; `part` is its field."""
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
