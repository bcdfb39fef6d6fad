"""The state of an index as an immutable value: every change of an index gives another one (updates.py)."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from delf_d2r.index.dense_segment import DenseSegment
from delf_d2r.index.images import ImageTable
from delf_d2r.index.segments import Layout, Segment
from delf_d2r.index.stored_segment import StoredSegment
from delf_d2r.kernels.aggregation import Kernel

AnySegment = Segment | DenseSegment | StoredSegment
Ids = npt.NDArray[np.uint16]

NONE_REMOVED: Ids = np.zeros(0, '<u2')
NONE_REMOVED.flags.writeable = False


@dataclasses.dataclass(frozen=True)
class IndexState:
  """Images and the postings of their entries.

  A change of few images leaves most segments as they are: entries that were removed keep their postings, and
  added ones form small segments of their own (updates.py). The *rows* are the entries of all segments in
  order, with those that were removed; the *entries* are the rows that are left.

  Attributes:
    kernel: of the descriptors.
    layout: sizes that all arrays share.
    images: names of the images, and which entries belong to each.
    segments: the rows in order, at most 65,536 in each segment.
    removed: uint16 ids within each segment, ascending, of the rows that were removed; () if there are none in
      any segment.
  """

  kernel: Kernel
  layout: Layout
  images: ImageTable
  segments: tuple[AnySegment, ...] = ()
  removed: tuple[Ids, ...] = ()

  @classmethod
  def empty(cls, kernel: Kernel, layout: Layout, *, is_regional: bool) -> 'IndexState':
    """Returns the state of an index without images."""
    return cls(kernel, layout, ImageTable.empty(is_regional=is_regional))

  @property
  def parts(self) -> Iterator[tuple[AnySegment, Ids]]:
    """Each segment with the ids of its removed rows."""
    return zip(self.segments, self.removed or (NONE_REMOVED,) * len(self.segments), strict=True)

  @property
  def num_rows(self) -> int:
    return sum(segment.num_entries for segment in self.segments)

  @property
  def num_removed(self) -> int:
    return sum(map(len, self.removed))

  @property
  def num_entries(self) -> int:
    return self.num_rows - self.num_removed

  @property
  def num_postings(self) -> int:
    """The sum of the words of all entries."""
    return sum(
      segment.num_postings - (segment.load().count_words(removed) if len(removed) else 0)
      for segment, removed in self.parts
    )

  @property
  def nbytes(self) -> int:
    """Bytes of all arrays, with those of removed rows."""
    own = [*self.segments, *self.removed, self.images]
    return sum(part.nbytes for part in own)

  def kept_rows(self) -> npt.NDArray[np.int64] | None:
    """Returns the rows that are left, int64 [E], ascending; None if none was removed."""
    if not self.num_removed:
      return None
    return np.flatnonzero(np.concatenate([kept_ids(*part) for part in self.parts]))


def kept_ids(segment: AnySegment, removed: Ids) -> npt.NDArray[np.bool_]:
  """Returns which rows of a segment are left: bool [n]."""
  kept = np.ones(segment.num_entries, bool)
  kept[removed] = False
  return kept
