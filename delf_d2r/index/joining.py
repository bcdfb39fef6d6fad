"""An index of segments that several processes have built, each for itself.

A part is an index of its own with a single segment. Its directory gets its name when the part is complete.
The files of the parts are renamed to files of the large index: they have the bytes that one process would
have written there.
"""

import dataclasses
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Sequence

from delf_d2r.index import stored_index
from delf_d2r.index.directory import IndexFormatError, array_path, segment_stem
from delf_d2r.index.images import ImageTable, check_distinct
from delf_d2r.index.index_state import AnySegment, IndexState
from delf_d2r.index.inverted_index import IndexStorage, InvertedIndex
from delf_d2r.index.segments import Layout, ValueType
from delf_d2r.index.stored_segment import StoredSegment
from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.structures import AggregatedDescriptor


def build_part(
  descriptors: Iterable[AggregatedDescriptor],
  num_entries: int,
  part: pathlib.Path,
  *,
  num_words: int,
  dimensions: int,
  kernel: Kernel,
  region_masks: bool = False,
  value_type: ValueType = ValueType.FLOAT32,
  codebook: str = '',
  memory_budget: int,
) -> None:
  """Builds one segment; where another process has built it meanwhile, that one stays.

  Args:
    descriptors: one for each entry.
    num_entries: the number of entries, 65,536 in every segment but the last.
    part: its directory, made when the segment is finished.
    num_words: K.
    dimensions: D.
    kernel: of the descriptors.
    region_masks: whether the descriptors have region masks.
    value_type, codebook: how values are stored, and the codebook; see `InvertedIndex.build`.
    memory_budget: bytes for sorting; see `SegmentBuilder`.

  Raises:
    ValueError: there are more or fewer descriptors, or one is of another kind.
  """
  unfinished = tempfile.mkdtemp(dir=part.parent, prefix=f'.{part.name}-')
  try:
    InvertedIndex.build(
      descriptors,
      list(map(str, range(num_entries))),
      num_words=num_words,
      dimensions=dimensions,
      kernel=kernel,
      region_masks=region_masks,
      value_type=value_type,
      codebook=codebook,
      directory=unfinished,
      memory_budget=memory_budget,
    ).close()
    os.rename(unfinished, part)
  except OSError:
    # A worker that was taken for dead may have gone on and finished the part.
    if not is_built(part):
      raise
  finally:
    shutil.rmtree(unfinished, ignore_errors=True)


def is_built(part: pathlib.Path) -> bool:
  """Returns whether the part exists with all its files."""
  try:
    stored_index.read(os.fspath(part))
  except IndexFormatError:
    return False
  return True


def join(
  parts: Sequence[pathlib.Path],
  image_names: Sequence[str],
  *,
  num_words: int,
  dimensions: int,
  kernel: Kernel,
  region_masks: bool = False,
  value_type: ValueType = ValueType.FLOAT32,
  codebook: str = '',
  directory: pathlib.Path,
  entry_images: Sequence[int] | None = None,
) -> InvertedIndex:
  """Returns the index of all parts, equal to that of `InvertedIndex.build`; the files of the parts are moved.

  Args:
    parts: their directories, in order.
    image_names, entry_images: those of `InvertedIndex.build`.
    num_words, dimensions, kernel, region_masks, value_type, codebook: those of the parts.
    directory: of the index.

  Raises:
    ValueError: the parts have more or fewer entries than the images, or the directory holds an index.
    IndexFormatError: a part is damaged.
  """
  images = ImageTable.from_entries(image_names, entry_images)
  check_distinct(images.names)
  layout = Layout(num_words, dimensions, kernel.is_binary, region_masks, value_type, codebook)
  states = [stored_index.read(os.fspath(part))[0] for part in parts]
  segments = [segment for state in states for segment in state.segments]
  widths = {state.layout.is_wide for state in states}
  if len(widths) > 1:
    raise ValueError(
      f'expected {len(parts)} parts of one release, found codes in columns of 32 and of 64 bits; build the'
      ' parts again'
    )
  layout = dataclasses.replace(layout, is_wide=True in widths)
  found = sum(segment.num_entries for segment in segments)
  if found != images.num_entries:
    raise ValueError(
      f'expected {images.num_entries} entries in {len(parts)} parts, found {found}; build the parts again'
    )
  storage = IndexStorage(directory)
  try:
    storage.begin()
    own = os.path.realpath(directory)
    moved = tuple(_moved(segment, own, number, layout) for number, segment in enumerate(segments))
    storage.save(IndexState(kernel, layout, images, moved))
  finally:
    storage.close()
  return InvertedIndex.load(directory)


def _moved(segment: AnySegment, directory: str, number: int, layout: Layout) -> StoredSegment:
  """Moves the files of a segment to another directory, as those of its segment `number`."""
  assert isinstance(segment, StoredSegment)  # as all segments that are read from a directory
  for name, checksum in segment.checksums.items():
    here, there = (
      array_path(place, segment_stem(place_number, name), checksum)
      for place, place_number in ((segment.directory, segment.number), (directory, number))
    )
    os.replace(here, there)
  return StoredSegment(
    directory, number, layout, segment.num_entries, segment.num_postings, segment.checksums
  )
