"""The one place that knows which extractors there are."""

from delf_d2r.extractors.regions import RegionExtractor
from delf_d2r.protos import extraction_pb2


def build(config: extraction_pb2.ExtractionConfig) -> RegionExtractor:
  """The extractor that a config asks for. Imports only what that one needs."""
  if config.extractor == extraction_pb2.ExtractionConfig.ROOT_SIFT:
    from delf_d2r.extractors.root_sift import RootSift

    local = RootSift(config.root_sift, max_features=config.max_features, min_attention=config.min_attention)
    return RegionExtractor(local, config)
  if config.extractor == extraction_pb2.ExtractionConfig.DELF:
    from delf_d2r.models import extractor

    return RegionExtractor(extractor.build(config), config)
  raise ValueError(f'extractor {config.extractor} has no implementation')
