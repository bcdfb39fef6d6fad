"""Random aggregated descriptors of any size, with a Zipf-like distribution of visual words."""

import numpy as np

from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.structures import AggregatedDescriptor

ZIPF_EXPONENT = 0.7
ZIPF_SHIFT = 50.0


class DescriptorGenerator:
  """Draws descriptors whose words follow p(rank) ~ (rank + 50)^-0.7, so that posting lists differ in length.

  With K = 65,536 and 600 words an image, the longest list holds about 8 % of the images, and a query of the
  same distribution meets lists about twice as long as the mean.

  Args:
    num_words: K.
    dimensions: D.
    kernel: of the descriptors.
    words_per_image: mean number of words W; an image has 0.5 to 1.5 times as many, or one if W is 1.
    masked_regions: regions of an image, for region masks: the whole image has two thirds of all words, each
      other region a third. 0 makes descriptors without masks.
    seed: of the random numbers.
  """

  def __init__(
    self,
    *,
    num_words=65536,
    dimensions=128,
    kernel=Kernel.ASMK_STAR,
    words_per_image=600,
    masked_regions=0,
    seed=0,
  ):
    self._rng = np.random.default_rng(seed)
    weights = (np.arange(num_words) + ZIPF_SHIFT) ** -ZIPF_EXPONENT
    self._cumulative = np.cumsum(weights / weights.sum())
    self._word_of_rank = self._rng.permutation(num_words).astype(np.uint32)
    self._dimensions = dimensions
    self._kernel = kernel
    self._words_per_image = words_per_image
    self._masked_regions = masked_regions

  def draw(self, num_words_present: int | None = None) -> AggregatedDescriptor:
    """Returns one descriptor, of about `num_words_present` words if given."""
    rng = self._rng
    mean = self._words_per_image
    # An image with a single word, as of global descriptors, has always one.
    varied = int(rng.integers(mean // 2, mean + mean // 2 + 1)) if mean > 1 else mean
    target = num_words_present or varied
    ranks = np.searchsorted(self._cumulative, rng.random(target * 105 // 100))
    words = np.unique(self._word_of_rank[np.minimum(ranks, len(self._word_of_rank) - 1)])
    if self._kernel.is_binary:
      columns = self._kernel.columns(self._dimensions)
      values = rng.integers(0, 256, (len(words), columns), np.uint8)
      values[:, -1] &= 0xFF << (-self._dimensions % 8) & 0xFF  # The bits of padding are 0.
    else:
      values = rng.standard_normal((len(words), self._dimensions), np.float32)
      values /= np.linalg.norm(values, axis=1, keepdims=True)
    return AggregatedDescriptor(words, values, self._dimensions, self._draw_masks(len(words)))

  def _draw_masks(self, count: int) -> np.ndarray | None:
    if not self._masked_regions:
      return None
    has = self._rng.random((count, self._masked_regions)) < [2 / 3, *[1 / 3] * (self._masked_regions - 1)]
    masks = np.packbits(has, axis=1, bitorder='little')[:, 0]
    return np.maximum(masks, 1)

  def draw_many(self, count: int) -> list[AggregatedDescriptor]:
    return [self.draw() for _ in range(count)]
