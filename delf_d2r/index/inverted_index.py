"""The inverted index: for each visual word, the images that have it and their codes.

`InvertedIndex` is what other rooms see of this one: an index that is built, changed (updates.py), saved
(home.py) and searched (searchable_index.py). See segments.py for the arrays, directory.py for the files.
"""

import contextlib
import copy
import functools
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence

from delf_d2r.index import updates
from delf_d2r.index.builder import DEFAULT_MEMORY_BUDGET
from delf_d2r.index.contents import Contents
from delf_d2r.index.home import Home
from delf_d2r.index.images import ImageTable, check_distinct
from delf_d2r.index.searchable_index import SearchableIndex
from delf_d2r.index.segments import Layout
from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.structures import AggregatedDescriptor


class InvertedIndex(SearchableIndex):
  """Index images and their aggregated descriptors, sorted by visual word.

  Each image has one entry, its descriptor; or, for regional search, one entry for each of its regions,
  and the score of its best one.

  Searches may run in several threads at once; `add`, `remove` and `save` may not run beside them: where
  they have to, change a `fork`.
  """

  @classmethod
  def build(
    cls,
    descriptors: Iterable[AggregatedDescriptor],
    image_names: Sequence[str],
    *,
    num_words: int,
    kernel: Kernel,
    dimensions: int | None = None,
    entry_images: Sequence[int] | None = None,
    entry_regions: Sequence[int] | None = None,
    directory: str | os.PathLike | None = None,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
  ) -> 'InvertedIndex':
    """Builds an index, in memory or straight into a directory.

    Args:
      descriptors: one for each entry, read once.
      image_names: distinct names of the M images, in order of image id.
      num_words: K.
      kernel: what the descriptors are.
      dimensions: D; taken from the first descriptor by default.
      entry_images: integer [E], ascending, for regional search: the image of each entry. None: entry e
        is image e.
      entry_regions: integer [E], what `Ranking.best_regions` names an entry; by default its position
        among the entries of its image.
      directory: where to save the index while it is built; it need not fit into memory.
      memory_budget: bytes for sorting; see `SegmentBuilder`.

    Raises:
      ValueError: numbers of descriptors, names, entries disagree, a descriptor is of another kind, or
        the directory holds another index.
    """
    descriptors = iter(descriptors)
    if dimensions is None:
      first = next(descriptors, None)
      if first is None:
        raise ValueError('without any descriptor, the dimensions are unknown; pass dimensions=D')
      dimensions = first.dimensions
      descriptors = itertools.chain([first], descriptors)
    layout = Layout(num_words, dimensions, kernel is Kernel.ASMK_STAR)
    index = cls(Contents.empty(kernel, layout, is_regional=entry_images is not None), Home(directory))
    entries = {'entry_images': entry_images, 'entry_regions': entry_regions}
    with index._being_built():
      index.add(descriptors, image_names, **entries, memory_budget=memory_budget)
    return index

  def add(
    self,
    descriptors: Iterable[AggregatedDescriptor],
    image_names: Sequence[str],
    *,
    entry_images: Sequence[int] | None = None,
    entry_regions: Sequence[int] | None = None,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
  ) -> None:
    """Adds images after those present. Arguments and errors as for `build`.

    `entry_images` counts from 0 at the first new image. The last segment, up to 65,536 entries, is
    sorted anew, so that the index is the same in whatever chunks images are added. The index on the
    disk changes when `save` is called.
    """
    if (entry_images is not None) != self.is_regional:
      raise ValueError(
        f'entry_images: expected {"some" if self.is_regional else "none"} as in the index, found'
        f' {"none" if self.is_regional else "some"}; add images as those of the index were added'
      )
    new_images = ImageTable.from_entries(image_names, entry_images, entry_regions)
    check_distinct(itertools.chain(self.image_names, new_images.names))
    new_builder = self._new_builder(memory_budget)
    self._replace(updates.add(self._contents, descriptors, new_images, new_builder))

  def remove(self, image_names: Iterable[str], *, memory_budget: int = DEFAULT_MEMORY_BUDGET) -> None:
    """Removes images; those after them move up, as if the removed ones had never been added.

    All segments from the first change on are sorted anew.

    Raises:
      KeyError: a name is not in the index; nothing is removed.
    """
    self._check_entry_offsets()
    self._replace(updates.remove(self._contents, image_names, self._new_builder(memory_budget)))

  @classmethod
  def merge(
    cls,
    indexes: Sequence['InvertedIndex'],
    *,
    directory: str | os.PathLike | None = None,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
  ) -> 'InvertedIndex':
    """The index of all images of `indexes`, in order, as `build` would give it; those stay as they are.

    Raises:
      ValueError: no index, indexes of different kinds, or images of one name.
    """
    if not indexes:
      raise ValueError('expected at least one index to merge, found none')
    first = indexes[0]
    for other in indexes[1:]:
      for field in ('kernel', 'num_words', 'dimensions', 'is_regional'):
        if getattr(other, field) != getattr(first, field):
          raise ValueError(
            f'{field}: expected {getattr(first, field)} as in the first index, found'
            f' {getattr(other, field)}; merge indexes that were built alike'
          )
    check_distinct(name for index in indexes for name in index.image_names)
    for index in indexes:
      index._check_entry_offsets()
    merged = cls(
      Contents.empty(first.kernel, first._contents.layout, is_regional=first.is_regional), Home(directory)
    )
    with merged._being_built():
      parts = [index._contents for index in indexes]
      merged._replace(updates.merge(parts, merged._new_builder(memory_budget)))
    return merged

  def part(
    self,
    images: range,
    *,
    directory: str | os.PathLike | None = None,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
  ) -> 'InvertedIndex':
    """The index of consecutive images alone, as `build` would give it; this one stays as it is.

    Raises:
      ValueError: there are no such images.
    """
    if images.step != 1 or not 0 <= images.start <= images.stop <= len(self):
      raise ValueError(f'images: expected consecutive ones of 0 to {len(self)}, found {images}')
    self._check_entry_offsets()
    part = type(self)(
      Contents.empty(self.kernel, self._contents.layout, is_regional=self.is_regional), Home(directory)
    )
    with part._being_built():
      part._replace(updates.part(self._contents, images, part._new_builder(memory_budget)))
    return part

  def fork(self) -> 'InvertedIndex':
    """A copy to change and save while searches go on in this one, which must not be changed any more.

    Both share the segments, which never change, and the update of the directory that is not saved yet.
    """
    for segment in self._contents.segments:
      segment.load()  # Mapped from now on: saving the copy unlinks files.
    twin = copy.copy(self)
    twin._home = copy.copy(self._home)
    twin._forget()
    return twin

  def save(self, directory: str | os.PathLike | None = None, *, overwrite: bool = False) -> None:
    """Saves the index, by default where it came from; afterwards it is memory-mapped from there.

    A kill at any moment leaves the old index or the new one. Segments that have not changed are not
    written again.

    Raises:
      ValueError: the directory holds another index, or this one as another process has changed it, and
        `overwrite` is false; or there is no directory.
      BlockingIOError: another process is updating the index.
    """
    self._replace(self._home.save(self._contents, directory, overwrite=overwrite))

  def _new_builder(self, memory_budget: int) -> updates.NewBuilder:
    return functools.partial(self._home.builder, self._contents.layout, memory_budget=memory_budget)

  def _replace(self, contents: Contents) -> None:
    self._contents = contents
    self._forget()

  @contextlib.contextmanager
  def _being_built(self) -> Iterator[None]:
    """Puts what is added inside into the index's directory, if it has one, and saves it at the end."""
    try:
      self._home.begin()
      yield
      if self._home.directory is not None:
        self.save()
    except BaseException:
      self.close()
      raise
