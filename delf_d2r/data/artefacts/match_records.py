"""Records of verified matches: one for each query, with the images that were verified.

Fields of a record: `image_ids` int64 [n], `match_offsets` int64 [n + 1], `matrices` float32 [n, 3, 3],
`query_locations` and `index_locations` float32 [P, 2]; image i has the pairs `match_offsets[i]:[i + 1]`.
"""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from delf_d2r.data.artefacts import records
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.errors import ArtefactError
from delf_d2r.structures import Match


@dataclasses.dataclass(frozen=True)
class QueryMatches:
  """The result of spatial verification for one query.

  Attributes:
    query: its name.
    matches: of every image to which verification was applied, in the order of the ranking before; a match
      without pairs is one that was not verified.
  """

  query: str
  matches: tuple[Match, ...]


def encode(found: QueryMatches) -> bytes:
  """Returns QueryMatches as a record."""
  matches = found.matches

  def joined(name: str) -> np.ndarray:
    return np.concatenate([np.zeros((0, 2)), *(getattr(match, name) for match in matches)]).astype(np.float32)

  return records.encode(
    found.query,
    {},
    {
      'image_ids': np.array([match.image_id for match in matches], np.int64),
      'match_offsets': np.cumsum([0, *map(len, matches)], dtype=np.int64),
      'matrices': np.array([match.matrix for match in matches], np.float32).reshape(-1, 3, 3),
      'query_locations': joined('query_locations'),
      'index_locations': joined('index_locations'),
    },
  )


@records.checking
def decode(data: bytes) -> QueryMatches:
  """Inverts `encode`; raises ArtefactError for anything else."""
  record = records.Record(data)
  ids, offsets = record.array('image_ids', 1, 'int64'), record.array('match_offsets', 1, 'int64')
  matrices = record.array('matrices', 3, 'float32')
  locations = [record.array(name, 2, 'float32') for name in ('query_locations', 'index_locations')]
  lengths = {len(ids), len(offsets) - 1, len(matrices)}
  pairs = {len(points) for points in locations}
  rises = len(offsets) and offsets[0] == 0 and not np.any(offsets[1:] < offsets[:-1])
  if len(lengths) > 1 or not rises or pairs != {int(offsets[-1])}:
    raise ArtefactError(f'{record.name}: match_offsets do not divide the matches of {len(ids)} images')
  matches = tuple(
    Match(int(image), matrix, *(points[start:end] for points in locations))
    for image, matrix, (start, end) in zip(ids, matrices, itertools.pairwise(offsets), strict=True)
  )
  return QueryMatches(record.name, matches)


def read(artefact: Artefact) -> Iterator[QueryMatches]:
  """Yields the matches of an artefact that rerank_results made, one for each query in order."""
  return map(decode, artefact.records())
