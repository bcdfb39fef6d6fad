"""A split index that is searched like a whole one: it queries all shards and merges their rankings.

The score of an image in its shard is bit for bit its score in the whole index: it does not depend on the
other images, except through idf, which is counted over the whole index before it is split. The best k images
of the whole index are therefore among the best k of the shards. Images of equal score are ordered by their
ids in the whole index, as in one index.
"""

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import NoReturn, Unpack

import numpy as np

from delf_d2r.aggregator import SearchOptions
from delf_d2r.data.artefacts import index_files
from delf_d2r.errors import ArtefactError, UnavailableError
from delf_d2r.index.images import NameTable
from delf_d2r.sharding.client import ShardClient
from delf_d2r.sharding.layout import load_names, load_split
from delf_d2r.sharding.messages import MAX_RESULTS, ShardQuery, ShardResponse
from delf_d2r.structures import AggregatedDescriptor, Ranking

DEFAULT_TIMEOUT = 5.0


class ShardedIndex:
  """Replaces an `InvertedIndex` in a search; the postings are on other servers. Threads may share it.

  Attributes:
    split: how the index is split.
    image_names: the names of all images by image id.
    checksum: None, since this index has no postings of its own.
  """

  checksum = None

  def __init__(
    self,
    directory: str | pathlib.Path,
    addresses: Callable[[], tuple[str, ...]],
    *,
    timeout: float = DEFAULT_TIMEOUT,
  ):
    """Opens the front of a split index; it asks no shard yet.

    Args:
      directory: the directory `front` that split_index made.
      addresses: returns the current addresses of the shards, in any order (`Addresses`).
      timeout: seconds that a search waits for shards; those that have not responded then count as missing.

    Raises:
      ArtefactError: the directory is not the front of a split index, or damaged.
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
    # Where each image has its regions, the whole image included.
    self._region_offsets = (
      index_files.load_boxes(directory).offsets if (directory / index_files.BOX_OFFSETS).exists() else None
    )
    self._addresses = addresses
    self._client = ShardClient(timeout)

  def __len__(self) -> int:
    """Returns the number of images of the whole index."""
    return len(self.image_names)

  def __repr__(self) -> str:
    return f'ShardedIndex({len(self)} images, {len(self.split)} shards)'

  def search(
    self,
    query: AggregatedDescriptor,
    *,
    top_k: int | None = 100,
    name: str = '',
    **scoring: Unpack[SearchOptions],
  ) -> Ranking:
    """Returns the best index images for one query; see `InvertedIndex.search`.

    `Ranking.missing_shards` names the shards whose images the ranking lacks.

    Raises:
      ValueError: `top_k` is 0, None or more than a shard returns.
      UserError: the query does not fit the index.
    """
    if not top_k or not 0 < top_k <= MAX_RESULTS:
      raise ValueError(f'top_k: expected 1 to {MAX_RESULTS} with a split index, found {top_k}')
    responses = self._ask(ShardQuery(query, top_k, scoring))
    missing = tuple(shard for shard in range(len(self.split)) if shard not in responses)
    parts = [*responses.values()]
    ids = np.concatenate([np.zeros(0, np.int64), *(part.image_ids for part in parts)])
    scores = np.concatenate([np.zeros(0, np.float32), *(part.scores for part in parts)])
    regions = np.concatenate([np.zeros(0, np.int32), *(part.regions for part in parts)])
    best = np.lexsort((ids, -scores))[:top_k]
    return Ranking(name, ids[best], scores[best], regions[best], missing_shards=missing)

  def word_scores(
    self,
    query: AggregatedDescriptor,
    image_id: int,
    *,
    region: int = -1,
    **scoring: Unpack[SearchOptions],
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns what each visual word adds to the score of one image; see `InvertedIndex.word_scores`.

    Raises:
      IndexError: there is no such image.
      UnavailableError: the shard of the image does not respond.
    """
    if not 0 <= image_id < len(self):
      raise IndexError(f'expected an image id below {len(self)}, found {image_id}')
    shard = self.split.shard_of(image_id)
    response = self._ask(ShardQuery(query, 0, scoring, image_id, region)).get(shard)
    if response is None:
      raise UnavailableError(f'shard {shard}, which has image {image_id}, does not answer')
    return response.words, response.terms

  def preload(self, report: Callable[[int, int], None] = lambda done, total: None) -> int:
    """Reads nothing and returns 0: shards preload their own postings."""
    del report
    return 0

  def copy_on_write(self) -> NoReturn:
    """Raises ValueError: a split index cannot be changed."""
    raise ValueError('it is split. Change the whole index and run split_index again')

  def close(self) -> None:
    """Closes the connections."""
    self._client.close()

  def _ask(self, query: ShardQuery) -> dict[int, ShardResponse]:
    """Returns the responses by shard; of replicas, whose responses are equal, any one."""
    responses = self._client.ask(
      self._addresses(),
      query.encode(),
      accept=functools.partial(self._check, query),
      is_complete=self._is_complete,
    )
    return {response.shard: response for response in responses}

  def _is_complete(self, responses: Sequence[ShardResponse]) -> bool:
    return len({response.shard for response in responses}) == len(self.split)

  def _check(self, query: ShardQuery, response: ShardResponse) -> None:
    """Raises ValueError unless the response is of a shard of this split and possible for this query."""
    if response.split != self.split.id:
      raise ValueError(f'a shard of split {response.split}, expected one of {self.split.id}')
    if not 0 <= response.shard < len(self.split):
      raise ValueError(f'shard {response.shard} of {len(self.split)}')
    problem = self._contradiction(query, response)
    if problem:
      raise ValueError(f'shard {response.shard} {problem}')

  def _contradiction(self, query: ShardQuery, response: ShardResponse) -> str | None:
    """Returns what a shard of this split would not respond to a query; None if there is nothing."""
    images, ids, words = self.split.images(response.shard), response.image_ids, response.words
    asked = query.image_id >= 0
    expected = 0 if asked else min(query.top_k, len(images))
    if len(ids) != expected:
      return f'ranks {len(ids)} images, expected {expected}'
    if len(words) and not (asked and query.image_id in images):
      return 'names words that were not asked for'
    if not np.isin(words, query.descriptor.visual_words).all() or len(np.unique(words)) != len(words):
      return 'names words that the query does not have, or repeats one'
    if not len(ids):
      return None
    if ids.min() < images.start or ids.max() >= images.stop:
      return f'names images beyond its own, {images}'
    if len(np.unique(ids)) != len(ids):
      return 'repeats an image'
    if (np.diff(response.scores) > 0).any():
      return 'has scores that are not in descending order'
    if (response.regions < -1).any() or (response.regions >= self._num_regions(ids)).any():
      return 'names regions that its images do not have'
    if any(name != self.image_names[int(image)] for image, name in zip(ids, response.names, strict=True)):
      return 'has other names of its images'
    return None

  def _num_regions(self, ids: np.ndarray) -> np.ndarray:
    """Returns the most regions that images may have, the whole image included."""
    offsets = self._region_offsets
    if offsets is None:
      return np.full(len(ids), np.iinfo(np.int32).max)
    return offsets[ids + 1] - offsets[ids]
