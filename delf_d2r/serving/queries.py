"""Past queries, remembered for a while: the photo for another box of it, the features to explain a match."""

import collections
import dataclasses
import pathlib
import secrets
import threading

from delf_d2r.serving.problems import Problem
from delf_d2r.structures import FEATURE_ARRAYS, ImageFeatures


@dataclasses.dataclass(frozen=True)
class Query:
  """One search.

  Attributes:
    name: what the photo is called.
    photo: the uploaded file's contents, or the path of an indexed photo.
    preview: the photo as a JPEG that any browser shows.
    features: what was searched with.
    regions: by image id, the region that a result scored with.
  """

  name: str
  photo: bytes | pathlib.Path
  preview: bytes
  features: ImageFeatures
  regions: dict[int, int]

  @property
  def nbytes(self) -> int:
    arrays = (getattr(self.features.features, name).nbytes for name in FEATURE_ARRAYS)
    return len(self.preview) + sum(arrays) + (len(self.photo) if isinstance(self.photo, bytes) else 0)


class QueryStore:
  """Queries by an id that cannot be guessed; the least recently used are forgotten first."""

  def __init__(self, max_bytes: int):
    self._max_bytes = max_bytes
    self._queries: collections.OrderedDict[str, Query] = collections.OrderedDict()
    self._bytes = 0
    self._lock = threading.Lock()

  def add(self, query: Query) -> str:
    """Remembers a query under a new id; the newest is always kept."""
    key = secrets.token_urlsafe(12)
    with self._lock:
      self._queries[key] = query
      self._bytes += query.nbytes
      while self._bytes > self._max_bytes and len(self._queries) > 1:
        _, forgotten = self._queries.popitem(last=False)
        self._bytes -= forgotten.nbytes
    return key

  def get(self, key: str) -> Query:
    """The query of that id.

    Raises:
      Problem: 410, it is not known, any more or ever.
    """
    with self._lock:
      if key not in self._queries:
        raise Problem(410, f'query {key[:40]!r} is not remembered (any more)', 'Search with the photo again.')
      self._queries.move_to_end(key)
      return self._queries[key]
