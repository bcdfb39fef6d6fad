"""The state of an index as an immutable value: every change of an index gives another one (updates.py)."""

import dataclasses

from delf_d2r.index.dense_segment import DenseSegment
from delf_d2r.index.images import ImageTable
from delf_d2r.index.segments import Layout, Segment
from delf_d2r.index.stored_segment import StoredSegment
from delf_d2r.kernels.aggregation import Kernel

AnySegment = Segment | DenseSegment | StoredSegment


@dataclasses.dataclass(frozen=True)
class IndexState:
  """Images and the postings of their entries.

  Attributes:
    kernel: of the descriptors.
    layout: sizes that all arrays share.
    images: names of the images, and which entries belong to each.
    segments: the entries in order, 65,536 in each segment but the last.
  """

  kernel: Kernel
  layout: Layout
  images: ImageTable
  segments: tuple[AnySegment, ...] = ()

  @classmethod
  def empty(cls, kernel: Kernel, layout: Layout, *, is_regional: bool) -> 'IndexState':
    """Returns the state of an index without images."""
    return cls(kernel, layout, ImageTable.empty(is_regional=is_regional))

  @property
  def num_entries(self) -> int:
    return sum(segment.num_entries for segment in self.segments)

  @property
  def num_postings(self) -> int:
    return sum(segment.num_postings for segment in self.segments)

  @property
  def nbytes(self) -> int:
    return sum(segment.nbytes for segment in self.segments) + self.images.nbytes
