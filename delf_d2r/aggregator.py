"""From an AggregationConfig to the kernels that aggregate local features and the options of a search."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from delf_d2r.data.artefacts.records import ImageDescriptors
from delf_d2r.index.segments import ValueType
from delf_d2r.kernels import aggregation as kernels
from delf_d2r.kernels.aggregation import MASKED_REGIONS, Kernel
from delf_d2r.kernels.approximate_assignment import ApproximateAssigner
from delf_d2r.kernels.assignment import Assigner, ExactAssigner
from delf_d2r.kernels.projection import Projection
from delf_d2r.protos import aggregation_pb2
from delf_d2r.structures import AggregatedDescriptor, ImageFeatures, LocalFeatures

Aggregation = aggregation_pb2.AggregationConfig

_KERNELS = {
  Aggregation.VLAD: Kernel.VLAD,
  Aggregation.ASMK: Kernel.ASMK,
  Aggregation.ASMK_STAR: Kernel.ASMK_STAR,
}

# AUTO assigns approximately if recall@1 is at least this.
LEAST_RECALL = 0.995

# A constant, so that the approximate search over the centroids is the same in every run.
_ASSIGNMENT_SEED = 0


class SearchOptions(TypedDict, total=False):
  """Keyword arguments of InvertedIndex.search and word_scores; see `index.search.Scoring`."""

  alpha: float
  tau: float
  normalize: bool
  use_idf: bool
  compat: bool


def kernel(config: Aggregation) -> Kernel:
  """Returns the kernel that a config names."""
  return _KERNELS[config.kernel]


def value_type(config: Aggregation) -> ValueType:
  """Returns how an index stores the values of VLAD."""
  return ValueType[Aggregation.ValueType.Name(config.value_type)]


def normalizes(config: Aggregation) -> bool:
  """Returns `normalize`, whose default depends on `regions` and `region_masks`."""
  if config.HasField('normalize'):
    return config.normalize
  return config.regions != Aggregation.REGIONAL_AGGREGATION or config.region_masks


def assigner(choice: int, centroids: np.ndarray, *, recall: float) -> Assigner:
  """Returns an assigner of descriptors to visual words; make it once for each codebook.

  Args:
    choice: EXACT, APPROXIMATE or AUTO, of AggregationConfig.Assignment.
    centroids: float32 [K, D], the visual words.
    recall: recall@1 of the approximate assignment, for AUTO.
  """
  if choice == Aggregation.APPROXIMATE or (choice == Aggregation.AUTO and recall >= LEAST_RECALL):
    return approximate_assigner(centroids)
  return ExactAssigner(centroids)


def approximate_assigner(centroids: np.ndarray) -> ApproximateAssigner:
  """Returns the approximate assigner whose recall is measured when a codebook is trained."""
  return ApproximateAssigner(centroids, seed=_ASSIGNMENT_SEED)


def search_options(config: Aggregation) -> SearchOptions:
  """Returns the keyword arguments of InvertedIndex.search that a config asks for."""
  return {
    'alpha': config.alpha,
    'tau': config.tau,
    'normalize': kernel(config).is_selective and normalizes(config),
    'use_idf': config.use_idf,
    'compat': config.compat,
  }


class Aggregator:
  """Aggregates the local features of index images and of queries."""

  def __init__(
    self,
    config: Aggregation,
    centroids: np.ndarray,
    assign: Assigner,
    projection: Projection | None = None,
  ):
    """Prepares to aggregate.

    Args:
      config: the kernel, the treatment of regions and the numbers of assignments.
      centroids: float32 [K, D], the visual words.
      assign: finds the nearest words of descriptors.
      projection: of residuals before their signs are taken, from the codebook; None if it has none.
    """
    self._config = config
    self._centroids = centroids
    self._assign = assign
    self._projection = projection
    self._kernel = kernel(config)
    self._normalize = normalizes(config)

  def index_image(self, image: ImageFeatures) -> ImageDescriptors:
    """Returns the aggregated descriptor of an index image, or one for each region (regional search).

    With region masks, only the first 8 regions count, which are the whole image and its 7 best boxes.
    """
    if self._config.region_masks and image.num_regions > MASKED_REGIONS:
      image = image.take_regions(range(MASKED_REGIONS))
    if self._config.regions == Aggregation.WHOLE_IMAGE:
      descriptors = image.region(0).descriptors
      words = self._assign(descriptors, self._config.num_assignments)
      whole = kernels.aggregate(
        descriptors,
        words,
        self._centroids,
        kernel=self._kernel,
        normalize=self._normalize,
        projection=self._projection,
      )
      return ImageDescriptors(image.name, image.boxes[:1], [whole])
    descriptors = image.features.descriptors
    words = self._assign(descriptors, self._config.num_assignments)
    arguments = (descriptors, words, image.region_offsets, self._centroids)
    if self._config.regions == Aggregation.REGIONAL_SEARCH:
      each = kernels.aggregate_each_region(
        *arguments, kernel=self._kernel, normalize=self._normalize, projection=self._projection
      )
      return ImageDescriptors(image.name, image.boxes, each)
    joint = kernels.aggregate_regions(
      *arguments,
      kernel=self._kernel,
      normalize=self._normalize,
      masks=self._config.region_masks,
      weights=self._region_weights(image.num_regions),
      projection=self._projection,
    )
    return ImageDescriptors(image.name, image.boxes, [joint])

  def _region_weights(self, num_regions: int) -> np.ndarray | None:
    """Returns the weights float64 [R] of the regions of an image; None if all are alike."""
    if not self._config.HasField('whole_image_weight') or num_regions < 2:
      return None
    weights = np.ones(num_regions)
    weights[0] = self._config.whole_image_weight
    return weights

  def query(self, image: ImageFeatures) -> AggregatedDescriptor:
    """Returns the aggregated descriptor of a query image, which has one region and no regional kernel."""
    descriptors = image.features.descriptors
    words = self._assign(descriptors, self._config.query_num_assignments)
    return kernels.aggregate(
      descriptors, words, self._centroids, kernel=self._kernel, projection=self._projection
    )

  def words(self, descriptors: np.ndarray, *, of_query: bool) -> np.ndarray:
    """Returns int32 [N, m], the visual words of descriptors float32 [N, D] of a query or an index image."""
    config = self._config
    return self._assign(descriptors, config.query_num_assignments if of_query else config.num_assignments)

  def expanded_query(
    self,
    image: ImageFeatures,
    others: Sequence[LocalFeatures],
    weights: Sequence[float],
    *,
    min_images_per_word: int = 1,
  ) -> AggregatedDescriptor:
    """Returns the aggregated descriptor of a query and of other images of the same object.

    This is R-ASMK (paper, section 4.2) with the query as one region and each other image as another one.

    Args:
      image: the query, which has weight 1.
      others: the local features of the other images.
      weights: their weights, positive.
      min_images_per_word: a feature counts if its nearest word occurs in the query or in at least this many
        other images.
    """
    parts = [image.features.descriptors, *(other.descriptors for other in others)]
    descriptors = np.concatenate(parts)
    owners = np.repeat(np.arange(len(parts)), list(map(len, parts)))
    words = self._assign(descriptors, self._config.query_num_assignments)
    shown = np.zeros((len(parts), len(self._centroids)), bool)
    shown[owners, words[:, 0]] = True
    credible = shown[0] | (shown[1:].sum(axis=0) >= min_images_per_word)
    kept = credible[words[:, 0]]
    return kernels.aggregate_regions(
      descriptors[kept],
      words[kept],
      np.cumsum([0, *np.bincount(owners[kept], minlength=len(parts))], dtype=np.int64),
      self._centroids,
      kernel=self._kernel,
      normalize=True,
      weights=np.array([1.0, *weights]),
      projection=self._projection,
    )
