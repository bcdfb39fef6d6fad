"""Two kinds of local features in one list, one codebook and one index."""

import numpy as np

from delf_d2r.extractors.region_extractor import LocalExtractor
from delf_d2r.structures import LocalFeatures

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
    """Features of uint8 [H, W, 3], locations in its pixels; each kind in its extractor's order."""
    return LocalFeatures.concatenate([self._first(image), _moved_away(self._second(image))])

  @property
  def note(self) -> str:
    """What a user should know about images that were left without features of a kind; '' if nothing."""
    return ' '.join(filter(None, (getattr(part, 'note', '') for part in (self._first, self._second))))


def _moved_away(features: LocalFeatures) -> LocalFeatures:
  descriptors = features.descriptors + offset(features.dimensions)
  return LocalFeatures(features.locations, features.scales, features.attention, descriptors)


def offset(dimensions: int) -> np.ndarray:
  """float32 [D]: what descriptors of the second kind are moved by."""
  return _DISTANCE * np.eye(1, dimensions, dtype=np.float32)[0]
