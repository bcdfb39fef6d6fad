"""One segment of the index: the postings of up to 65,536 entries, sorted by visual word.

An entry is one indexed descriptor: an image, or one region of an image in regional search. Entries are
numbered from 0 within their segment, so a posting costs two bytes of id beside its code. A segment is
built by a counting sort; the same sort rebuilds segments when images are added, removed or merged.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from delf_d2r.kernels.compiled import HAVE_NUMBA, njit

SEGMENT_ENTRIES = 1 << 16
BLOCK_BYTES = 1 << 24  # postings are moved in blocks of about this size
MAX_POSTINGS = (1 << 32) - 1  # of one segment, since offsets are uint32


@dataclasses.dataclass(frozen=True)
class Layout:
  """The sizes that all arrays of an index share: K words, D dimensions, binary or float values."""

  num_words: int
  dimensions: int
  is_binary: bool

  @property
  def columns(self) -> int:
    """Columns of the values of a posting: 64-bit words of a code, or float components."""
    return -(-self.dimensions // 64) if self.is_binary else self.dimensions

  @property
  def dtype(self) -> np.dtype:
    return np.dtype('<u8' if self.is_binary else '<f4')

  @property
  def posting_bytes(self) -> int:
    """Bytes of one posting in a segment: its entry's id and its values."""
    return 2 + self.columns * self.dtype.itemsize

  @property
  def block_postings(self) -> int:
    return max(1, BLOCK_BYTES // self.posting_bytes)

  def values_shape(self, postings: int) -> tuple[int, int]:
    """Codes are stored one 64-bit column after the other, float values one posting after the other.

    Scanning columns that are contiguous each is 1.15 times faster than codes side by side, and the
    NumPy path needs them so anyway.
    """
    return (self.columns, postings) if self.is_binary else (postings, self.columns)

  def arrays(self, entries: int, postings: int) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Names, dtypes and shapes of the arrays of a segment."""
    return {
      'offsets': (np.dtype('<u4'), (self.num_words + 1,)),
      'entry_ids': (np.dtype('<u2'), (postings,)),
      'values': (self.dtype, self.values_shape(postings)),
      'word_counts': (np.dtype('<u4'), (entries,)),
    }

  def pack(self, values: Sequence[np.ndarray]) -> np.ndarray:
    """Values of several `AggregatedDescriptor`s as rows [n, columns], padding bits 0."""
    rows = np.empty((sum(map(len, values)), self.columns), self.dtype)
    target = rows.view(np.uint8) if self.is_binary else rows
    used = values[0].shape[1]  # bytes or components
    np.concatenate(values, out=target[:, :used])
    target[:, used:] = 0
    return rows


@dataclasses.dataclass(frozen=True)
class Postings:
  """Postings in any order, for sorting: words uint32 [n], entry_ids uint16 [n], rows [n, columns]."""

  words: np.ndarray
  entry_ids: np.ndarray
  rows: np.ndarray


@dataclasses.dataclass(frozen=True)
class Segment:
  """Postings of `n` entries sorted by word, then by entry.

  Attributes:
    offsets: uint32 [K + 1]; word w owns postings `offsets[w]:offsets[w + 1]`.
    entry_ids: uint16 [P], ascending within a word.
    values: uint64 [ceil(D / 64), P] codes or float32 [P, D].
    word_counts: uint32 [n], the number of words W of each entry.
  """

  offsets: np.ndarray
  entry_ids: np.ndarray
  values: np.ndarray
  word_counts: np.ndarray

  @property
  def num_entries(self) -> int:
    return len(self.word_counts)

  @property
  def num_postings(self) -> int:
    return len(self.entry_ids)

  @property
  def arrays(self) -> dict[str, np.ndarray]:
    return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

  @property
  def nbytes(self) -> int:
    return sum(array.nbytes for array in self.arrays.values())

  def load(self) -> 'Segment':
    """This segment; the counterpart of `StoredSegment.load`."""
    return self

  def postings(self, layout: Layout, new_ids: np.ndarray | None = None) -> Iterator[Postings]:
    """All postings in blocks, by word and entry.

    Args:
      layout: sizes of the index.
      new_ids: int32 [65536], the id that each entry takes, -1 for an entry to leave out; None for as is.
    """
    rows = self.values.T if layout.is_binary else self.values
    offsets = self.offsets.astype(np.int64)
    all_words = np.arange(layout.num_words, dtype=np.uint32)
    for start in range(0, self.num_postings, layout.block_postings):
      block = slice(start, min(start + layout.block_postings, self.num_postings))
      words = np.repeat(all_words, np.diff(np.clip(offsets, block.start, block.stop)))
      ids = self.entry_ids[block]
      if new_ids is None:
        yield Postings(words, ids, np.ascontiguousarray(rows[block]))
      else:
        ids = new_ids[ids]
        kept = ids >= 0
        yield Postings(words[kept], ids[kept].astype(np.uint16), np.ascontiguousarray(rows[block][kept]))


Allocate = Callable[[str, np.dtype, tuple[int, ...]], np.ndarray]


def in_memory(name: str, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
  """The default `allocate` of `sort_postings`."""
  del name
  return np.empty(shape, dtype)


def sort_postings(
  blocks: Iterable[Postings],
  sizes: np.ndarray,
  word_counts: np.ndarray,
  layout: Layout,
  *,
  allocate: Allocate = in_memory,
) -> Segment:
  """Counting sort of postings by word, stable, so that entries keep their order within a word.

  Args:
    blocks: the postings, those of an entry before those of later entries.
    sizes: int64 [K], the number of postings of each word in `blocks`.
    word_counts: uint32 [n], words of each entry.
    layout: sizes of the index.
    allocate: makes the arrays `entry_ids` and `values`, which can be too large for memory.

  Raises:
    ValueError: more than 2^32 - 1 postings.
  """
  bounds = np.concatenate([[0], np.cumsum(sizes)])
  postings = int(bounds[-1])
  if postings > MAX_POSTINGS:
    raise ValueError(f'a segment holds at most {MAX_POSTINGS} postings, found {postings}')
  arrays = layout.arrays(len(word_counts), postings)
  entry_ids, values = (allocate(name, *arrays[name]) for name in ('entry_ids', 'values'))
  cursors = bounds[:-1].copy()
  scatter = _scatter if HAVE_NUMBA else scatter_numpy
  for block in blocks:
    scatter(block.words, block.entry_ids, block.rows, layout.is_binary, cursors, entry_ids, values)
  return freeze(Segment(bounds.astype('<u4'), entry_ids, values, np.asarray(word_counts, '<u4')))


def freeze(segment: Segment) -> Segment:
  """Makes the arrays read-only: they are shared by searches, and compiled code meets one type of array."""
  for array in segment.arrays.values():
    array.flags.writeable = False
  return segment


def count_ascending(words: np.ndarray, stops: np.ndarray, sizes: np.ndarray) -> bool:
  """Adds the words of some descriptors to the histogram `sizes`, int64 [K].

  Args:
    words: int32 [n], the words of one descriptor after those of the other.
    stops: integer, where the words of each descriptor end.
    sizes: what to add to; of no use any more if the answer is false.

  Returns:
    Whether the words of each descriptor ascend, from 0 or above to below K.
  """
  if HAVE_NUMBA:
    return _count_ascending(words, stops, sizes)
  ascending = words[1:] > words[:-1]
  ascending[stops[(stops > 0) & (stops < len(words))] - 1] = True  # from one descriptor to the next
  if not ascending.all() or words.min(initial=0) < 0 or words.max(initial=0) >= len(sizes):
    return False
  sizes += np.bincount(words, minlength=len(sizes))
  return True


@njit
def _count_ascending(words, stops, sizes):
  start = 0
  for stop in stops:
    previous = -1
    for i in range(start, stop):
      word = words[i]
      if word <= previous or word >= sizes.size:
        return False
      sizes[word] += 1
      previous = word
    start = stop
  return True


@njit
def _scatter(words, ids, rows, is_binary, cursors, entry_ids, values):
  """Moves each posting to the cursor of its word, which advances."""
  columns = rows.shape[1]
  for i in range(words.size):
    to = cursors[words[i]]
    cursors[words[i]] = to + 1
    entry_ids[to] = ids[i]
    if is_binary:
      for c in range(columns):
        values[c, to] = rows[i, c]
    else:
      for c in range(columns):
        values[to, c] = rows[i, c]


def scatter_numpy(words, ids, rows, is_binary, cursors, entry_ids, values) -> None:
  """`_scatter` without numba."""
  # NumPy sorts 16-bit keys by radix, which is several times faster than sorting wider ones.
  keys = words.astype(np.uint16) if len(cursors) <= 1 << 16 else words
  order = np.argsort(keys, kind='stable')
  counts = np.bincount(words, minlength=len(cursors))
  starts = np.cumsum(counts) - counts
  to = np.arange(len(words)) + np.repeat(cursors - starts, counts)
  cursors += counts
  entry_ids[to] = ids[order]
  if is_binary:
    values[:, to] = rows[order].T
  else:
    values[to] = rows[order]
