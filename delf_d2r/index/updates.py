"""Changes of an index's contents, each giving those of a fresh build of the images that are left.

Segments hold 65,536 entries and the last one the rest: a change sorts anew what lies behind it, and segments
before it stay as they are. The builder that does it comes from the caller, who knows where segments go.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from delf_d2r.index.builder import SegmentBuilder
from delf_d2r.index.contents import AnySegment, Contents
from delf_d2r.index.images import ImageTable
from delf_d2r.index.segments import SEGMENT_ENTRIES
from delf_d2r.structures import AggregatedDescriptor

# Of the list that finished segments are appended to.
NewBuilder = Callable[[list[AnySegment]], SegmentBuilder]


def add(
  contents: Contents,
  descriptors: Iterable[AggregatedDescriptor],
  new_images: ImageTable,
  new_builder: NewBuilder,
) -> Contents:
  """Contents with images after those present.

  Args:
    contents: before.
    descriptors: one for each entry of `new_images`, read once.
    new_images: what is added, regional if `contents` are.
    new_builder: makes the builder for the segments.

  Raises:
    ValueError: more or fewer descriptors than entries, or one of another kind.
  """
  segments = list(contents.segments)
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
  return _replaced(contents, segments, contents.images + new_images)


def remove(contents: Contents, image_names: Iterable[str], new_builder: NewBuilder) -> Contents:
  """Contents without some images; full segments before the first change stay.

  Raises:
    KeyError: a name is not among the images.
  """
  ids = {name: m for m, name in enumerate(contents.images.names)}
  kept = np.ones(len(ids), bool)
  for name in image_names:
    if name not in ids:
      raise KeyError(f'{name!r} is not among the {len(ids)} images of the index')
    kept[ids[name]] = False
  kept_entries = contents.images.kept_entries(kept)
  unchanged = len(contents.segments)
  if not kept_entries.all():
    unchanged = int(np.argmin(kept_entries)) // SEGMENT_ENTRIES
  segments = list(contents.segments[:unchanged])
  builder = new_builder(segments)
  for segment, own in list(_with_entries(contents, kept_entries))[unchanged:]:
    builder.add_segment(segment.load(), own)
  builder.finish()
  return _replaced(contents, segments, contents.images.keep(kept))


def part(contents: Contents, images: range, new_builder: NewBuilder) -> Contents:
  """Contents of consecutive images alone."""
  kept = np.zeros(len(contents.images.names), bool)
  kept[images.start : images.stop] = True
  segments: list[AnySegment] = []
  builder = new_builder(segments)
  for segment, own in _with_entries(contents, contents.images.kept_entries(kept)):
    if own.any():
      builder.add_segment(segment.load(), own)
  builder.finish()
  return _replaced(contents, segments, contents.images.keep(kept))


def merge(parts: Sequence[Contents], new_builder: NewBuilder) -> Contents:
  """Contents of all images of `parts`, one or more that were built alike, in order."""
  segments: list[AnySegment] = []
  builder = new_builder(segments)
  images = ImageTable.empty(is_regional=parts[0].images.is_regional)
  for contents in parts:
    images += contents.images
    for segment in contents.segments:
      builder.add_segment(segment.load())
  builder.finish()
  return _replaced(parts[0], segments, images)


def _with_entries(contents: Contents, of_entries: np.ndarray) -> Iterator[tuple[AnySegment, np.ndarray]]:
  """Each segment with its own entries' part of an array over all entries."""
  for number, segment in enumerate(contents.segments):
    start = number * SEGMENT_ENTRIES
    yield segment, of_entries[start : start + SEGMENT_ENTRIES]


def _replaced(contents: Contents, segments: list[AnySegment], images: ImageTable) -> Contents:
  return Contents(contents.kernel, contents.layout, images, tuple(segments))
