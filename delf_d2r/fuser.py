"""Reads a FusionConfig: how the scores of two searches of the same images are added."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from delf_d2r.index.ranking import top_k as select_top_k
from delf_d2r.kernels import fusion
from delf_d2r.kernels.fusion import FusedScores
from delf_d2r.protos.fusion_pb2 import FusionConfig
from delf_d2r.structures import AggregatedDescriptor, Ranking


class Fuser:
  """Adds the scores of two searches. Threads may share it."""

  def __init__(self, config: FusionConfig):
    """Takes weight and normalization of a config."""
    self._weight = config.weight
    self._normalization = config.normalization

  def __call__(
    self,
    first: npt.NDArray[Any],
    other: npt.NDArray[Any],
    query: AggregatedDescriptor | None = None,
    other_query: AggregatedDescriptor | None = None,
  ) -> FusedScores:
    """Returns the sums of the scores of M images, and their parts.

    Args:
      first: float [M], the scores of the first search.
      other: float [M], those of the other search, for the same images.
      query, other_query: the query as both searches describe it.
    """
    return fusion.add(self._comparable(first), self._comparable(other), self._weight)

  def _comparable(self, scores: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    if self._normalization == FusionConfig.NONE:
      return scores.astype(np.float64)
    return fusion.z_scores(scores)


def ranked(
  fused: FusedScores,
  best_regions: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int32]],
  *,
  top_k: int,
  name: str = '',
) -> Ranking:
  """Returns the ranking of M images by fused scores, with both parts.

  Args:
    fused: the scores.
    best_regions: from ids of images, int64 [k], to their best regions, int32 [k].
    top_k: length of the ranking.
    name: of the query.
  """
  ids = select_top_k(fused.scores, top_k)
  return Ranking(
    name,
    ids,
    fused.scores[ids],
    best_regions(ids),
    local_scores=fused.local_scores[ids],
    global_scores=fused.global_scores[ids],
  )
