"""Sorts a stream of descriptors into segments within a memory budget.

Descriptors are collected until the segment is full or the budget is used up; then their postings are sorted,
once, into their final place. The sorted part of a segment that does not fit into memory is a *run*, which is
stored outside memory; the runs of a segment are merged by the same counting sort. Whatever the budget and
the order of calls, the same entries give the same segments.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from delf_d2r.index import segments
from delf_d2r.index.dense_segment import DenseSegment, place_rows
from delf_d2r.index.segments import SEGMENT_ENTRIES, Layout, Postings, Segment
from delf_d2r.index.sorting import Allocate, count_ascending, in_memory, sort_postings
from delf_d2r.kernels.aggregation import MASKED_REGIONS
from delf_d2r.structures import AggregatedDescriptor

DEFAULT_MEMORY_BUDGET = 2 << 30
# Descriptors whose arrays are joined at a time: one by one would take twice as long, all at once would
# write and read their postings once more, in memory that is touched for the first time.
BATCH = 64
_DESCRIPTOR_BYTES = 512  # of the three Python objects of a descriptor


class SegmentBuilder:
  """Collects entries, in order, and passes every full segment to `keep`.

  Args:
    layout: sizes of the index.
    keep: called with each finished segment, in order.
    scratch: makes the arrays that exceed the budget; in memory by default.
    memory_budget: bytes for the collected descriptors, which are kept until their segment is sorted, and
      their sorted form together, in addition to about 64 MB of working space. 65,536 images of 600 words at
      128 bits take 1.6 GB; with a smaller budget, runs are written.
  """

  def __init__(
    self,
    layout: Layout,
    keep: Callable[[Segment | DenseSegment], None],
    *,
    scratch: Allocate = in_memory,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
  ) -> None:
    self._layout = layout
    self._keep = keep
    self._scratch = scratch
    self._budget = memory_budget
    self._start_segment()

  def _start_segment(self) -> None:
    self._word_counts: list[int] = []
    self._region_counts: list[npt.NDArray[Any]] = []  # uint32 [8] of each entry; with region masks
    self._sizes = np.zeros(
      self._layout.num_words, np.int64
    )  # postings of each word, of sources and collected
    self._sources: list[Callable[[], Iterator[Postings]]] = []  # runs and older segments
    self._source_sizes = np.zeros_like(self._sizes)
    self._clear_descriptors()

  def _clear_descriptors(self) -> None:
    self._descriptors: list[AggregatedDescriptor] = []  # the entries after those of the sources
    self._num_counted = 0  # of these descriptors: checked, and counted in `_sizes`
    self._collected_bytes = 0  # of the counted descriptors and of their sorted postings

  def add(self, descriptor: AggregatedDescriptor) -> None:
    """Adds one entry.

    Raises:
      ValueError: this descriptor, or one added just before, does not fit the layout, or its words are
        not ascending below K.
    """
    check_kind(descriptor, self._layout)
    check_masks(descriptor, self._layout)
    self._descriptors.append(descriptor)
    self._word_counts.append(len(descriptor))
    if descriptor.region_masks is not None:
      self._region_counts.append(count_regions(descriptor.region_masks))
    is_full = len(self._word_counts) == SEGMENT_ENTRIES
    if is_full or len(self._descriptors) - self._num_counted == BATCH:
      self._count()
      if self._collected_bytes > max(self._budget, segments.BLOCK_BYTES):
        self._spill()
    if is_full:
      self._finish_segment()

  def _count(self) -> None:
    """Checks and counts the words of the last descriptors."""
    new = self._descriptors[self._num_counted :]
    if not new:
      return
    words = np.concatenate([descriptor.visual_words for descriptor in new])
    counts = self._word_counts[-len(new) :]
    if not count_ascending(words, np.cumsum(counts), self._sizes):
      for descriptor in new:
        check_words(descriptor, self._layout)
    self._collected_bytes += len(words) * self._layout.posting_bytes + sum(
      descriptor.visual_words.nbytes + descriptor.values.nbytes + _DESCRIPTOR_BYTES for descriptor in new
    )
    self._num_counted = len(self._descriptors)

  def add_segment(self, segment: Segment | DenseSegment, kept: npt.NDArray[np.bool_] | None = None) -> None:
    """Adds the entries of an older segment: those where `kept`, bool [n], is true, or all."""
    self._count()
    self._spill()
    remaining = np.arange(segment.num_entries) if kept is None else np.flatnonzero(kept)
    while len(remaining):
      free = SEGMENT_ENTRIES - len(self._word_counts)
      chosen, remaining = remaining[:free], remaining[free:]
      new_ids = np.full(SEGMENT_ENTRIES, -1, np.int32)
      new_ids[chosen] = len(self._word_counts) + np.arange(len(chosen))
      for block in segment.postings(self._layout, new_ids):
        self._sizes += np.bincount(block.words, minlength=len(self._sizes))
      self._add_source(segment, new_ids)
      self._word_counts.extend(segment.word_counts[chosen].tolist())
      if segment.region_counts is not None:
        self._region_counts.extend(segment.region_counts[chosen])
      if len(self._word_counts) == SEGMENT_ENTRIES:
        self._finish_segment()

  def finish(self) -> None:
    """Passes on the last, incomplete segment, if there is one."""
    self._count()
    if self._word_counts:
      self._finish_segment()

  def _add_source(
    self, segment: Segment | DenseSegment, new_ids: npt.NDArray[np.int32] | None = None
  ) -> None:
    self._sources.append(lambda: segment.postings(self._layout, new_ids))
    self._source_sizes = self._sizes.copy()

  def _finish_segment(self) -> None:
    parts = [*(source() for source in self._sources), self._collected_postings()]
    self._keep(self._sort(itertools.chain.from_iterable(parts), self._sizes))
    self._start_segment()

  def _spill(self) -> None:
    """Turns the collected descriptors into a run."""
    if self._descriptors:
      sizes = self._sizes - self._source_sizes
      self._add_source(self._sort(self._collected_postings(), sizes, self._scratch))
      self._clear_descriptors()

  def _sort(
    self, blocks: Iterable[Postings], sizes: npt.NDArray[np.int64], allocate: Allocate | None = None
  ) -> Segment | DenseSegment:
    if allocate is None:
      fits = self._layout.posting_bytes * int(sizes.sum()) <= self._budget // 2
      allocate = in_memory if fits else self._scratch
    if self._layout.is_dense:
      return place_rows(blocks, len(self._word_counts), self._layout, allocate=allocate)
    return sort_postings(
      blocks,
      sizes,
      np.array(self._word_counts, '<u4'),
      self._layout,
      region_counts=self._counts_of_regions() if self._layout.has_masks else None,
      allocate=allocate,
    )

  def _counts_of_regions(self) -> npt.NDArray[np.uint32]:
    return np.array(self._region_counts, '<u4').reshape(-1, MASKED_REGIONS)

  def _collected_postings(self) -> Iterator[Postings]:
    first = len(self._word_counts) - len(self._descriptors)
    for start in range(0, len(self._descriptors), BATCH):
      batch = self._descriptors[start : start + BATCH]
      counts = [len(descriptor) for descriptor in batch]
      ids = np.arange(first + start, first + start + len(batch), dtype=np.uint16)
      yield Postings(
        np.concatenate([descriptor.visual_words for descriptor in batch]).view(np.uint32),
        np.repeat(ids, counts),
        self._layout.pack([descriptor.values for descriptor in batch]),
        self._masks(batch),
      )

  def _masks(self, batch: list[AggregatedDescriptor]) -> npt.NDArray[np.uint8] | None:
    if not self._layout.has_masks:
      return None
    masks = (descriptor.region_masks for descriptor in batch)
    return np.concatenate([own for own in masks if own is not None])


def count_regions(masks: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
  """Returns the number of words of each region: uint32 [8] from the masks uint8 [W] of an image."""
  bits = np.unpackbits(masks[:, None], axis=1, bitorder='little')
  counts: npt.NDArray[np.uint32] = bits.sum(axis=0, dtype=np.uint32)
  return counts


def check_query(descriptor: AggregatedDescriptor, layout: Layout) -> None:
  """Raises ValueError unless the descriptor of a query fits the index, which ignores its region masks."""
  check_kind(descriptor, layout)
  check_words(descriptor, layout)


def check_kind(descriptor: AggregatedDescriptor, layout: Layout) -> None:
  """Raises ValueError unless the descriptor is binary or float as the index is, of its D, and finite."""
  if descriptor.is_binary != layout.is_binary:
    kinds = {True: 'binary (ASMK_STAR)', False: 'float (VLAD, ASMK)'}
    raise ValueError(
      f'expected a {kinds[layout.is_binary]} descriptor, found a {kinds[descriptor.is_binary]} one;'
      ' aggregate queries and index images with the same kernel'
    )
  if descriptor.dimensions != layout.dimensions:
    raise ValueError(
      f'expected a descriptor of {layout.dimensions} dimensions, found {descriptor.dimensions};'
      ' describe queries and index images with the same extractor and the same codebook'
    )
  if not descriptor.is_binary and not np.isfinite(descriptor.values).all():
    raise ValueError(
      'expected finite values, found NaN or infinity in a descriptor; its scores would mean nothing. Extract'
      ' the features again'
    )


def check_masks(descriptor: AggregatedDescriptor, layout: Layout) -> None:
  """Raises ValueError unless the descriptor of an image has region masks exactly if the index has them."""
  masks = descriptor.region_masks
  if (masks is not None) != layout.has_masks:
    what = {True: 'with region masks', False: 'without region masks'}
    raise ValueError(
      f'expected a descriptor {what[layout.has_masks]} as in the index, found one {what[masks is not None]};'
      ' aggregate all index images with the same region_masks'
    )
  if masks is not None and (masks.dtype != np.uint8 or not masks.all()):
    raise ValueError(
      f'expected region masks of uint8 that name at least one region for each word, found {masks.dtype} with'
      f' {np.count_nonzero(masks == 0)} words of no region'
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
