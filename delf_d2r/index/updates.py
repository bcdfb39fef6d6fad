"""Changes of an index: each takes its state and returns that of a fresh build of the images that are left.

Segments hold 65,536 entries and the last one the rest: a change sorts all entries behind it again, and the
segments before it stay as they are. The caller passes the builder, since it knows where segments are stored.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from delf_d2r.index.builder import SegmentBuilder
from delf_d2r.index.images import ImageTable
from delf_d2r.index.index_state import AnySegment, IndexState
from delf_d2r.index.segments import SEGMENT_ENTRIES
from delf_d2r.structures import AggregatedDescriptor, require_several

# Takes the list that finished segments are appended to.
NewBuilder = Callable[[list[AnySegment]], SegmentBuilder]


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
  segments = list(state.segments)
  builder = new_builder(segments)
  if segments and segments[-1].num_entries < SEGMENT_ENTRIES:
    builder.add_segment(segments.pop().load())
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
  return _replaced(state, segments, state.images + new_images)


def remove(state: IndexState, image_names: Iterable[str], new_builder: NewBuilder) -> IndexState:
  """Removes images; full segments before the first change stay.

  Raises:
    KeyError: a name is not among the images.
    TypeError: `image_names` is a string.
  """
  require_several(image_names, 'image_names')
  ids = {name: m for m, name in enumerate(state.images.names)}
  kept = np.ones(len(ids), bool)
  for name in image_names:
    if name not in ids:
      raise KeyError(f'{name!r} is not among the {len(ids)} images of the index')
    kept[ids[name]] = False
  kept_entries = state.images.kept_entries(kept)
  unchanged = len(state.segments)
  if not kept_entries.all():
    unchanged = int(np.argmin(kept_entries)) // SEGMENT_ENTRIES
  segments = list(state.segments[:unchanged])
  builder = new_builder(segments)
  for segment, own in list(_with_entries(state, kept_entries))[unchanged:]:
    builder.add_segment(segment.load(), own)
  builder.finish()
  return _replaced(state, segments, state.images.keep(kept))


def subset(state: IndexState, images: range, new_builder: NewBuilder) -> IndexState:
  """Keeps consecutive images alone."""
  kept = np.zeros(len(state.images.names), bool)
  kept[images.start : images.stop] = True
  segments: list[AnySegment] = []
  builder = new_builder(segments)
  for segment, own in _with_entries(state, state.images.kept_entries(kept)):
    if own.any():
      builder.add_segment(segment.load(), own)
  builder.finish()
  return _replaced(state, segments, state.images.keep(kept))


def merge(states: Sequence[IndexState], new_builder: NewBuilder) -> IndexState:
  """Joins the images of `states`, one or more that were built alike, in order."""
  segments: list[AnySegment] = []
  builder = new_builder(segments)
  images = ImageTable.empty(is_regional=states[0].images.is_regional)
  for state in states:
    images += state.images
    for segment in state.segments:
      builder.add_segment(segment.load())
  builder.finish()
  return _replaced(states[0], segments, images)


def _with_entries(
  state: IndexState, of_entries: npt.NDArray[Any]
) -> Iterator[tuple[AnySegment, npt.NDArray[Any]]]:
  """Yields each segment with its own entries' part of an array over all entries."""
  for number, segment in enumerate(state.segments):
    start = number * SEGMENT_ENTRIES
    yield segment, of_entries[start : start + SEGMENT_ENTRIES]


def _replaced(state: IndexState, segments: list[AnySegment], images: ImageTable) -> IndexState:
  return IndexState(state.kernel, state.layout, images, tuple(segments))
