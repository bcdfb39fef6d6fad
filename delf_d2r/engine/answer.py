"""What the engine answers."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from delf_d2r.engine.live_index import Snapshot
from delf_d2r.structures import ImageFeatures, Match, Ranking


@dataclasses.dataclass(frozen=True)
class SearchResult:
  """One index image of an answer.

  Attributes:
    rank: from 1.
    name: the image's name.
    score: its similarity to the query; 0 where they share no visual word.
    boxes: float32 [R - 1, 4], its boxes, the whole image left out.
    best_region: with regional search the region that scored best (0 the whole image, r the box r - 1),
      else -1.
    match: what spatial verification found; None if it did not look at this image.
  """

  rank: int
  name: str
  score: float
  boxes: np.ndarray
  best_region: int
  match: Match | None = None

  @property
  def inliers(self) -> int | None:
    """The matches that agree, 0 where nothing is verified; None if this image was not looked at."""
    return None if self.match is None else len(self.match)


@dataclasses.dataclass(frozen=True)
class Answer:
  """What a search found.

  Attributes:
    results: best first.
    features: of the query; without any, every score is 0.
    seconds: wall time of each part: decode, extract, describe, search, verify.
    missing_shards: numbers of the shards of a sharded index that did not answer; what their images score is
      not known.
  """

  results: tuple[SearchResult, ...]
  features: ImageFeatures
  seconds: dict[str, float]
  missing_shards: tuple[int, ...] = ()

  @property
  def num_features(self) -> int:
    return len(self.features.features)


def results_of(
  snapshot: Snapshot, ranking: Ranking, matches: Sequence[Match] = ()
) -> tuple[SearchResult, ...]:
  """A ranking of the images of a snapshot with their names and boxes, and what was found of some of them."""
  match_of = {match.image_id: match for match in matches}
  ranked = zip(ranking.image_ids.tolist(), ranking.scores, ranking.best_regions, strict=True)
  return tuple(
    SearchResult(
      rank,
      snapshot.index.image_names[image],
      float(score),
      snapshot.boxes(image),
      int(region),
      match_of.get(image),
    )
    for rank, (image, score, region) in enumerate(ranked, start=1)
  )
