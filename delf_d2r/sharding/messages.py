"""The messages between the front of a split index and its shards.

A query travels as a record (data/artefacts/records.py), a response as JSON. Both sides validate every field,
so that a message can neither make them read outside of their arrays nor mix up splits. JSON preserves every
bit of a float32, since a float64 represents it exactly and Python prints as many digits as are needed.
"""

import dataclasses
import json

import numpy as np

from delf_d2r.aggregator import SearchOptions
from delf_d2r.data.artefacts.records import Record, checking, encode
from delf_d2r.errors import ArtefactError
from delf_d2r.index.search import Scoring
from delf_d2r.structures import AggregatedDescriptor

MAX_RESULTS = 10_000
MAX_REQUEST_BYTES = 4_000_000  # 3,000 words take 60 kB with binary values and 1.6 MB with float ones.
MAX_RESPONSE_BYTES = 16_000_000
# The arrays of a response.
_ARRAYS: dict[str, type[np.number]] = {
  'image_ids': np.int64,
  'scores': np.float32,
  'regions': np.int32,
  'words': np.uint32,
  'terms': np.float64,
}
# The fields of `Scoring` that travel; the others are decided by the shard.
_SCORING = ('alpha', 'tau', 'normalize', 'use_idf', 'compat')


@dataclasses.dataclass(frozen=True)
class ShardQuery:
  """A query to a shard.

  Attributes:
    descriptor: the aggregated descriptor of the query image.
    top_k: length of the ranking.
    scoring: `alpha`, `tau`, `normalize`, `use_idf`, `compat`; see `index.search.Scoring`.
    image_id: asks for the terms of the score of this image, an id in the whole index, instead of a ranking;
      -1 asks for a ranking.
    region: with `image_id` and regional search or region masks, the region whose score it is; otherwise -1.
  """

  descriptor: AggregatedDescriptor
  top_k: int
  scoring: SearchOptions
  image_id: int = -1
  region: int = -1

  def encode(self) -> bytes:
    """Returns the body of the request."""
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
  def decode(cls, body: bytes) -> 'ShardQuery':
    """Parses the body of a request.

    Raises:
      ArtefactError: it is not what `encode` makes.
    """
    return _decode_query(body)


@checking
def _decode_query(body: bytes) -> ShardQuery:
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
  normalize, use_idf, compat = map(bool, switches)
  scoring: SearchOptions = {
    'alpha': alpha,
    'tau': tau,
    'normalize': normalize,
    'use_idf': use_idf,
    'compat': compat,
  }
  descriptor = AggregatedDescriptor(words, values, dimensions)
  return ShardQuery(descriptor, top_k, scoring, record.integer('image_id'), record.integer('region'))


@dataclasses.dataclass(frozen=True)
class ShardResponse:
  """The ranking of the images of one shard, or the terms of one score.

  Attributes:
    split: the id of the split that the shard belongs to.
    shard: the number of the shard.
    image_ids: int64 [k], ids in the whole index.
    names: k names of these images.
    scores: float32 [k], descending; equal scores in order of image id.
    regions: int32 [k], see `Ranking.best_regions`.
    words: uint32 [W], the words whose terms were asked for; otherwise empty.
    terms: float64 [W], their terms.
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
    """Returns the body of the response. Names that are not valid UTF-8 are preserved as escapes."""
    document: dict[str, object] = {'split': self.split, 'shard': self.shard, 'names': self.names}
    arrays = {key: getattr(self, key).astype(dtype).tolist() for key, dtype in _ARRAYS.items()}
    return json.dumps(document | arrays).encode()

  @classmethod
  def decode(cls, body: bytes) -> 'ShardResponse':
    """Parses the body of a response.

    Raises:
      ValueError: it is not what `encode` makes.
    """
    try:
      document = json.loads(body)
      split, shard, names = (document[key] for key in ('split', 'shard', 'names'))
      image_ids, scores, regions, words, terms = (
        _numbers(document[key], dtype) for key, dtype in _ARRAYS.items()
      )
      sizes = {len(array) for array in (image_ids, scores, regions, names)}
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
      raise ValueError(f'not a response of a shard ({error!r})') from None
    if type(names) is not list or not set(map(type, names)) <= {str}:
      raise ValueError('not a response of a shard: names that are no list of texts')
    if len(sizes) != 1 or len(words) != len(terms):
      raise ValueError(f'a response of a shard contradicts itself: lists of {sorted(sizes)} images')
    if not np.isfinite(scores).all() or not np.isfinite(terms).all():
      raise ValueError('a response of a shard contradicts itself: scores or terms that are not finite')
    if type(shard) is not int or type(split) is not str:
      raise ValueError(f'a response of shard {shard!r} of split {split!r}')
    return cls(split, shard, image_ids, names, scores, regions, words, terms)


def _numbers(values: object, dtype: type[np.number]) -> np.ndarray:
  """Returns a list of numbers as an array; raises ValueError or OverflowError for anything else."""
  accepted = {int} if np.issubdtype(dtype, np.integer) else {int, float}
  # NumPy would round 1.9 to an image id, and accept true or lists of lists.
  if not isinstance(values, list) or not set(map(type, values)) <= accepted:
    raise ValueError(f'expected a list of {dtype.__name__}')
  with np.errstate(over='ignore'):  # Then it is infinite, which is refused.
    return np.array(values, dtype)
