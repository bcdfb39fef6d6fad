"""Why an index image matched: the share of each visual word in the score, and its places in both photos.

The terms of the words are exact. The features of an image that share a word are aggregated to one vector, so
the term belongs to all of them together. The terms of regions are an attribution: the sum of the terms of the
words that occur in a region. Regions overlap, so their terms do not add up to the score.
"""

import dataclasses

import numpy as np

from delf_d2r.engine.search_engine import SearchEngine
from delf_d2r.protos.aggregation_pb2 import AggregationConfig
from delf_d2r.structures import ImageFeatures, LocalFeatures

# Features of overlapping regions count as one place if they round to the same hundredth of a pixel.
_DECIMALS = 2


@dataclasses.dataclass(frozen=True)
class WordMatch:
  """A visual word that both images have.

  Attributes:
    word: the index of the word in the codebook.
    term: its contribution to the score.
    query_locations: float32 [n, 2], `(y, x)` in pixels of the query photo, the distinct places of its
      features.
    index_locations: float32 [m, 2], the same in the index photo.
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
    words: the shared words, largest term first, equal terms by word.
    boxes: float32 [R - 1, 4], `[ymin, xmin, ymax, xmax]` normalised to [0, 1], the boxes of the index image.
    box_terms: float64 [R - 1], the sum of the terms of the words that occur in each box.
  """

  score: float
  words: tuple[WordMatch, ...]
  boxes: np.ndarray
  box_terms: np.ndarray


def explain(
  engine: SearchEngine, query: ImageFeatures, image_id: int, image: ImageFeatures, *, region: int = -1
) -> Explanation:
  """Splits the score of an index image into the terms of its visual words.

  Args:
    engine: the engine that computed the score.
    query: the features of the query.
    image_id: the index image.
    image: the features of the index image.
    region: with regional search or region masks the region whose score it is (`SearchResult.best_region`).

  Returns:
    The terms, and the places of the words in both photos.
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
  """Returns the regions that the index entry was aggregated from; with region masks, the one that scored."""
  config = engine.artefact.config.aggregation
  if config.regions == AggregationConfig.REGIONAL_AGGREGATION and not config.region_masks:
    return image
  return image.take_regions([max(region, 0)])


def _places(words: np.ndarray, features: LocalFeatures, assigned: np.ndarray) -> list[np.ndarray]:
  """Returns for each word the distinct places of the features that are assigned to it.

  Args:
    words: int [W], ascending.
    features: N local features.
    assigned: int32 [N, m], the words of each feature.

  Returns:
    W arrays float32 [n, 2].
  """
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
  """Returns float64 [R - 1], the sum of the terms of the words that occur in each box."""
  offsets = image.region_offsets
  return np.array(
    [terms[np.isin(words, assigned[offsets[r] : offsets[r + 1]])].sum() for r in range(1, image.num_regions)],
    np.float64,
  )
