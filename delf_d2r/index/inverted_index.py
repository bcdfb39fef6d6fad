"""The inverted index: for each visual word, the images that have it and their codes.

It answers a query by reading the lists of the query's words alone, and gives the scores of comparing the
query with every image (kernels.similarity), to rounding. See segments.py for the arrays, storage.py for
the files, search.py for the score.
"""

import contextlib
import copy
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from delf_d2r.index import storage, stored_index
from delf_d2r.index.builder import DEFAULT_MEMORY_BUDGET, SegmentBuilder
from delf_d2r.index.images import ImageTable, check_distinct
from delf_d2r.index.search import Corpus, Scoring
from delf_d2r.index.searcher import Searcher
from delf_d2r.index.segments import SEGMENT_ENTRIES, Layout, Segment
from delf_d2r.index.stored_segment import StoredSegment
from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.structures import AggregatedDescriptor, Ranking


class InvertedIndex:
  """Index images and their aggregated descriptors, sorted by visual word.

  Each image has one entry, its descriptor; or, for regional search, one entry for each of its regions,
  and the score of its best one.

  Searches may run in several threads at once; `add`, `remove` and `save` may not run beside them: where
  they have to, change a `fork`.

  Attributes:
    kernel: what the descriptors are.
    num_words: K.
    dimensions: D.
    image_names: the images' names by image id.
    is_regional: whether an image has an entry for each region.
  """

  def __init__(self, layout: Layout, kernel: Kernel, images: ImageTable):
    """For `build` and `load`, which are the ways to get an index."""
    self.kernel = kernel
    self._layout = layout
    self._images = images
    self._segments: list[Segment | StoredSegment] = []
    self._directory: str | None = None  # where the index was loaded from or saved to
    self._checksum: int | None = None  # of the manifest there
    self._writer: storage.Directory | None = None  # open while there are changes to save there
    self._corpus: Corpus | None = None  # whose idf counts; None: that of the index itself
    self._forget()

  # Building ------------------------------------------------------------------------------------------

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
    index = cls(layout, kernel, ImageTable.empty(is_regional=entry_images is not None))
    entries = {'entry_images': entry_images, 'entry_regions': entry_regions}
    with index._updating(directory):
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
    segments = list(self._segments)
    builder = self._builder(segments, memory_budget)
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
    self._replace(segments, self._images + new_images)

  def remove(self, image_names: Iterable[str], *, memory_budget: int = DEFAULT_MEMORY_BUDGET) -> None:
    """Removes images; those after them move up, as if the removed ones had never been added.

    All segments from the first change on are sorted anew.

    Raises:
      KeyError: a name is not in the index; nothing is removed.
    """
    ids = {name: m for m, name in enumerate(self.image_names)}
    kept = np.ones(len(self), bool)
    for name in image_names:
      if name not in ids:
        raise KeyError(f'{name!r} is not among the {len(self)} images of the index')
      kept[ids[name]] = False
    self._check_entry_offsets()
    kept_entries = self._images.kept_entries(kept)
    starts = range(0, self.num_entries, SEGMENT_ENTRIES)
    # Full segments before the first change stay as they are.
    is_same = kept_entries.all()
    unchanged = len(starts) if is_same else int(np.argmin(kept_entries)) // SEGMENT_ENTRIES
    segments = self._segments[:unchanged]
    builder = self._builder(segments, memory_budget)
    for start, segment in list(zip(starts, self._segments, strict=True))[unchanged:]:
      builder.add_segment(segment.load(), kept_entries[start : start + SEGMENT_ENTRIES])
    builder.finish()
    self._replace(segments, self._images.keep(kept))

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
    merged = cls(first._layout, first.kernel, ImageTable.empty(is_regional=first.is_regional))
    with merged._updating(directory):
      segments: list[Segment | StoredSegment] = []
      builder = merged._builder(segments, memory_budget)
      images = merged._images
      for index in indexes:
        index._check_entry_offsets()
        images += index._images
        for segment in index._segments:
          builder.add_segment(segment.load())
      builder.finish()
      merged._replace(segments, images)
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
    kept = np.zeros(len(self), bool)
    kept[images.start : images.stop] = True
    kept_entries = self._images.kept_entries(kept)
    part = type(self)(self._layout, self.kernel, ImageTable.empty(is_regional=self.is_regional))
    with part._updating(directory):
      segments: list[Segment | StoredSegment] = []
      builder = part._builder(segments, memory_budget)
      for start, segment in zip(range(0, self.num_entries, SEGMENT_ENTRIES), self._segments, strict=True):
        own = kept_entries[start : start + SEGMENT_ENTRIES]
        if own.any():
          builder.add_segment(segment.load(), own)
      builder.finish()
      part._replace(segments, self._images.keep(kept))
    return part

  def use_corpus(self, corpus: Corpus) -> None:
    """Has `use_idf` weigh words as in a larger collection, of which this index is a part."""
    self._corpus = corpus
    self._forget()

  def fork(self) -> 'InvertedIndex':
    """A copy to change and save while searches go on in this one, which must not be changed any more.

    Both share the segments, which never change, and the update of the directory that is not saved yet.
    """
    for segment in self._segments:
      segment.load()  # Mapped from now on: saving the copy unlinks files.
    twin = copy.copy(self)
    twin._forget()
    return twin

  # Searching -----------------------------------------------------------------------------------------

  def search(
    self,
    query: AggregatedDescriptor,
    *,
    top_k: int | None = 100,
    name: str = '',
    **scoring,
  ) -> Ranking:
    """The best index images for one query.

    Args:
      query: descriptor of the query image, or of a box of it.
      top_k: length of the ranking; None or 0 ranks all images. A shorter ranking is the beginning of the
        full one: images without common words score 0 and have their place in it.
      name: the query's name, for the ranking.
      **scoring: fields of `search.Scoring`: alpha=3.0, tau=0.0, normalize=True, use_idf=False,
        compat=False.

    Raises:
      ValueError: the query does not fit the index.
      IndexFormatError: a file of the index is damaged.
    """
    return self._get_searcher().search(query, top_k=top_k or len(self), name=name, options=Scoring(**scoring))

  def word_scores(
    self, query: AggregatedDescriptor, image_id: int, *, region: int = -1, **scoring
  ) -> tuple[np.ndarray, np.ndarray]:
    """What each visual word adds to the score of one image: the terms of the sum that is its score.

    Args:
      query: as for `search`.
      image_id: the image.
      region: with regional search the region whose score it is (`Ranking.best_regions`).
      **scoring: as for `search`.

    Returns:
      The common words uint32 [W], ascending, and their terms float64 [W].

    Raises:
      IndexError: there is no such image or region.
    """
    return self._get_searcher().word_scores(query, image_id, region=region, options=Scoring(**scoring))

  def search_batch(
    self,
    queries: Sequence[AggregatedDescriptor],
    *,
    names: Sequence[str] | None = None,
    threads: int | None = None,
    **options,
  ) -> list[Ranking]:
    """`search` for each query, in `threads` threads, as many as there are cores by default."""
    names = [''] * len(queries) if names is None else names
    if len(names) != len(queries):
      raise ValueError(f'expected a name for each of {len(queries)} queries, found {len(names)}')
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
      return list(pool.map(lambda query, name: self.search(query, name=name, **options), queries, names))

  # Files ---------------------------------------------------------------------------------------------

  @classmethod
  def load(cls, directory: str | os.PathLike, *, verify: bool = False) -> 'InvertedIndex':
    """Opens an index by memory map, in a time that does not grow with its postings.

    Sizes of files are checked at once, headers and offsets when an array is first used; whatever a file
    holds, a search stays within its arrays. `verify` reads every byte; see `InvertedIndex.verify`.

    Raises:
      IndexFormatError: a file is missing, damaged or of another version.
    """
    directory = os.path.realpath(directory)
    if verify:
      stored_index.verify(directory)
    parts = stored_index.read(directory)
    index = cls(parts.layout, parts.kernel, parts.images)
    index._directory = directory
    index._segments, index._checksum = parts.segments, parts.checksum
    return index

  def save(self, directory: str | os.PathLike | None = None, *, overwrite: bool = False) -> None:
    """Saves the index, by default where it came from; afterwards it is memory-mapped from there.

    A kill at any moment leaves the old index or the new one. Segments that have not changed are not
    written again.

    Raises:
      ValueError: the directory holds another index, or this one as another process has changed it, and
        `overwrite` is false; or there is no directory.
      BlockingIOError: another process is updating the index.
    """
    directory = self._directory if directory is None else os.path.realpath(directory)
    if directory is None:
      raise ValueError('the index has no directory yet; pass one to save')
    own = directory == self._directory
    writer = self._writer if own else None
    if writer is None:
      writer = storage.Directory(directory, expected=self._checksum if own else None, overwrite=overwrite)
    try:
      parts = stored_index.write(writer, self.kernel, self._layout, self._images, self._segments)
    finally:
      writer.close()
      self._writer = None
    self._directory, self._checksum = directory, parts.checksum
    self._segments = parts.segments
    self._forget()

  def verify(self) -> None:
    """Reads every byte of the index on the disk: checksums, and arrays against one another.

    Raises:
      IndexFormatError: naming the file that is damaged.
    """
    if self._directory is not None:
      stored_index.verify(self._directory)

  def warm(self, report: Callable[[int, int], None] = lambda done, total: None) -> int:
    """Reads the whole index on the disk in a row, so that the first searches find it in memory.

    Worth its time where memory holds the index. An index that is in memory anyway is not read.

    Args:
      report: called with the bytes read so far and in total.

    Returns:
      The bytes read.

    Raises:
      IndexFormatError: a file is missing or cannot be read.
    """
    return 0 if self._directory is None else stored_index.warm(self._directory, report)

  def close(self) -> None:
    """Drops memory maps, and gives up what was not saved in the directory; then, load the index anew."""
    for segment in self._segments:
      if isinstance(segment, StoredSegment):
        segment.unload()
    if self._writer is not None:
      self._writer.close()
      self._writer = None
    self._forget()

  def __enter__(self) -> 'InvertedIndex':
    return self

  def __exit__(self, *exception) -> None:
    self.close()

  # Inspection ----------------------------------------------------------------------------------------

  def __len__(self) -> int:
    return len(self._images.names)

  def __repr__(self) -> str:
    return (
      f'InvertedIndex({self.kernel.name}, {len(self)} images, {self.num_entries} entries,'
      f' {self.num_postings} postings, K={self.num_words}, D={self.dimensions}, {self.nbytes / 1e6:.1f} MB)'
    )

  @property
  def image_names(self) -> Sequence[str]:
    return self._images.names

  @property
  def checksum(self) -> int | None:
    """Of the manifest as it was loaded or last saved; None if it was neither."""
    return self._checksum

  @property
  def is_regional(self) -> bool:
    return self._images.is_regional

  @property
  def num_words(self) -> int:
    return self._layout.num_words

  @property
  def dimensions(self) -> int:
    return self._layout.dimensions

  @property
  def num_entries(self) -> int:
    return sum(segment.num_entries for segment in self._segments)

  @property
  def num_postings(self) -> int:
    return sum(segment.num_postings for segment in self._segments)

  @property
  def nbytes(self) -> int:
    """Bytes of all arrays, in memory or on the disk, headers and manifest aside."""
    return sum(segment.nbytes for segment in self._segments) + self._images.nbytes

  def list_sizes(self) -> np.ndarray:
    """Lengths of the posting lists: int64 [K]."""
    return self._get_searcher().list_sizes()

  @property
  def imbalance(self) -> float:
    """K sum n_w^2 / (sum n_w)^2: 1 for lists of equal length; the factor by which search is slower."""
    sizes = self.list_sizes().astype(np.float64)
    return float(self.num_words * (sizes**2).sum() / max(sizes.sum() ** 2, 1))

  # Inside --------------------------------------------------------------------------------------------

  def _forget(self) -> None:
    """Drops what was derived from the postings."""
    self._searcher: Searcher | None = None
    self._entry_offsets_are_checked = False

  def _get_searcher(self) -> Searcher:
    searcher = self._searcher
    if searcher is None:
      searcher = self._searcher = Searcher(
        self._layout, self.kernel, self._images, self._segments, self._check_entry_offsets, self._corpus
      )
    return searcher

  def _check_entry_offsets(self) -> None:
    if self._directory is not None and not self._entry_offsets_are_checked:
      stored_index.check_entry_offsets(self._images, self._directory)
      self._entry_offsets_are_checked = True

  @contextlib.contextmanager
  def _updating(self, directory: str | os.PathLike | None) -> Iterator[None]:
    """Puts the segments built inside into the directory, if there is one, and saves the index."""
    if directory is not None:
      self._directory = os.path.realpath(directory)
      self._writer = storage.Directory(self._directory)
    try:
      yield
      if directory is not None:
        self.save()
    except BaseException:
      self.close()
      raise

  def _builder(self, segments: list[Segment | StoredSegment], memory_budget: int) -> SegmentBuilder:
    """A builder that appends to `segments`, on the disk if the index is there."""
    if self._directory is not None and self._writer is None:
      self._writer = storage.Directory(self._directory, expected=self._checksum)
    writer = self._writer
    if writer is None:
      return SegmentBuilder(self._layout, segments.append, memory_budget=memory_budget)
    return SegmentBuilder(
      self._layout,
      lambda segment: segments.append(stored_index.store(writer, len(segments), self._layout, segment)),
      scratch=writer.scratch,
      memory_budget=memory_budget,
    )

  def _replace(self, segments: list[Segment | StoredSegment], images: ImageTable) -> None:
    self._segments, self._images = segments, images
    self._forget()
