"""Changes of an index: each takes its state and returns that of the images that are left.

An index that is built, merged or compacted is *compact*: its segments hold 65,536 entries and the last one
the rest, so that the same images give the same bytes. To keep it so, a change would have to sort all entries
behind it again, which takes seconds where it concerns a single photo of a hundred thousand. Therefore

- a change sorts again what is no more than 8 MiB, which small indexes never exceed: they are always compact;
- images that are removed from large segments keep their postings there, until there are too many of them;
- added ones are sorted together with the last segments that are not larger than twice what is sorted anyway,
  so that a photo is sorted again a few times at most, and the segments that are not full are few.

No search, norm or frequency of words sees a removed image: scores and rankings are those of a fresh build.
The caller passes the builder, since it knows where segments are stored.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from delf_d2r.index.builder import SegmentBuilder
from delf_d2r.index.images import ImageTable
from delf_d2r.index.index_state import NONE_REMOVED, AnySegment, Ids, IndexState, kept_ids
from delf_d2r.index.segments import SEGMENT_ENTRIES, Layout
from delf_d2r.structures import AggregatedDescriptor, require_several

# Takes the list that finished segments are appended to.
NewBuilder = Callable[[list[AnySegment]], SegmentBuilder]

# Bytes of segments that any change may sort again: about 20 ms.
SMALL_BYTES = 1 << 23
# The share of rows that may be removed ones; with more, the index becomes compact.
MOST_REMOVED = 1 / 8


def add(
  state: IndexState,
  descriptors: Iterable[AggregatedDescriptor],
  new_images: ImageTable,
  new_builder: NewBuilder,
) -> IndexState:
  """Adds images after those present.

  Args:
    state: before the change.
    descriptors: one for each entry of `new_images`, read once.
    new_images: the images to add, regional if those of `state` are.
    new_builder: makes the builder for the segments.

  Raises:
    ValueError: more or fewer descriptors than entries, or one of another kind.
  """
  first = _first_to_sort(state, new_images.num_entries)
  segments = list(state.segments[:first])
  builder = new_builder(segments)
  for segment, removed in list(state.parts)[first:]:
    builder.add_segment(segment.load(), kept_ids(segment, removed) if len(removed) else None)
  added = 0
  for descriptor in descriptors:
    added += 1
    if added > new_images.num_entries:
      break
    builder.add(descriptor)
  if added != new_images.num_entries:
    raise ValueError(
      f'expected {new_images.num_entries} descriptors, one for each entry, found'
      f' {added if added < new_images.num_entries else "more"}; give a name for each image'
    )
  builder.finish()
  return _replaced(state, segments, state.images + new_images, state.removed[:first])


def remove(state: IndexState, image_names: Iterable[str], new_builder: NewBuilder) -> IndexState:
  """Removes images.

  Raises:
    KeyError: a name is not among the images.
    TypeError: `image_names` is a string.
  """
  require_several(image_names, 'image_names')
  kept = np.ones(len(state.images.names), bool)
  kept[state.images.names.positions(list(image_names))] = False
  images, kept_entries = state.images.keep(kept), state.images.kept_entries(kept)
  if kept_entries.all():
    return _replaced(state, state.segments, images, state.removed)
  parts = list(_with_entries(state, kept_entries))
  changed = next(number for number, (*_, own) in enumerate(parts) if not own.all())
  removed = [np.flatnonzero(~_kept(*part)).astype('<u2') for part in parts]
  marked = _replaced(state, state.segments, images, removed)
  if sum(segment.nbytes for segment in state.segments[changed:]) <= SMALL_BYTES:
    return _sorted_from(marked, changed, new_builder)
  if marked.num_removed > MOST_REMOVED * marked.num_rows:
    return compact(marked, new_builder)
  return marked


def compact(state: IndexState, new_builder: NewBuilder) -> IndexState:
  """Returns the state of a fresh build: without removed rows, all segments but the last one full."""
  return _sorted_from(state, first_not_compact(state), new_builder)


def first_not_compact(state: IndexState) -> int:
  """Returns the number of the first segment that a fresh build would make otherwise, or that of segments."""
  last = len(state.segments) - 1
  for number, (segment, removed) in enumerate(state.parts):
    if len(removed) or (number < last and segment.num_entries < SEGMENT_ENTRIES):
      return number
  return len(state.segments)


def subset(state: IndexState, images: range, layout: Layout, new_builder: NewBuilder) -> IndexState:
  """Keeps consecutive images alone, in the builder's layout."""
  kept = np.zeros(len(state.images.names), bool)
  kept[images.start : images.stop] = True
  segments: list[AnySegment] = []
  builder = new_builder(segments)
  for segment, removed, own in _with_entries(state, state.images.kept_entries(kept)):
    if own.any():
      builder.add_segment(segment.load(), _kept(segment, removed, own))
  builder.finish()
  return IndexState(state.kernel, layout, state.images.keep(kept), tuple(segments))


