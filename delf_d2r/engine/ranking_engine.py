"""What ranks features that are there already: describing them, asking the index, telling why."""

from collections.abc import Callable, Sequence

import numpy as np

from delf_d2r import aggregator
from delf_d2r.data.artefacts import codebook_files
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.engine.answer import SearchResult, results_of
from delf_d2r.engine.live_index import LiveIndex
from delf_d2r.index.inverted_index import InvertedIndex
from delf_d2r.protos.aggregation_pb2 import AggregationConfig
from delf_d2r.structures import AggregatedDescriptor, ImageFeatures, LocalFeatures, Ranking


class RankingEngine:
  """Features of a query in, ranked index images out; no photo plays a role."""

  def __init__(self, live: LiveIndex, aggregation: AggregationConfig):
    """Takes an index and how queries are assigned and compared."""
    self._live = live
    centroids = np.ascontiguousarray(codebook_files.load_centroids(self.artefact.path))
    recall = codebook_files.load_recall(self.artefact.path)
    assign = aggregator.assigner(aggregation.query_assignment, centroids, recall=recall)
    self._aggregator = aggregator.Aggregator(aggregation, centroids, assign)
    self._search_options = aggregator.search_options(aggregation)

  def __len__(self) -> int:
    return len(self.index)

  def __repr__(self) -> str:
    return f'{type(self).__name__}({self.artefact.path}, {self.index!r})'

  @property
  def artefact(self) -> Artefact:
    """The index artefact, as it was loaded or last saved."""
    return self._live.artefact

  @property
  def index(self) -> InvertedIndex:
    """The index with all changes so far; for reading only. A change puts another one in its place."""
    return self._live.snapshot.index

  def describe(self, query: ImageFeatures) -> AggregatedDescriptor:
    """The aggregated descriptor of a query's features."""
    return self._aggregator.query(query)

  def describe_expanded(
    self,
    query: ImageFeatures,
    others: Sequence[LocalFeatures],
    weights: Sequence[float],
    *,
    min_images_per_word: int = 1,
  ) -> AggregatedDescriptor:
    """The same with what other images show of the query's object; see Aggregator.expanded_query."""
    return self._aggregator.expanded_query(query, others, weights, min_images_per_word=min_images_per_word)

  def rank(self, query: AggregatedDescriptor, *, top_k: int, name: str = '') -> Ranking:
    """The ranking for an aggregated descriptor.

    Args:
      query: from `describe`.
      top_k: its length; 0 ranks all index images.
      name: the query's name.
    """
    return self.index.search(query, top_k=top_k, name=name, **self._search_options)

  def word_scores(
    self, query: AggregatedDescriptor, image_id: int, *, region: int = -1
  ) -> tuple[np.ndarray, np.ndarray]:
    """The visual words that a query shares with an index image and what each adds to the score.

    See `InvertedIndex.word_scores`.
    """
    return self.index.word_scores(query, image_id, region=region, **self._search_options)

  def words(self, features: LocalFeatures, *, of_query: bool) -> np.ndarray:
    """The visual words int32 [N, m] of local features, of a query or of an index image."""
    return self._aggregator.words(features.descriptors, of_query=of_query)

  def warm(self, report: Callable[[int, int], None] = lambda done, total: None) -> int:
    """Reads the whole index on the disk in a row, so that searches find it in memory; returns the bytes.

    Args:
      report: called with the bytes read so far and in total.
    """
    return self.index.warm(report)

  def results(self, ranking: Ranking) -> tuple[SearchResult, ...]:
    """A ranking with names and boxes."""
    return results_of(self._live.snapshot, ranking)

  def boxes(self, image_id: int) -> np.ndarray:
    """float32 [R - 1, 4]: the boxes of an index image, the whole image left out."""
    return self._live.snapshot.boxes(image_id)
