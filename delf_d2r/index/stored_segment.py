"""A segment on the disk: mapped when it is first needed, checked before its offsets are followed."""

from typing import Any

import numpy as np

from delf_d2r.index.dense_segment import DenseSegment
from delf_d2r.index.directory import (
  Directory,
  IndexFormatError,
  array_path,
  check_checksum,
  check_offsets,
  check_size,
  map_array,
  segment_stem,
)
from delf_d2r.index.segments import Layout, Segment


class StoredSegment:
  """The place of a segment on the disk; `load` maps it.

  Attributes:
    directory, number: place in the index.
    num_entries, num_postings: sizes, from the manifest.
    checksums: CRC-32C of the file of each array.
  """

  def __init__(
    self, directory: str, number: int, layout: Layout, entries: int, postings: int, checksums: dict[str, int]
  ) -> None:
    self.directory = directory
    self.number = number
    self.num_entries = entries
    self.num_postings = postings
    self.checksums = checksums
    self._layout = layout
    self._segment: Segment | DenseSegment | None = None

  @classmethod
  def write(
    cls, directory: Directory, number: int, layout: Layout, segment: Segment | DenseSegment
  ) -> 'StoredSegment':
    """Writes a segment into the directory of an index, as its segment `number`."""
    checksums = {
      name: directory.write(segment_stem(number, name), array) for name, array in segment.arrays.items()
    }
    return cls(directory.path, number, layout, segment.num_entries, segment.num_postings, checksums)

  @property
  def nbytes(self) -> int:
    return sum(
      dtype.itemsize * int(np.prod(shape, dtype=object)) for _, dtype, shape in self._files().values()
    )

  def manifest(self) -> dict[str, Any]:
    """Returns what the manifest of the index says of the segment."""
    return {'entries': self.num_entries, 'postings': self.num_postings, 'arrays': self.checksums}

  def check_sizes(self) -> None:
    """Raises IndexFormatError if a file is missing or not of its size; reads none."""
    for path, dtype, shape in self._files().values():
      check_size(path, dtype, shape)

  def load(self) -> Segment | DenseSegment:
    """Returns the memory-mapped segment.

    Raises:
      IndexFormatError: a file is missing, or contradicts the manifest.
    """
    if self._segment is None:
      files = self._files()
      arrays = {name: map_array(*file) for name, file in files.items()}
      if self._layout.is_dense:
        self._segment = DenseSegment(**arrays)
      else:
        segment = Segment(**arrays)
        check_offsets(segment.offsets, self.num_postings, files['offsets'][0])
        self._segment = segment
    return self._segment

  def unload(self) -> None:
    """Drops the memory map; the next `load` maps the segment again."""
    self._segment = None

  def verify(self) -> None:
    """Reads everything.

    Raises:
      IndexFormatError: a file does not have its checksum, or an array contradicts the others.
    """
    for name, (path, _, _) in self._files().items():
      check_checksum(path, self.checksums[name])
    segment = self.load()
    if isinstance(segment, DenseSegment):
      self._verify_dense(segment)
      return
    path = self._files()['entry_ids'][0]
    ids = segment.entry_ids
    if len(ids) and ids.max() >= self.num_entries:
      raise IndexFormatError(
        f'{path}: expected ids below {self.num_entries}, found {ids.max()}; build the index again'
      )
    ascending = np.ones(len(ids) + 1, bool)
    ascending[1:-1] = ids[1:] > ids[:-1]
    ascending[segment.offsets] = True  # the first of a list has no predecessor
    if not ascending.all():
      raise IndexFormatError(f'{path}: ids do not ascend within the list of a word; build the index again')
    if not np.array_equal(np.bincount(ids, minlength=self.num_entries), segment.word_counts):
      raise IndexFormatError(
        f'{self._files()["word_counts"][0]}: word counts differ from the postings; build the index again'
      )
    self._verify_masks(segment)

  def _verify_dense(self, segment: DenseSegment) -> None:
    path = self._files()['values'][0]
    if segment.num_postings != self.num_postings:
      raise IndexFormatError(
        f'{path}: expected descriptors of {self.num_postings} entries, found {segment.num_postings}; build'
        ' the index again'
      )
    if not segment.is_finite:
      raise IndexFormatError(f'{path}: has values that are not finite; build the index again')

  def _verify_masks(self, segment: Segment) -> None:
    masks, counts = segment.masks, segment.region_counts
    if masks is None or counts is None:
      return
    if not masks.all():
      raise IndexFormatError(
        f'{self._files()["masks"][0]}: {np.count_nonzero(masks == 0)} postings are of no region; build the'
        ' index again'
      )
    for region, count in enumerate(counts.T):
      own = segment.entry_ids[(masks >> region) & 1 == 1]
      if not np.array_equal(np.bincount(own, minlength=self.num_entries), count):
        raise IndexFormatError(
          f'{self._files()["region_counts"][0]}: word counts of region {region} differ from the masks; build'
          ' the index again'
        )

  def _files(self) -> dict[str, tuple[str, np.dtype[Any], tuple[int, ...]]]:
    """Returns path, dtype and shape of each array by its name."""
    return {
      name: (array_path(self.directory, segment_stem(self.number, name), self.checksums[name]), dtype, shape)
      for name, (dtype, shape) in self._layout.arrays(self.num_entries, self.num_postings).items()
    }
