"""The one place that knows which extractors there are."""

import pathlib

from delf_d2r.extractors.regions import RegionExtractor
from delf_d2r.protos import extraction_pb2

# The model that comes with the package.
DEFAULT_DELF = pathlib.Path(__file__).parent.parent / 'models' / 'default'


def build(config: extraction_pb2.ExtractionConfig) -> RegionExtractor:
  """The extractor that a config asks for. Imports only what that one needs."""
  if config.extractor == extraction_pb2.ExtractionConfig.ROOT_SIFT:
    from delf_d2r.extractors.root_sift import RootSift

    local = RootSift(config.root_sift, max_features=config.max_features, min_attention=config.min_attention)
    return RegionExtractor(local, config)
  if config.extractor == extraction_pb2.ExtractionConfig.DELF:
    from delf_d2r.models import extractor

    return RegionExtractor(extractor.build(config, default_model=DEFAULT_DELF), config)
  raise ValueError(f'extractor {config.extractor} has no implementation')


def model_files(config: extraction_pb2.DelfConfig) -> dict[str, pathlib.Path]:
  """The files and directories that an extractor DELF is made from, by their role."""
  places = {
    'model': config.model_path or str(DEFAULT_DELF),
    'pca': config.pca.path,
    'pca_mean': config.pca.mean_path,
    'pca_components': config.pca.projection_matrix_path,
    'pca_variances': config.pca.variances_path,
  }
  return {role: pathlib.Path(place) for role, place in places.items() if place}
