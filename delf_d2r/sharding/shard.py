"""One shard: it ranks its own images, under their places in the whole index."""

import pathlib

import numpy as np

from delf_d2r.data import files
from delf_d2r.data.artefacts import index_files
from delf_d2r.errors import ArtefactError, UserError
from delf_d2r.index.array_files import IndexFormatError
from delf_d2r.index.inverted_index import InvertedIndex
from delf_d2r.index.search import Corpus
from delf_d2r.sharding.layout import LIST_SIZES, load_split
from delf_d2r.sharding.messages import Answer, Question


class Shard:
  """Searches one shard of a split index. Threads may share it.

  Attributes:
    split: how the index is split.
    number: which shard this is.
    index: its images alone; idf is that of the whole index.
  """

  def __init__(self, directory: str | pathlib.Path):
    """Opens a directory of split_index.

    Raises:
      ArtefactError: it is none, or damaged.
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
    self.index.use_corpus(Corpus(list_sizes, self.split.entries))

  def __len__(self) -> int:
    return len(self.index)

  def answer(self, question: Question) -> Answer:
    """This shard's part of the answer.

    Raises:
      UserError: the query does not fit the index, or there is no such image.
      IndexFormatError: a file of the index is damaged.
    """
    try:
      return self._terms(question) if question.image_id >= 0 else self._ranking(question)
    except IndexFormatError:
      raise
    except (ValueError, IndexError) as error:
      raise UserError(f'shard {self.number}: {error}') from None

  def _ranking(self, question: Question) -> Answer:
    # The index takes a top_k of 0 for all images.
    ranking = self.index.search(question.descriptor, top_k=max(question.top_k, 1), **question.scoring)
    ids, scores, regions = (
      array[: question.top_k] for array in (ranking.image_ids, ranking.scores, ranking.best_regions)
    )
    names = [self.index.image_names[image_id] for image_id in ids.tolist()]
    return Answer(self.split.id, self.number, ids + self._first, names, scores, regions)

  def _terms(self, question: Question) -> Answer:
    nothing = np.zeros(0)
    words, terms = nothing, nothing
    if question.image_id in self.split.images(self.number):
      words, terms = self.index.word_scores(
        question.descriptor, question.image_id - self._first, region=question.region, **question.scoring
      )
    return Answer(self.split.id, self.number, nothing, [], nothing, nothing, words, terms)