def merge(states: Sequence[IndexState], layout: Layout, new_builder: NewBuilder) -> IndexState:
  """Joins the images of `states`, one or more that were built alike, in order and in the builder's layout."""
  segments: list[AnySegment] = []
  builder = new_builder(segments)
  images = ImageTable.empty(is_regional=states[0].images.is_regional)
  for state in states:
    images += state.images
    for segment, removed in state.parts:
      builder.add_segment(segment.load(), kept_ids(segment, removed) if len(removed) else None)
  builder.finish()
  return IndexState(states[0].kernel, layout, images, tuple(segments))


def _first_to_sort(state: IndexState, new_entries: int) -> int:
  """Returns the number of the first segment that is sorted together with new entries."""
  new_bytes = new_entries * sum(segment.nbytes for segment in state.segments) // max(state.num_rows, 1)
  first, total = len(state.segments), 0  # of the segments to sort
  for segment, removed in reversed(list(state.parts)):
    is_complete = segment.num_entries >= SEGMENT_ENTRIES and not len(removed)
    is_small = total + segment.nbytes <= SMALL_BYTES or segment.nbytes <= 2 * (new_bytes + total)
    if is_complete or not is_small:
      break
    first, total = first - 1, total + segment.nbytes
  return first


def _sorted_from(state: IndexState, first: int, new_builder: NewBuilder) -> IndexState:
  """Returns the state with segment `first` and those behind it sorted again, without removed rows."""
  segments = list(state.segments[:first])
  builder = new_builder(segments)
  for segment, removed in list(state.parts)[first:]:
    builder.add_segment(segment.load(), kept_ids(segment, removed))
  builder.finish()
  return _replaced(state, segments, state.images, state.removed[:first])


def _with_entries(
  state: IndexState, of_entries: npt.NDArray[Any]
) -> Iterator[tuple[AnySegment, Ids, npt.NDArray[Any]]]:
  """Yields each segment with its removed rows and its entries' part of an array over all entries."""
  start = 0
  for segment, removed in state.parts:
    stop = start + segment.num_entries - len(removed)
    yield segment, removed, of_entries[start:stop]
    start = stop


def _kept(segment: AnySegment, removed: Ids, kept_entries: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
  """Returns which rows of a segment stay, bool [n], from the same of the entries that are left."""
  kept = kept_ids(segment, removed)
  kept[kept] = kept_entries
  return kept


def _replaced(
  state: IndexState, segments: Sequence[AnySegment], images: ImageTable, removed: Sequence[Ids] = ()
) -> IndexState:
  """Returns the state with other images, segments and removed rows of the first of them."""
  marks = (*removed, *[NONE_REMOVED] * (len(segments) - len(removed)))
  return dataclasses.replace(
    state, images=images, segments=tuple(segments), removed=marks if any(map(len, marks)) else ()
  )
