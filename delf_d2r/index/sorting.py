"""The counting sort that makes a segment of postings whose words are in any order.

The same sort builds segments from descriptors and rebuilds them when images are added, removed or merged.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from delf_d2r.index.segments import Layout, Postings, Segment
from delf_d2r.kernels.compiled import HAVE_NUMBA, njit

MAX_POSTINGS = (1 << 32) - 1  # of one segment, since offsets are uint32

_NO_MASKS = np.zeros(0, np.uint8)

# Makes an array of a name, a dtype and a shape.
Allocate = Callable[[str, np.dtype[Any], tuple[int, ...]], npt.NDArray[Any]]


def in_memory(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
  """Makes an array in memory: the default `allocate` of `sort_postings`."""
  del name
  return np.empty(shape, dtype)


def sort_postings(
  blocks: Iterable[Postings],
  sizes: npt.NDArray[np.int64],
  word_counts: npt.NDArray[np.unsignedinteger],
  layout: Layout,
  *,
  region_counts: npt.NDArray[np.unsignedinteger] | None = None,
  allocate: Allocate = in_memory,
) -> Segment:
  """Sorts postings by word with a stable counting sort, so that entries keep their order within a word.

  Args:
    blocks: the postings, those of an entry before those of later entries.
    sizes: int64 [K], the number of postings of each word in `blocks`.
    word_counts: uint32 [n], the number of words of each entry.
    layout: sizes of the index.
    region_counts: uint32 [n, 8], the number of words of each region, in an index with masks.
    allocate: makes the arrays `entry_ids`, `values` and `masks`, which may be too large for memory.

  Raises:
    ValueError: more than 2^32 - 1 postings.
  """
  bounds = np.concatenate([[0], np.cumsum(sizes)])
  postings = int(bounds[-1])
  if postings > MAX_POSTINGS:
    raise ValueError(
      f'a segment holds at most {MAX_POSTINGS} postings, found {postings}; aggregate to fewer words an image'
    )
  arrays = layout.arrays(len(word_counts), postings)
  entry_ids, values = (allocate(name, *arrays[name]) for name in ('entry_ids', 'values'))
  masks = allocate('masks', *arrays['masks']) if layout.has_masks else None
  cursors = bounds[:-1].copy()
  scatter = _scatter if HAVE_NUMBA else scatter_numpy
  for block in blocks:
    of_block, target = (_NO_MASKS if part is None else part for part in (block.masks, masks))
    scatter(
      block.words, block.entry_ids, block.rows, of_block, layout.is_binary, cursors, entry_ids, values, target
    )
  counts = None if region_counts is None else np.asarray(region_counts, '<u4')
  return freeze(
    Segment(bounds.astype('<u4'), entry_ids, values, np.asarray(word_counts, '<u4'), masks, counts)
  )


def freeze(segment: Segment) -> Segment:
  """Makes the arrays read-only: they are shared by searches, and compiled code meets one type of array."""
  freeze_arrays(segment.arrays)
  return segment


def freeze_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> None:
  """Makes arrays read-only."""
  for array in arrays.values():
    array.flags.writeable = False


def count_ascending(
  words: npt.NDArray[np.integer], stops: npt.NDArray[np.integer], sizes: npt.NDArray[np.int64]
) -> bool:
  """Adds the words of some descriptors to the histogram `sizes`, int64 [K].

  Args:
    words: int32 [n], the words of each descriptor after those of the one before.
    stops: integer [descriptors], the ends of the words of each descriptor.
    sizes: the histogram, changed in place; its content is undefined if the result is false.

  Returns:
    Whether the words of each descriptor ascend and are in [0, K).
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
def _count_ascending(
  words: npt.NDArray[np.integer], stops: npt.NDArray[np.integer], sizes: npt.NDArray[np.int64]
) -> bool:
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
def _scatter(
  words: npt.NDArray[np.uint32],
  ids: npt.NDArray[np.uint16],
  rows: npt.NDArray[Any],
  block_masks: npt.NDArray[np.uint8],
  is_binary: bool,
  cursors: npt.NDArray[np.int64],
  entry_ids: npt.NDArray[np.uint16],
  values: npt.NDArray[Any],
  masks: npt.NDArray[np.uint8],
) -> None:
  """Moves each posting to the cursor of its word, which advances. Without masks, `masks` is empty."""
  columns, has_masks = rows.shape[1], masks.size > 0
  for i in range(words.size):
    to = cursors[words[i]]
    cursors[words[i]] = to + 1
    entry_ids[to] = ids[i]
    if has_masks:
      masks[to] = block_masks[i]
    if is_binary:
      for c in range(columns):
        values[c, to] = rows[i, c]
    else:
      for c in range(columns):
        values[to, c] = rows[i, c]


def scatter_numpy(
  words: npt.NDArray[np.uint32],
  ids: npt.NDArray[np.uint16],
  rows: npt.NDArray[Any],
  block_masks: npt.NDArray[np.uint8],
  is_binary: bool,
  cursors: npt.NDArray[np.int64],
  entry_ids: npt.NDArray[np.uint16],
  values: npt.NDArray[Any],
  masks: npt.NDArray[np.uint8],
) -> None:
  """Does without numba what `_scatter` does."""
  # NumPy sorts 16-bit keys by radix, which is several times faster than sorting wider ones.
  keys = words.astype(np.uint16) if len(cursors) <= 1 << 16 else words
  order = np.argsort(keys, kind='stable')
  counts = np.bincount(words, minlength=len(cursors))
  starts = np.cumsum(counts) - counts
  to = np.arange(len(words)) + np.repeat(cursors - starts, counts)
  cursors += counts
  entry_ids[to] = ids[order]
  if masks.size:
    masks[to] = block_masks[order]
  if is_binary:
    values[:, to] = rows[order].T
  else:
    values[to] = rows[order]
