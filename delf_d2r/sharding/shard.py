"""One shard of a split index: it ranks its own images under their ids in the whole index."""

import pathlib

import numpy as np

from delf_d2r.data import files
from delf_d2r.data.artefacts import index_files
from delf_d2r.errors import ArtefactError, UserError
from delf_d2r.index import IndexFormatError, InvertedIndex
from delf_d2r.index.search import CorpusStatistics
from delf_d2r.sharding.layout import LIST_SIZES, load_split
from delf_d2r.sharding.messages import ShardQuery, ShardResponse


class Shard:
  """Searches one shard of a split index. Threads may share it.

  Attributes:
    split: how the index is split.
    number: the number of this shard.
    index: the images of this shard; its idf is that of the whole index.
  """

  def __init__(self, directory: str | pathlib.Path):
    """Opens the directory of a shard that split_index made.

    Raises:
      ArtefactError: it is not such a directory, or damaged.
    """
    directory = pathlib.Path(directory)
    self.split, number = load_split(directory)
    if number is None:
      raise ArtefactError(f'{directory}: the front of a split index, not a shard. Give one of its neighbours')
    self.number = number
    self._first = self.split.images(number).start
    try:
      self.index = InvertedIndex.load(directory / index_files.INVERTED)
    except (IndexFormatError, OSError) as error:
      raise ArtefactError(f'{directory}: the shard cannot be opened: {error}') from None
    list_sizes = files.load_array(directory / LIST_SIZES)
    expected = (len(self.split.images(number)), (self.index.num_words,))
    if (len(self.index), list_sizes.shape) != expected:
      raise ArtefactError(
        f'{directory}: expected (images, words) {expected}, found {(len(self.index), list_sizes.shape)}.'
        ' Run split_index again'
      )
    self.index.set_corpus_statistics(CorpusStatistics(list_sizes, self.split.entries))

  def __len__(self) -> int:
    """Returns the number of images of this shard."""
    return len(self.index)

  def answer(self, query: ShardQuery) -> ShardResponse:
    """Ranks the images of this shard, or explains the score of one of them.

    Raises:
      UserError: the query does not fit the index, or there is no such image.
      IndexFormatError: a file of the index is damaged.
    """
    try:
      return self._terms(query) if query.image_id >= 0 else self._ranking(query)
    except IndexFormatError:
      raise
    except (ValueError, IndexError) as error:
      raise UserError(f'shard {self.number}: {error}') from None

  def _ranking(self, query: ShardQuery) -> ShardResponse:
    # The index interprets a top_k of 0 as all images.
    ranking = self.index.search(query.descriptor, top_k=max(query.top_k, 1), **query.scoring)
    ids, scores, regions = (
      array[: query.top_k] for array in (ranking.image_ids, ranking.scores, ranking.best_regions)
    )
    names = [self.index.image_names[image_id] for image_id in ids.tolist()]
    return ShardResponse(self.split.id, self.number, ids + self._first, names, scores, regions)

  def _terms(self, query: ShardQuery) -> ShardResponse:
    words, terms = np.zeros(0, np.uint32), np.zeros(0)
    if query.image_id in self.split.images(self.number):
      words, terms = self.index.word_scores(
        query.descriptor, query.image_id - self._first, region=query.region, **query.scoring
      )
    empty = np.zeros(0)
    return ShardResponse(self.split.id, self.number, empty, [], empty, empty, words, terms)
