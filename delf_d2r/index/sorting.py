"""The counting sort that makes a segment of postings in any order of words.

The same sort builds segments from descriptors and rebuilds them when images are added, removed or merged.
"""

from collections.abc import Callable, Iterable

import numpy as np

from delf_d2r.index.segments import Layout, Postings, Segment
from delf_d2r.kernels.compiled import HAVE_NUMBA, njit

MAX_POSTINGS = (1 << 32) - 1  # of one segment, since offsets are uint32

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
