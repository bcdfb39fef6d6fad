"""Where an index lives on the disk: its directory, and the update of that which is not saved yet."""

import os
from collections.abc import Callable

from delf_d2r.index import stored_index
from delf_d2r.index.builder import SegmentBuilder
from delf_d2r.index.contents import AnySegment, Contents
from delf_d2r.index.directory import Directory
from delf_d2r.index.segments import Layout


class Home:
  """The place of one index; of none yet where the index is in memory alone.

  Attributes:
    directory: where the index was loaded from, saved to, or is being built; None: nowhere.
    checksum: of the manifest as it was loaded or last saved; None if it was neither.
  """

  def __init__(self, directory: str | os.PathLike | None = None, checksum: int | None = None):
    self.directory = None if directory is None else os.path.realpath(directory)
    self.checksum = checksum
    self._writer: Directory | None = None  # open while there are changes to save there

  def begin(self) -> None:
    """Opens the directory, if there is one, for an update, which shuts out any other.

    Raises:
      ValueError: the directory holds another index than the one with `checksum`.
      BlockingIOError: another process is updating it.
    """
    if self.directory is not None and self._writer is None:
      self._writer = Directory(self.directory, expected=self.checksum)

  def builder(self, layout: Layout, segments: list[AnySegment], *, memory_budget: int) -> SegmentBuilder:
    """A builder that appends to `segments`: on the disk if the index is there. Raises as `begin` does."""
    self.begin()
    writer = self._writer
    if writer is None:
      return SegmentBuilder(layout, segments.append, memory_budget=memory_budget)
    return SegmentBuilder(
      layout,
      lambda segment: segments.append(stored_index.store(writer, len(segments), layout, segment)),
      scratch=writer.scratch,
      memory_budget=memory_budget,
    )

  def save(
    self, contents: Contents, directory: str | os.PathLike | None = None, *, overwrite: bool = False
  ) -> Contents:
    """Saves contents, by default where the index lives, and moves there; returns them as they lie there.

    Raises as `InvertedIndex.save` does.
    """
    directory = self.directory if directory is None else os.path.realpath(directory)
    if directory is None:
      raise ValueError('the index has no directory yet; pass one to save')
    own = directory == self.directory
    writer = self._writer if own else None
    if writer is None:
      writer = Directory(directory, expected=self.checksum if own else None, overwrite=overwrite)
    try:
      stored, checksum = stored_index.write(writer, contents)
    finally:
      writer.close()
      self._writer = None
    self.directory, self.checksum = directory, checksum
    return stored

  def close(self) -> None:
    """Gives up an update that was not saved."""
    if self._writer is not None:
      self._writer.close()
      self._writer = None

  def verify(self) -> None:
    """Reads every byte on the disk; raises IndexFormatError naming the file that is damaged."""
    if self.directory is not None:
      stored_index.verify(self.directory)

  def warm(self, report: Callable[[int, int], None]) -> int:
    """Reads every file, so that it is in memory; see `SearchableIndex.warm`."""
    return 0 if self.directory is None else stored_index.warm(self.directory, report)
