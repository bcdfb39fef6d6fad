"""Spatial verification of the images at the head of a ranking, on threads."""

import concurrent.futures
import functools
import os
from collections.abc import Callable

import numpy as np

from delf_d2r.engine.live_index import Snapshot
from delf_d2r.errors import UserError
from delf_d2r.protos.extraction_pb2 import ExtractionConfig
from delf_d2r.protos.verification_pb2 import VerificationConfig
from delf_d2r.structures import ImageFeatures, LocalFeatures, Match, Ranking
from delf_d2r.verifier import Verifier, features_to_match, unmatchable

# Index images whose features are kept between verifications: some 2 MB each.
_CACHED_IMAGES = 128


class Candidates:
  """Matches queries with index images. Threads may share it.

  Attributes:
    num_images: images of each ranking that are looked at.
    refusal: why nothing can be verified; empty if it can.
  """

  def __init__(
    self,
    config: VerificationConfig,
    extraction: ExtractionConfig,
    read: Callable[[Snapshot, int], ImageFeatures],
  ):
    """Takes how the index images were extracted, and what reads the features of one."""
    self.num_images = config.num_images
    self.refusal = unmatchable(extraction.extractor, config)
    if config.HasField('extraction'):
      self.refusal = (
        'the verification of this run has features of its own, which a search does not make. Search without'
        ' verification, or set another one'
      )
    self._verifier = Verifier(config)
    self._features_of = functools.lru_cache(_CACHED_IMAGES)(
      lambda snapshot, image_id: features_to_match(read(snapshot, image_id), config)
    )

  def verify(self, snapshot: Snapshot, query: LocalFeatures, ranking: Ranking) -> list[Match]:
    """What is between a query and each image at the head of its ranking.

    Raises:
      UserError: `refusal` says why.
    """
    if self.refusal:
      raise UserError(self.refusal)
    head = ranking.image_ids[: self.num_images].tolist()
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
      return list(pool.map(lambda image_id: self.match(snapshot, query, image_id), head))

  def match(self, snapshot: Snapshot, query: LocalFeatures, image_id: int) -> Match:
    """What is between a query and one index image; nothing, where nothing can be verified."""
    if self.refusal:
      places = np.zeros((0, 2), np.float32)
      return Match(image_id, np.zeros((3, 3)), places, places)
    return self._verifier.match(query, image_id, self._features_of(snapshot, image_id))

  def forget(self) -> None:
    """Drops features that are kept, and with them snapshots of the past."""
    self._features_of.cache_clear()
