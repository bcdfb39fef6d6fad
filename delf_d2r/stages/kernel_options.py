"""From the fields of AggregationConfig to what kernels and index take."""

import numpy as np

from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.kernels.assignment import ApproximateAssigner, Assigner, ExactAssigner
from delf_d2r.protos import aggregation_pb2

Aggregation = aggregation_pb2.AggregationConfig

_KERNELS = {
  Aggregation.VLAD: Kernel.VLAD,
  Aggregation.ASMK: Kernel.ASMK,
  Aggregation.ASMK_STAR: Kernel.ASMK_STAR,
}

# The graph over the centroids is the same in every run.
_GRAPH_SEED = 0


def kernel(config: Aggregation) -> Kernel:
  """The kernel that a config names."""
  return _KERNELS[config.kernel]


def normalizes(config: Aggregation) -> bool:
  """The meaning of `normalize`, which when unset depends on `regions`."""
  if config.HasField('normalize'):
    return config.normalize
  return config.regions != Aggregation.REGIONAL_AGGREGATION


def assigner(config: Aggregation, centroids: np.ndarray) -> Assigner:
  """What finds the visual words of descriptors; made once for a codebook."""
  if config.assignment == Aggregation.APPROXIMATE:
    return ApproximateAssigner(centroids, seed=_GRAPH_SEED)
  return ExactAssigner(centroids)


def search_options(config: Aggregation) -> dict[str, float | bool]:
  """Keyword arguments of InvertedIndex.search."""
  return {
    'alpha': config.alpha,
    'tau': config.tau,
    'normalize': config.kernel != Aggregation.VLAD and normalizes(config),
    'use_idf': config.use_idf,
  }
