"""What front and shards send each other: a query as a record (data.records), an answer as JSON.

Both sides check all of it: neither a front nor a shard can be made to leave its arrays or to mix up splits.
JSON gives float32 back bit by bit, since a float64 holds each of them and Python prints enough digits.
"""

import dataclasses
import json

import numpy as np

from delf_d2r.data.artefacts.records import Record, checked, encode
from delf_d2r.errors import ArtefactError
from delf_d2r.index.search import Scoring
from delf_d2r.structures import AggregatedDescriptor

MAX_RESULTS = 10_000
MAX_REQUEST_BYTES = 4_000_000  # 3,000 words take 60 kB with binary values and 1.6 MB with float ones
MAX_ANSWER_BYTES = 16_000_000
# What travels of `Scoring`; the rest is the shard's own affair.
_SCORING = ('alpha', 'tau', 'normalize', 'use_idf', 'compat')


@dataclasses.dataclass(frozen=True)
class Question:
  """One search.

  Attributes:
    descriptor: the query.
    top_k: length of the ranking.
    scoring: `alpha`, `tau`, `normalize`, `use_idf`, `compat`; see `index.search.Scoring`.
    image_id, region: ask for the terms of the score of one image of the shard instead; -1: do not.
  """

  descriptor: AggregatedDescriptor
  top_k: int
  scoring: dict[str, float | bool]
  image_id: int = -1
  region: int = -1

  def encode(self) -> bytes:
    """The request's body."""
    scoring = Scoring(**self.scoring)
    return encode(
      '',
      {
        'dimensions': self.descriptor.dimensions,
        'top_k': self.top_k,
        'image_id': self.image_id,
        'region': self.region,
      },
      {
        'visual_words': self.descriptor.visual_words,
        'values': self.descriptor.values,
        'scoring': np.array([getattr(scoring, field) for field in _SCORING], np.float32),
      },
    )

  @classmethod
  def decode(cls, body: bytes) -> 'Question':
    """The inverse of `encode`; ArtefactError for anything else."""
    record = Record(body)
    top_k = record.integer('top_k')
    if not 0 <= top_k <= MAX_RESULTS:
      raise ArtefactError(f'top_k: expected 0 to {MAX_RESULTS}, found {top_k}')
    dimensions = record.integer('dimensions')
    if not 1 <= dimensions <= 1 << 16:
      raise ArtefactError(f'dimensions: expected 1 to 65536, found {dimensions}')
    words, values = record.array('visual_words', 1, 'uint32'), record.array('values', 2, 'float32', 'uint8')
    numbers = record.array('scoring', 1, 'float32')
    if len(numbers) != len(_SCORING) or not np.isfinite(numbers).all():
      raise ArtefactError(f'scoring: expected {len(_SCORING)} finite numbers, found {numbers.tolist()}')
    if values.dtype == np.float32 and not np.isfinite(values).all():
      raise ArtefactError('values: expected finite numbers')
    alpha, tau, *switches = numbers.tolist()
    scoring = dict(zip(_SCORING, (alpha, tau, *map(bool, switches)), strict=True))
    descriptor = checked(lambda: AggregatedDescriptor(words, values, dimensions))
    return cls(descriptor, top_k, scoring, record.integer('image_id'), record.integer('region'))


@dataclasses.dataclass(frozen=True)
class Answer:
  """A shard's part of a ranking, or the terms of one score.

  Attributes:
    split: the id of the split that the shard is of.
    shard: its number.
    image_ids: int64 [k], places in the whole index.
    names: of these images.
    scores: float32 [k], descending; equal ones in order of image id.
    regions: int32 [k], as `Ranking.best_regions`.
    words, terms: uint32 and float64 [W] where the terms of a score were asked for, else empty.
  """

  split: str
  shard: int
  image_ids: np.ndarray
  names: list[str]
  scores: np.ndarray
  regions: np.ndarray
  words: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.uint32))
  terms: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))

  def encode(self) -> bytes:
    """The answer's body. Names that are no UTF-8 stay as they are, as escapes."""
    document = dataclasses.asdict(self)
    lists = {key: value.tolist() for key, value in document.items() if isinstance(value, np.ndarray)}
    return json.dumps(document | lists).encode()

  @classmethod
  def decode(cls, body: bytes) -> 'Answer':
    """The inverse of `encode`; ValueError for anything else."""
    try:
      document = json.loads(body)
      split, shard, names = (document[key] for key in ('split', 'shard', 'names'))
      image_ids, scores, regions, words, terms = (
        np.array(document[key], dtype)
        for key, dtype in (
          ('image_ids', np.int64),
          ('scores', np.float32),
          ('regions', np.int32),
          ('words', np.uint32),
          ('terms', np.float64),
        )
      )
      shapes = {array.shape for array in (image_ids, scores, regions)} | {(len(names),)}
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
      raise ValueError(f'no answer of a shard ({error!r})') from None
    if len(shapes) != 1 or not np.isfinite(scores).all() or words.shape != terms.shape:
      raise ValueError(f'an answer of a shard contradicts itself: {sorted(shapes)}')
    if type(shard) is not int or type(split) is not str:
      raise ValueError(f'an answer of shard {shard!r} of split {split!r}')
    return cls(split, shard, image_ids, names, scores, regions, words, terms)
