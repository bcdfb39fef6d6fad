"""Two kinds of local features in one list, one codebook and one index: RootSIFT and DELF."""

from collections.abc import Iterator

import numpy as np

from delf_d2r.errors import Problem, UserError
from delf_d2r.extractors import delf, root_sift
from delf_d2r.extractors.registry import DescriptorKind, ExtractorRecord, LocalExtractor
from delf_d2r.protos import extraction_pb2
from delf_d2r.structures import LocalFeatures

Extraction = extraction_pb2.ExtractionConfig

# Unit vectors are at most 2 apart, so descriptors of two kinds are at least 4 - 2 apart, never nearer than
# two of one kind. A power of two, which costs the least of float32's digits.
_DISTANCE = 4.0


class JoinedExtractor:
  """The features of one extractor, then those of another.

  The second kind's descriptors are moved by a constant, so that k-means gives each kind words of its own. A
  residual is a difference between descriptors of one kind, which the constant is no part of: ASMK works on
  each kind as it would alone, and scores add up over the words of both. The descriptors of the second kind
  are, then, not of unit length. Attention has another unit in each kind.

  Attributes:
    dimensions: D, of both.
  """

  def __init__(self, first: LocalExtractor, second: LocalExtractor):
    """Raises ValueError if the two have descriptors of different dimensions."""
    if first.dimensions != second.dimensions:
      raise ValueError(
        f'both kinds of features must have the same dimensions, found {first.dimensions} and'
        f' {second.dimensions}; reduce the larger by PCA'
      )
    self.dimensions = first.dimensions
    self._first, self._second = first, second

  def __call__(self, image: np.ndarray) -> LocalFeatures:
    """Returns features of uint8 [H, W, 3], locations in its pixels; each kind in its extractor's order."""
    return LocalFeatures.concatenate([self._first(image), _moved_away(self._second(image))])

  @property
  def note(self) -> str:
    """Says what a user should know about images that were left without features of a kind; '' if nothing."""
    return ' '.join(filter(None, (getattr(part, 'note', '') for part in (self._first, self._second))))


def _moved_away(features: LocalFeatures) -> LocalFeatures:
  descriptors = features.descriptors + offset(features.dimensions)
  return LocalFeatures(features.locations, features.scales, features.attention, descriptors)


def offset(dimensions: int) -> np.ndarray:
  """Returns the vector float32 [D] that descriptors of the second kind are moved by."""
  return _DISTANCE * np.eye(1, dimensions, dtype=np.float32)[0]


def build(config: Extraction) -> JoinedExtractor:
  """Returns the extractor of a config.

  Raises:
    UserError: DELF cannot be built, or its descriptors have other dimensions than RootSIFT's.
  """
  first, second = root_sift.build(config), delf.build(config)
  if first.dimensions != second.dimensions:
    raise UserError(
      f'ROOT_SIFT_AND_DELF needs descriptors of the same dimensions, but RootSIFT has {first.dimensions} and'
      f' the model {second.dimensions}. Reduce the latter to {first.dimensions} by extraction.delf.pca'
    )
  return JoinedExtractor(first, second)


def problems(config: Extraction) -> Iterator[Problem]:
  """Yields the problems of the messages of both kinds, and of limits that cannot hold for both."""
  yield from root_sift.RECORD.problems(config)
  yield from delf.RECORD.problems(config)
  if config.min_attention:
    yield Problem(
      'min_attention',
      f'min_attention is {config.min_attention:g}, but with ROOT_SIFT_AND_DELF it would cut two different'
      ' units. Set it to 0; max_features keeps the best of each',
    )


def unit_origins(dimensions: int) -> np.ndarray:
  """Returns float32 [2, D]: the point that descriptors of each kind are at distance 1 from."""
  return np.stack([np.zeros(dimensions, np.float32), offset(dimensions)])


RECORD = ExtractorRecord(
  extractor=Extraction.ROOT_SIFT_AND_DELF,
  build=build,
  model_files=delf.RECORD.model_files,
  problems=problems,
  own_fields=(*root_sift.RECORD.own_fields, *delf.RECORD.own_fields),
  decisive_fields=(*root_sift.RECORD.decisive_fields, *delf.RECORD.decisive_fields),
  free_fields=(*root_sift.RECORD.free_fields, *delf.RECORD.free_fields),
  descriptors=DescriptorKind.LOCAL,
  unit_origins=unit_origins,
  uses_network=True,
  has_feature_maps=False,
)
