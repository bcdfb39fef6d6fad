"""An index of segments that several processes have built, each for itself.

A part is an index of its own with a single segment; where its directory stands, it is whole. Its files become
those of the large index by a new name: they are what one process would have written there.
"""

import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Sequence

from delf_d2r.index import stored_index
from delf_d2r.index.array_files import IndexFormatError, array_path
from delf_d2r.index.contents import Contents
from delf_d2r.index.home import Home
from delf_d2r.index.images import ImageTable, check_distinct
from delf_d2r.index.inverted_index import InvertedIndex
from delf_d2r.index.manifest import segment_stem
from delf_d2r.index.segments import Layout
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
  memory_budget: int,
) -> None:
  """Builds one segment; where another process has been faster, that one's stays.

  Args:
    descriptors: of the entries.
    num_entries: how many they are, 65,536 in every segment but the last.
    part: its directory, made when the segment is finished.
    num_words: K.
    dimensions: D.
    kernel: what the descriptors are.
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
      directory=unfinished,
      memory_budget=memory_budget,
    ).close()
    os.rename(unfinished, part)
  except OSError:
    # A worker that was given up for dead may have lived on.
    if not is_built(part):
      raise
  finally:
    shutil.rmtree(unfinished, ignore_errors=True)


def is_built(part: pathlib.Path) -> bool:
  """Whether the part is there with all its files."""
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
  directory: pathlib.Path,
  entry_images: Sequence[int] | None = None,
) -> InvertedIndex:
  """The index of all parts, as `InvertedIndex.build` would give it; the parts are used up.

  Args:
    parts: in order.
    image_names, entry_images: as for `InvertedIndex.build`.
    num_words, dimensions, kernel: those of the parts.
    directory: of the index.

  Raises:
    ValueError: the parts have more or fewer entries than the images, or the directory holds an index.
    IndexFormatError: a part is damaged.
  """
  images = ImageTable.from_entries(image_names, entry_images)
  check_distinct(images.names)
  layout = Layout(num_words, dimensions, kernel is Kernel.ASMK_STAR)
  segments = [segment for part in parts for segment in stored_index.read(os.fspath(part))[0].segments]
  found = sum(segment.num_entries for segment in segments)
  if found != images.num_entries:
    raise ValueError(f'expected {images.num_entries} entries in {len(parts)} parts, found {found}')
  home = Home(directory)
  try:
    home.begin()
    moved = tuple(_moved(segment, home.directory, number, layout) for number, segment in enumerate(segments))
    home.save(Contents(kernel, layout, images, moved))
  finally:
    home.close()
  return InvertedIndex.load(directory)


def _moved(segment: StoredSegment, directory: str, number: int, layout: Layout) -> StoredSegment:
  """The segment as number `number` of another directory."""
  for name, checksum in segment.checksums.items():
    here, there = (
      array_path(place, segment_stem(place_number, name), checksum)
      for place, place_number in ((segment.directory, segment.number), (directory, number))
    )
    os.replace(here, there)
  return StoredSegment(
    directory, number, layout, segment.num_entries, segment.num_postings, segment.checksums
  )
