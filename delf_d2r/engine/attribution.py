"""Why an index image matched: what each visual word adds to its score, and where it stands in both photos.

The terms of the score are exact. Where a word has several features in a photo they share one vector, so its
term is that of all of them together. What regions carried is an attribution: the terms of the words that a
region shows. Regions overlap, so theirs do not add up to the score.
"""

import dataclasses

import numpy as np

from delf_d2r.engine.search_engine import SearchEngine
from delf_d2r.protos.aggregation_pb2 import AggregationConfig
from delf_d2r.structures import ImageFeatures, LocalFeatures

# Features of overlapping regions are one place if they round to the same hundredth of a pixel.
_DECIMALS = 2


@dataclasses.dataclass(frozen=True)
class WordMatch:
  """A visual word that both images have.

  Attributes:
    word: its number in the codebook.
    term: what it adds to the score.
    query_locations, index_locations: float32 [n, 2] and [m, 2], `(y, x)` in pixels of each photo: the places
      of its features, each once.
  """

  word: int
  term: float
  query_locations: np.ndarray
  index_locations: np.ndarray


@dataclasses.dataclass(frozen=True)
class Explanation:
  """Why an index image has its score.

  Attributes:
    score: the sum of all terms.
    words: largest term first, equal ones by number.
    boxes: float32 [R - 1, 4], the boxes of the index image, normalised.
    box_terms: float64 [R - 1], the terms of the words that each box shows.
  """

  score: float
  words: tuple[WordMatch, ...]
  boxes: np.ndarray
  box_terms: np.ndarray


def explain(
  engine: SearchEngine, query: ImageFeatures, image_id: int, image: ImageFeatures, *, region: int = -1
) -> Explanation:
  """Takes the score of an index image apart.

  Args:
    engine: of the index.
    query: the query's features.
    image_id: the index image.
    image: its features.
    region: with regional search the region whose score it is (`SearchResult.best_region`).
  """
  words, terms = engine.word_scores(engine.describe(query), image_id, region=region)
  indexed = _indexed_part(engine, image, region)
  query_words = engine.words(query.features, of_query=True)
  index_words = engine.words(indexed.features, of_query=False)
  places_in_query = _places(words, query.features, query_words)
  places_in_index = _places(words, indexed.features, index_words)
  order = np.lexsort((words, -terms))
  matches = tuple(
    WordMatch(int(words[w]), float(terms[w]), places_in_query[w], places_in_index[w]) for w in order
  )
  return Explanation(
    float(terms.sum()), matches, indexed.boxes[1:], _box_terms(indexed, index_words, words, terms)
  )


def _indexed_part(engine: SearchEngine, image: ImageFeatures, region: int) -> ImageFeatures:
  """The regions that the entry was made of."""
  regions = engine.artefact.config.aggregation.regions
  if regions == AggregationConfig.REGIONAL_AGGREGATION:
    return image
  return image.take_regions([max(region, 0)])


def _places(words: np.ndarray, features: LocalFeatures, assigned: np.ndarray) -> list[np.ndarray]:
  """For each of `words`, ascending, the places float32 [n, 2] of the features that are assigned to it."""
  owners = np.repeat(np.arange(len(features)), assigned.shape[1])
  flat = assigned.ravel()
  order = np.argsort(flat, kind='stable')
  starts, stops = (np.searchsorted(flat[order], words, side) for side in ('left', 'right'))
  locations = features.locations.round(_DECIMALS)
  return [
    np.unique(locations[owners[order[start:stop]]], axis=0) for start, stop in zip(starts, stops, strict=True)
  ]


def _box_terms(
  image: ImageFeatures, assigned: np.ndarray, words: np.ndarray, terms: np.ndarray
) -> np.ndarray:
  offsets = image.region_offsets
  return np.array(
    [terms[np.isin(words, assigned[offsets[r] : offsets[r + 1]])].sum() for r in range(1, image.num_regions)],
    np.float64,
  )
