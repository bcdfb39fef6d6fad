"""The one place that knows which extractors there are."""

import pathlib

from delf_d2r.errors import UserError
from delf_d2r.extractors.region_extractor import LocalExtractor, RegionExtractor
from delf_d2r.protos import extraction_pb2

Extraction = extraction_pb2.ExtractionConfig

# The model that comes with the package.
DEFAULT_DELF = pathlib.Path(__file__).parent.parent / 'models' / 'default'


def build(config: extraction_pb2.ExtractionConfig) -> RegionExtractor:
  """The extractor that a config asks for. Imports only what that one needs."""
  makers = {
    Extraction.ROOT_SIFT: _root_sift,
    Extraction.DELF: _delf,
    Extraction.ROOT_SIFT_AND_DELF: _joined,
    Extraction.GLOBAL: _global,
    Extraction.PATCHES: _patches,
    Extraction.ACTIVATION_REGIONS: _activation_regions,
  }
  if config.extractor not in makers:
    raise ValueError(f'extractor {config.extractor} has no implementation')
  return RegionExtractor(makers[config.extractor](config), config)


def uses_network(config: extraction_pb2.ExtractionConfig) -> bool:
  """Whether extraction runs a network, which has files of its own and may run on a GPU."""
  return config.extractor != Extraction.ROOT_SIFT


def _root_sift(config: extraction_pb2.ExtractionConfig) -> LocalExtractor:
  from delf_d2r.extractors.root_sift import RootSift

  return RootSift(config.root_sift, max_features=config.max_features, min_attention=config.min_attention)


def _delf(config: extraction_pb2.ExtractionConfig) -> LocalExtractor:
  from delf_d2r.extractors import delf

  return delf.build(config, default_model=DEFAULT_DELF)


def _joined(config: extraction_pb2.ExtractionConfig) -> LocalExtractor:
  from delf_d2r.extractors.joined import JoinedExtractor

  first, second = _root_sift(config), _delf(config)
  if first.dimensions != second.dimensions:
    raise UserError(
      f'ROOT_SIFT_AND_DELF needs descriptors of the same dimensions, but RootSIFT has {first.dimensions} and'
      f' the model {second.dimensions}. Reduce the latter to {first.dimensions} by extraction.delf.pca'
    )
  return JoinedExtractor(first, second)


def _global(config: extraction_pb2.ExtractionConfig) -> LocalExtractor:
  from delf_d2r.extractors import global_descriptor

  return global_descriptor.build(config.global_descriptor)


def _patches(config: extraction_pb2.ExtractionConfig) -> LocalExtractor:
  from delf_d2r.extractors.patch_features import PatchFeatures
  from delf_d2r.models.saved_models import patches

  return PatchFeatures(
    patches.load(config.patches.model_path, patch_size=config.patches.patch_size),
    config.patches,
    config.root_sift,
    max_features=config.max_features,
    min_attention=config.min_attention,
  )


def _activation_regions(config: extraction_pb2.ExtractionConfig) -> LocalExtractor:
  from delf_d2r.extractors import activation_regions

  return activation_regions.build(config)


def model_files(config: extraction_pb2.ExtractionConfig) -> dict[str, pathlib.Path]:
  """The files and directories that an extractor with a network is made from, by their role."""
  pca = extraction_pb2.DelfPcaConfig()
  if config.extractor == Extraction.GLOBAL:
    options = config.global_descriptor
    model, pca = options.model_path or _weights_file(options.backbone_weights), options.pca
  elif config.extractor == Extraction.PATCHES:
    model = config.patches.model_path
  elif config.extractor == Extraction.ACTIVATION_REGIONS:
    model = _weights_file(config.activation_regions.backbone_weights)
  elif config.delf.HasField('network'):
    model, pca = _weights_file(config.delf.network.backbone_weights), config.delf.pca
  else:
    model, pca = config.delf.model_path or str(DEFAULT_DELF), config.delf.pca
  places = {
    'model': model,
    'pca': pca.path,
    'pca_mean': pca.mean_path,
    'pca_components': pca.projection_matrix_path,
    'pca_variances': pca.variances_path,
  }
  return {role: pathlib.Path(place) for role, place in places.items() if place}


def _weights_file(weights: str) -> str:
  # Weights that are known by name are no file of the user's.
  return '' if weights == 'imagenet' else weights
