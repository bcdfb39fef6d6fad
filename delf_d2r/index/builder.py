"""Streams descriptors into segments within a memory budget.

Postings gather in blocks; when the segment is full, or the budget is, they are sorted. A sorted part of
a segment that does not fit is a *run* and waits outside memory; the runs of a segment are merged by the
same counting sort. Whatever the budget and the order of calls, the same entries give the same segments.
"""

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from delf_d2r.index.segments import (
  SEGMENT_ENTRIES,
  Allocate,
  Layout,
  Postings,
  Segment,
  in_memory,
  sort_postings,
)
from delf_d2r.structures import AggregatedDescriptor

DEFAULT_MEMORY_BUDGET = 2 << 30
BATCH = 64


class SegmentBuilder:
  """Collects entries, in order, and hands every full segment to `keep`.

  Args:
    layout: sizes of the index.
    keep: called with each finished segment, in order.
    scratch: makes arrays for what exceeds the budget; in memory by default.
    memory_budget: bytes for postings at hand and their sorted form together, beside about 64 MB of
      working space. 65,536 images of 600 words at 128 bits take 1.6 GB; with less, runs are written.
  """

  def __init__(
    self,
    layout: Layout,
    keep: Callable[[Segment], None],
    *,
    scratch: Allocate = in_memory,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
  ):
    self._layout = layout
    self._keep = keep
    self._scratch = scratch
    unsorted_bytes = 4 + layout.posting_bytes
    self._budget = memory_budget
    self._block_postings = layout.block_postings
    self._capacity = max(self._block_postings, memory_budget // (unsorted_bytes + layout.posting_bytes))
    self._free: list[Postings] = []
    self._start_segment()

  def _start_segment(self) -> None:
    self._word_counts: list[int] = []
    self._pending: list[AggregatedDescriptor] = []  # the last entries, not yet in blocks
    self._sources: list[Callable[[], Iterator[Postings]]] = []  # runs and parts of older segments
    self._source_postings = 0
    self._blocks: list[Postings] = []  # entries after those of the sources
    self._filled = 0  # postings in the last block; all others are full

  @property
  def _at_hand(self) -> int:
    return max(0, len(self._blocks) - 1) * self._block_postings + self._filled

  def add(self, descriptor: AggregatedDescriptor) -> None:
    """Adds one entry.

    Raises:
      ValueError: this descriptor, or one added just before, does not fit the layout, or its words are
        not ascending below K.
    """
    check_kind(descriptor, self._layout)
    self._pending.append(descriptor)
    self._word_counts.append(len(descriptor))
    is_full = len(self._word_counts) == SEGMENT_ENTRIES
    if is_full or len(self._pending) == BATCH:
      self._store_pending()
    if is_full:
      self._finish_segment()

  def _store_pending(self) -> None:
    """Copies the pending descriptors into blocks; at once, since one by one would take twice as long."""
    if not self._pending:
      return
    counts = self._word_counts[-len(self._pending) :]
    words = np.concatenate([descriptor.visual_words for descriptor in self._pending])
    values = np.concatenate([descriptor.values for descriptor in self._pending])
    stops = np.cumsum(counts)
    ascending = words[1:] > words[:-1]
    ascending[stops[(stops > 0) & (stops < len(words))] - 1] = True  # from one descriptor to the next
    in_range = words.min(initial=0) >= 0 and words.max(initial=0) < self._layout.num_words
    if not (ascending.all() and in_range):
      for descriptor in self._pending:
        check_words(descriptor, self._layout)
    end = len(self._word_counts)
    ids = np.repeat(np.arange(end - len(self._pending), end, dtype=np.uint16), counts)
    self._pending = []
    done = 0
    while done < len(words):
      if not self._blocks or self._filled == self._block_postings:
        if self._at_hand + self._block_postings > self._capacity:
          self._spill()
        self._blocks.append(self._free.pop() if self._free else self._new_block())
        self._filled = 0
      block, start = self._blocks[-1], self._filled
      count = min(len(words) - done, self._block_postings - start)
      block.words[start : start + count] = words[done : done + count]
      block.entry_ids[start : start + count] = ids[done : done + count]
      self._layout.pack(values[done : done + count], block.rows[start : start + count])
      self._filled += count
      done += count

  def add_segment(self, segment: Segment, kept: np.ndarray | None = None) -> None:
    """Adds the entries of an older segment, all or those where `kept`, bool [n], is true."""
    self._store_pending()
    self._spill()
    remaining = np.arange(segment.num_entries) if kept is None else np.flatnonzero(kept)
    while len(remaining):
      room = SEGMENT_ENTRIES - len(self._word_counts)
      chosen, remaining = remaining[:room], remaining[room:]
      new_ids = np.full(SEGMENT_ENTRIES, -1, np.int32)
      new_ids[chosen] = len(self._word_counts) + np.arange(len(chosen))
      self._add_source(segment, new_ids, int(segment.word_counts[chosen].sum(dtype=np.int64)))
      self._word_counts.extend(segment.word_counts[chosen].tolist())
      if len(self._word_counts) == SEGMENT_ENTRIES:
        self._finish_segment()

  def finish(self) -> None:
    """Hands over the last, incomplete segment, if there is one."""
    self._store_pending()
    if self._word_counts:
      self._finish_segment()

  def _add_source(self, segment: Segment, new_ids: np.ndarray | None, postings: int) -> None:
    self._sources.append(lambda: segment.postings(self._layout, new_ids))
    self._source_postings += postings

  def _finish_segment(self) -> None:
    parts = [*self._sources, self._cut_blocks]
    self._keep(self._sort(lambda: itertools.chain.from_iterable(part() for part in parts)))
    self._free += self._blocks
    self._start_segment()

  def _spill(self) -> None:
    """Turns the blocks at hand into a run."""
    if self._blocks:
      run = self._sort(self._cut_blocks, self._scratch)
      self._add_source(run, None, run.num_postings)
      self._free += self._blocks
      self._blocks, self._filled = [], 0

  def _sort(self, blocks, allocate: Allocate | None = None) -> Segment:
    if allocate is None:
      fits = self._layout.posting_bytes * (self._source_postings + self._at_hand) <= self._budget // 2
      allocate = in_memory if fits else self._scratch
    return sort_postings(blocks, np.array(self._word_counts, '<u4'), self._layout, allocate=allocate)

  def _cut_blocks(self) -> Iterator[Postings]:
    yield from self._blocks[:-1]
    if self._blocks:
      last, n = self._blocks[-1], self._filled
      yield Postings(last.words[:n], last.entry_ids[:n], last.rows[:n])

  def _new_block(self) -> Postings:
    n, row_bytes = self._block_postings, self._layout.columns * self._layout.dtype.itemsize
    # One allocation for the three arrays: from 4 MB on NumPy asks for huge pages, which halves what the
    # system charges for memory that is touched for the first time. Widest first, so that each is aligned.
    memory = np.empty(n * (row_bytes + 6), np.uint8)
    rows, words, ids = np.split(memory, [n * row_bytes, n * (row_bytes + 4)])
    return Postings(
      words.view(np.uint32),
      ids.view(np.uint16),
      rows.view(self._layout.dtype).reshape(n, self._layout.columns),
    )


def check_descriptor(descriptor: AggregatedDescriptor, layout: Layout) -> None:
  """Raises ValueError unless the descriptor, of an image or of a query, fits the index."""
  check_kind(descriptor, layout)
  check_words(descriptor, layout)


def check_kind(descriptor: AggregatedDescriptor, layout: Layout) -> None:
  """Raises ValueError unless the descriptor is binary or float as the index is, and of its dimensions."""
  if descriptor.is_binary != layout.is_binary:
    kinds = {True: 'binary (ASMK_STAR)', False: 'float (VLAD, ASMK)'}
    raise ValueError(
      f'expected a {kinds[layout.is_binary]} descriptor, found a {kinds[descriptor.is_binary]} one;'
      ' aggregate queries and index images with the same kernel'
    )
  if descriptor.dimensions != layout.dimensions:
    raise ValueError(
      f'expected a descriptor of {layout.dimensions} dimensions, found {descriptor.dimensions};'
      ' extract queries and index images with the same extractor'
    )


def check_words(descriptor: AggregatedDescriptor, layout: Layout) -> None:
  """Raises ValueError unless the descriptor's words ascend below K."""
  words = descriptor.visual_words
  if len(words) == 0:
    return
  if words.min() < 0 or words.max() >= layout.num_words:
    raise ValueError(
      f'expected visual words from 0 to below K = {layout.num_words}, found {words.min()} to {words.max()};'
      ' aggregate queries and index images with the same codebook'
    )
  if not (words[1:] > words[:-1]).all():
    raise ValueError(f'expected ascending visual words, found {words.tolist()}')
