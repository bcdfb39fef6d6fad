"""A split index that answers like a whole one: every shard is asked at once, their rankings are merged.

An image scores in its shard what it scores in the whole index, bit by bit: the scores of an image do not
depend on its neighbours, and idf, which does, is counted over the whole index when it is split. The first k
of the whole ranking are therefore among the first k of each shard, and equal scores stand in order of the
places in the whole index.
"""

import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from delf_d2r.errors import ArtefactError, UnavailableError
from delf_d2r.index.images import NameTable
from delf_d2r.sharding.client import ShardClient
from delf_d2r.sharding.layout import load_names, load_split
from delf_d2r.sharding.messages import MAX_RESULTS, Answer, Question
from delf_d2r.structures import AggregatedDescriptor, Ranking

DEFAULT_TIMEOUT = 5.0


class ShardedIndex:
  """What `InvertedIndex` is to a search, with its postings on other servers. Threads may share it.

  Attributes:
    split: how the index is split.
    image_names: the names of all images by image id.
    checksum: None, as this index has no postings of its own.
  """

  checksum = None

  def __init__(
    self,
    directory: str | pathlib.Path,
    addresses: Callable[[], tuple[str, ...]],
    *,
    timeout: float = DEFAULT_TIMEOUT,
  ):
    """For the front of a split index.

    Args:
      directory: `front` of what split_index made.
      addresses: gives the addresses of the shards, in any order, as they are now (`Addresses`).
      timeout: seconds that a search waits for shards; what has not answered then counts as missing.

    Raises:
      ArtefactError: the directory is no such front, or damaged.
    """
    directory = pathlib.Path(directory)
    self.split, shard = load_split(directory)
    if shard is not None:
      raise ArtefactError(f'{directory}: shard {shard} of a split index, not its front')
    self.image_names: NameTable = load_names(directory)
    if len(self.image_names) != self.split.bounds[-1]:
      raise ArtefactError(
        f'{directory}: expected {self.split.bounds[-1]} names, found {len(self.image_names)}. Run split_index'
        ' again'
      )
    self._addresses = addresses
    self._client = ShardClient(timeout)

  def __len__(self) -> int:
    return len(self.image_names)

  def __repr__(self) -> str:
    return f'ShardedIndex({len(self)} images, {len(self.split)} shards)'

  def search(
    self, query: AggregatedDescriptor, *, top_k: int | None = 100, name: str = '', **scoring
  ) -> Ranking:
    """As `InvertedIndex.search`; the ranking says in `missing_shards` whose images it lacks.

    Raises:
      ValueError: `top_k` is 0, None or more than shards give.
      UserError: the query does not fit the index.
    """
    if not top_k or not 0 < top_k <= MAX_RESULTS:
      raise ValueError(f'top_k: expected 1 to {MAX_RESULTS} with a split index, found {top_k}')
    answers = self._ask(Question(query, top_k, scoring))
    missing = tuple(shard for shard in range(len(self.split)) if shard not in answers)
    parts = [*answers.values()]
    ids = np.concatenate([np.zeros(0, np.int64), *(answer.image_ids for answer in parts)])
    scores = np.concatenate([np.zeros(0, np.float32), *(answer.scores for answer in parts)])
    regions = np.concatenate([np.zeros(0, np.int32), *(answer.regions for answer in parts)])
    best = np.lexsort((ids, -scores))[:top_k]
    return Ranking(name, ids[best], scores[best], regions[best], missing_shards=missing)

  def word_scores(
    self, query: AggregatedDescriptor, image_id: int, *, region: int = -1, **scoring
  ) -> tuple[np.ndarray, np.ndarray]:
    """As `InvertedIndex.word_scores`.

    Raises:
      UnavailableError: the shard of the image does not answer.
    """
    if not 0 <= image_id < len(self):
      raise IndexError(f'expected an image id below {len(self)}, found {image_id}')
    shard = self.split.shard_of(image_id)
    answer = self._ask(Question(query, 0, scoring, image_id, region)).get(shard)
    if answer is None:
      raise UnavailableError(f'shard {shard}, which has image {image_id}, does not answer')
    return answer.words, answer.terms

  def warm(self, report: Callable[[int, int], None] = lambda done, total: None) -> int:
    """Nothing to read: shards warm themselves."""
    del report
    return 0

  def fork(self):
    """Raises ValueError: a split index does not change."""
    raise ValueError('it is split. Change the whole index and run split_index again')

  def close(self) -> None:
    """Gives up the connections."""
    self._client.close()

  def _ask(self, question: Question) -> dict[int, Answer]:
    """The answers by shard; of replicas, which answer alike, either."""
    answers = self._client.ask(
      self._addresses(), question.encode(), accept=self._check, are_all=self._are_all
    )
    return {answer.shard: answer for answer in answers}

  def _are_all(self, answers: Sequence[Answer]) -> bool:
    return len({answer.shard for answer in answers}) == len(self.split)

  def _check(self, answer: Answer) -> None:
    if answer.split != self.split.id:
      raise ValueError(f'a shard of split {answer.split}, expected one of {self.split.id}')
    if not 0 <= answer.shard < len(self.split):
      raise ValueError(f'shard {answer.shard} of {len(self.split)}')
    images = self.split.images(answer.shard)
    ids = answer.image_ids
    if len(ids) and not (ids.min() >= images.start and ids.max() < images.stop):
      raise ValueError(f'shard {answer.shard} names images beyond its own, {images}')
