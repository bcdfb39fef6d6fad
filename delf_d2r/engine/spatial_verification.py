"""Spatial verification of the best images of a ranking, on threads."""

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
from delf_d2r.verifier import Verifier, features_to_match, why_unverifiable

# Index images whose features are cached between verifications: about 2 MB each.
_CACHED_IMAGES = 128


class SpatialVerification:
  """Matches the local features of queries with those of index images. Threads may share it.

  Attributes:
    num_images: the number of images of each ranking that are verified.
    why_unverifiable: the reason why results cannot be verified; empty if they can.
  """

  def __init__(
    self,
    config: VerificationConfig,
    extraction: ExtractionConfig,
    read: Callable[[Snapshot, int], ImageFeatures],
  ):
    """Prepares the verification of the images of one index.

    Args:
      config: how to verify.
      extraction: how the features of the index images were extracted.
      read: returns the features of an index image of a snapshot.
    """
    self.num_images = config.num_images
    self.why_unverifiable = why_unverifiable(extraction.extractor, config)
    if config.HasField('extraction'):
      self.why_unverifiable = (
        'the verification of this run has features of its own, which a search does not extract. Search'
        ' without verification, or set another one'
      )
    self._verifier = Verifier(config, extraction.extractor)
    self._features_of = functools.lru_cache(_CACHED_IMAGES)(
      lambda snapshot, image_id: features_to_match(read(snapshot, image_id), config)
    )

  def verify(self, snapshot: Snapshot, query: LocalFeatures, ranking: Ranking) -> list[Match]:
    """Matches a query with the first `num_images` images of its ranking.

    Args:
      snapshot: the images of the index.
      query: the local features of the query.
      ranking: the ranking of the query.

    Returns:
      The match of each verified image, in the order of the ranking.

    Raises:
      UserError: `why_unverifiable` gives a reason.
    """
    if self.why_unverifiable:
      raise UserError(self.why_unverifiable)
    head = ranking.image_ids[: self.num_images].tolist()
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
      return list(pool.map(lambda image_id: self.match(snapshot, query, image_id), head))

  def match(self, snapshot: Snapshot, query: LocalFeatures, image_id: int) -> Match:
    """Matches a query with one index image; the match is empty if results cannot be verified."""
    if self.why_unverifiable:
      places = np.zeros((0, 2), np.float32)
      return Match(image_id, np.zeros((3, 3)), places, places)
    return self._verifier.match(query, image_id, self._features_of(snapshot, image_id))

  def clear_cache(self) -> None:
    """Drops the cached features, and with them references to older snapshots."""
    self._features_of.cache_clear()
