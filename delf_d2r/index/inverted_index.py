"""The inverted index: for each visual word, the images that have it and their codes.

`InvertedIndex` is the interface of this package: an index that is built, changed (updates.py), saved and
searched (search.py). Its images and postings are a value, `IndexState`, that never changes. `IndexStorage` is
its place on the disk. See segments.py for the arrays and directory.py for the files.
"""

import contextlib
import copy
import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from delf_d2r.index import stored_index, updates
from delf_d2r.index.builder import DEFAULT_MEMORY_BUDGET, SegmentBuilder
from delf_d2r.index.directory import Directory
from delf_d2r.index.images import ImageTable, check_distinct, check_new
from delf_d2r.index.index_state import AnySegment, IndexState, kept_ids
from delf_d2r.index.search import CorpusStatistics, ImageScores, QueryExecutor, Scoring
from delf_d2r.index.segments import Layout, ValueType
from delf_d2r.index.stored_segment import StoredSegment
from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.structures import AggregatedDescriptor, Ranking, require_several

# Entries whose descriptors are decoded together.
_ROWS_AT_ONCE = 16_384
# What indexes that are merged must have in common.
_ALIKE = ('kernel', 'num_words', 'dimensions', 'codebook', 'is_regional', 'has_region_masks', 'value_type')


class InvertedIndex:
  """Index images and their aggregated descriptors, sorted by visual word.

  Each image has one entry, its descriptor; or, for regional search, one entry for each of its regions,
  and the score of its best one. With region masks, an image has one entry whose words know the regions that
  have them, and the score of its best region.

  Searches may run in several threads at once; `add`, `remove` and `save` may not run at the same time as
  searches: change a `copy_on_write` then.

  Attributes:
    kernel: of the descriptors.
    num_words: K.
    dimensions: D.
    image_names: the names of the images by image id.
    is_regional: whether an image has an entry for each region.
    has_region_masks: whether the words of an image know their regions.
    value_type: how the values of VLAD are stored.
    codebook: digest of the codebook of the descriptors; '' if the index does not name it.
    checksum: of the manifest as it was loaded or last saved; None if it was neither.
    num_entries: E.
    num_postings: the sum of the words of all entries.
    nbytes: bytes of all arrays, in memory or on the disk, without headers and manifest.
    num_removed: entries that are removed, but whose postings still take space and time.
    imbalance: K sum n_w^2 / (sum n_w)^2 with n_w the length of the list of word w; 1 for lists of equal
      length; the factor by which search is slower.
  """

  def __init__(self, state: IndexState, storage: 'IndexStorage') -> None:
    """Takes images and postings, and their place; `load`, `build` and `merge` make an index."""
    self._state = state
    self._storage = storage
    self._corpus: CorpusStatistics | None = None  # what idf counts; None: the index itself
    self._drop_derived()

  # Building and changing -----------------------------------------------------------------------------

  @classmethod
  def build(
    cls,
    descriptors: Iterable[AggregatedDescriptor],
    image_names: Sequence[str],
    *,
    num_words: int,
    kernel: Kernel,
    dimensions: int | None = None,
    region_masks: bool = False,
    value_type: ValueType = ValueType.FLOAT32,
    codebook: str = '',
    entry_images: Sequence[int] | None = None,
    entry_regions: Sequence[int] | None = None,
    directory: str | os.PathLike[str] | None = None,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
  ) -> Self:
    """Builds an index, in memory or straight into a directory.

    Args:
      descriptors: one for each entry, read once.
      image_names: distinct names of the M images, in order of image id.
      num_words: K.
      kernel: of the descriptors.
      dimensions: D; taken from the first descriptor by default.
      region_masks: whether the descriptors have region masks, all or none of them; without `entry_images`.
      value_type: how the values of VLAD of one visual word are stored. Scores are those of the stored values.
      codebook: digest of the codebook of the descriptors, so that the index is not merged with one of another
        codebook; '' names none.
      entry_images: integer [E], ascending, for regional search: the image of each entry. None: entry e
        is image e.
      entry_regions: integer [E], the number by which `Ranking.best_regions` names an entry; by default its
        position among the entries of its image.
      directory: where to save the index while it is built; it need not fit into memory.
      memory_budget: bytes for sorting; see `SegmentBuilder`.

    Raises:
      ValueError: numbers of descriptors, names, entries disagree, a descriptor is of another kind, or
        the directory holds another index.
    """
    if region_masks and not (kernel.is_selective and entry_images is None):
      raise ValueError(
        f'region_masks: expected ASMK or ASMK_STAR and one entry for each image, found {kernel.name} and'
        f' {"no " if entry_images is None else ""}entry_images; build without region_masks'
      )
    descriptors = iter(descriptors)
    if dimensions is None:
      first = next(descriptors, None)
      if first is None:
        raise ValueError('without any descriptor, the dimensions are unknown; pass dimensions=D')
      dimensions = first.dimensions
      descriptors = itertools.chain([first], descriptors)
    if value_type is not ValueType.FLOAT32 and kernel.is_selective:
      raise ValueError(f'value_type: {value_type.name} is for VLAD, found {kernel.name}; build with FLOAT32')
    layout = Layout(num_words, dimensions, kernel.is_binary, region_masks, value_type, codebook)
    index = cls._empty(kernel, layout, is_regional=entry_images is not None, directory=directory)
    with index._being_built():
      index.add(
        descriptors,
        image_names,
        entry_images=entry_images,
        entry_regions=entry_regions,
        memory_budget=memory_budget,
      )
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
    """Adds images after those present. Arguments and errors are those of `build`.

    `entry_images` counts from 0 at the first new image. The last segments are sorted again if they are small
    compared with what is added; see updates.py. The index on the disk changes when `save` is called.
    """
    if (entry_images is not None) != self.is_regional:
      raise ValueError(
        f'entry_images: expected {"some" if self.is_regional else "none"} as in the index, found'
        f' {"none" if self.is_regional else "some"}; add images as those of the index were added'
      )
    new_images = ImageTable.from_entries(image_names, entry_images, entry_regions)
    check_new(image_names, self._state.images.names)
    with self.updating():
      self._change(updates.add(self._state, descriptors, new_images, self._new_builder(memory_budget)))

  def remove(self, image_names: Iterable[str], *, memory_budget: int = DEFAULT_MEMORY_BUDGET) -> None:
    """Removes images; those after them move up, as if the removed ones had never been added.

    From a large index, the postings of few images vanish later, with others or by `compact`: until then
    searches read them, and leave them out.

    Raises:
      KeyError: a name is not in the index; nothing is removed.
      TypeError: `image_names` is a string, which would name each of its letters; nothing is removed.
    """
    self._check_entry_offsets()
    with self.updating():
      self._change(updates.remove(self._state, image_names, self._new_builder(memory_budget)))

  def compact(self, *, memory_budget: int = DEFAULT_MEMORY_BUDGET) -> None:
    """Sorts again what changes have left as it was, so that the bytes are those of a fresh build.

    An index does this by itself when an eighth of it is removed. Rankings and scores are the same before and
    after. The index on the disk changes when `save` is called.
    """
    if updates.first_not_compact(self._state) == len(self._state.segments):
      return
    with self.updating():
      self._change(updates.compact(self._state, self._new_builder(memory_budget)))

  @classmethod
  def merge(
    cls,
    indexes: Sequence['InvertedIndex'],
    *,
    directory: str | os.PathLike[str] | None = None,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
  ) -> Self:
    """Returns the index of all images of `indexes`, in order, equal to that of `build`; those do not change.

    Raises:
      ValueError: no index, indexes of different kinds, or images of one name.
    """
    if not indexes:
      raise ValueError('expected at least one index to merge, found none')
    first = indexes[0]
    for other in indexes[1:]:
      for field in _ALIKE:
        if getattr(other, field) != getattr(first, field):
          raise ValueError(
            f'{field}: expected {_shown(first, field)} as in the first index, found {_shown(other, field)};'
            ' merge indexes that were built alike'
          )
    check_distinct(name for index in indexes for name in index.image_names)
    for index in indexes:
      index._check_entry_offsets()
    layout = dataclasses.replace(first._state.layout, is_wide=False)
    merged = cls._empty(first.kernel, layout, is_regional=first.is_regional, directory=directory)
    with merged._being_built():
      states = [index._state for index in indexes]
      merged._replace(updates.merge(states, layout, merged._new_builder(memory_budget)))
    return merged

  def subset(
    self,
    images: range,
    *,
    directory: str | os.PathLike[str] | None = None,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
  ) -> Self:
    """Returns the index of consecutive images alone, equal to that of `build`; this one does not change.

    Raises:
      ValueError: there are no such images.
    """
    if images.step != 1 or not 0 <= images.start <= images.stop <= len(self):
      raise ValueError(f'images: expected consecutive ones of 0 to {len(self)}, found {images}')
    self._check_entry_offsets()
    layout = dataclasses.replace(self._state.layout, is_wide=False)
    subset = self._empty(self.kernel, layout, is_regional=self.is_regional, directory=directory)
    with subset._being_built():
      subset._replace(updates.subset(self._state, images, layout, subset._new_builder(memory_budget)))
    return subset

  @contextlib.contextmanager
  def updating(self) -> Iterator[None]:
    """Keeps every other process from changing the index on the disk.

    The directory, if there is one, is locked in the body and, as long as there are changes that are not
    saved, also afterwards. A change that fails thus leaves no lock behind, whoever holds its exception.

    Raises:
      ChangedIndexError: the directory holds another index than the one loaded from there.
      BlockingIOError: another process is updating the index.
    """
    with self._storage.updating():
      yield

  def abandon_changes(self) -> None:
    """Lets other processes change the index; changes that were not saved must not be saved any more."""
    self._storage.close()

  def copy_on_write(self) -> Self:
    """Returns a copy to change and save while searches go on in this index, which must not change any more.

    Both share the segments, which never change, and the update of the directory that is not saved yet.
    """
    for segment in self._state.segments:
      segment.load()  # mapped from now on, since saving the copy unlinks files
    twin = copy.copy(self)
    twin._storage = self._storage.copy()
    twin._drop_derived()
    return twin

  # Storing -------------------------------------------------------------------------------------------

  @classmethod
  def load(cls, directory: str | os.PathLike[str], *, verify: bool = False) -> Self:
    """Opens an index by memory map, in a time that does not grow with its postings.

    Sizes of files are checked at once, headers and offsets when an array is first used. Whatever a file
    holds, a search stays within its arrays.

    Args:
      directory: of the index.
      verify: whether to read and check every byte, as the method `verify` does.

    Raises:
      IndexFormatError: a file is missing, damaged or of another version.
    """
    directory = os.path.realpath(directory)
    if verify:
      stored_index.verify(directory)
    state, checksum = stored_index.read(directory)
    return cls(state, IndexStorage(directory, checksum))

  def save(self, directory: str | os.PathLike[str] | None = None, *, overwrite: bool = False) -> None:
    """Saves the index, by default where it came from; afterwards it is memory-mapped from there.

    If the process is killed at any moment, the directory holds the old index or the new one. Segments that
    have not changed are not written again; if nothing has changed, nothing is written.

    Raises:
      ValueError: the directory holds another index, or this one as another process has changed it
        (ChangedIndexError), and `overwrite` is false; or there is no directory.
      BlockingIOError: another process is updating the index.
      OSError: the index cannot be written; the directory holds the old one. What fails after the new one is
        in place is logged as a warning.
    """
    self._replace(self._storage.save(self._state, directory, overwrite=overwrite))

  def verify(self) -> None:
    """Reads every byte of the index on the disk: checksums, and arrays against one another.

    Raises:
      IndexFormatError: naming the file that is damaged.
    """
    if self._storage.directory is not None:
      stored_index.verify(self._storage.directory)

  def preload(self, report: Callable[[int, int], None] = lambda done, total: None) -> int:
    """Reads the whole index on the disk sequentially, so that the first searches find it in memory.

    This is worth its time where the index fits into memory. An index that is in memory anyway is not read.

    Args:
      report: called with the bytes read so far and in total.

    Returns:
      The bytes read.

    Raises:
      IndexFormatError: a file is missing or cannot be read.
    """
    directory = self._storage.directory
    return 0 if directory is None else stored_index.preload(directory, report)

  def close(self) -> None:
    """Drops memory maps and abandons changes that were not saved; then, load the index again to use it."""
    for segment in self._state.segments:
      if isinstance(segment, StoredSegment):
        segment.unload()
    self._storage.close()
    self._drop_derived()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()

  # Searching -----------------------------------------------------------------------------------------

  def search(
    self,
    query: AggregatedDescriptor,
    *,
    top_k: int | None = 100,
    name: str = '',
    **scoring: Any,
  ) -> Ranking:
    """Returns the best index images for one query, found by reading the lists of the query's words alone.

    Args:
      query: descriptor of the query image, or of a box of it. Its region masks, if any, are ignored.
      top_k: length of the ranking; None or 0 ranks all images. A shorter ranking is the beginning of the
        full one: images without common words score 0 and have their place in it.
      name: the query's name, for the ranking.
      **scoring: fields of `search.Scoring`: alpha=3.0, tau=0.0, normalize=True, use_idf=False,
        compat=False.

    Raises:
      ValueError: the query does not fit the index, or `top_k` is negative.
      IndexFormatError: a file of the index is damaged.
    """
    if top_k is not None and top_k < 0:
      raise ValueError(f'top_k: expected at least 0 (0 ranks all images), found {top_k}')
    options = Scoring(**scoring)
    return self._get_executor().search(query, top_k=top_k or len(self), name=name, options=options)

  def dense_rows(self) -> Iterator[npt.NDArray[np.float32]]:
    """Yields the stored descriptors of all entries of an index of one visual word: float32 [n, D], in order.

    An entry without a descriptor is a row of zeros.

    Raises:
      ValueError: the index has several visual words.
    """
    layout = self._state.layout
    if layout.num_words != 1 or layout.is_binary:
      raise ValueError(
        f'dense_rows: expected an index of VLAD of one visual word, found {layout.num_words} words and'
        f' {"codes" if layout.is_binary else "floats"}; search it instead'
      )
    for segment, removed in self._state.parts:
      loaded, kept = segment.load(), kept_ids(segment, removed)
      for start in range(0, loaded.num_entries, _ROWS_AT_ONCE):
        rows = slice(start, min(start + _ROWS_AT_ONCE, loaded.num_entries))
        yield loaded.rows(rows)[kept[rows]]

  def scores(self, query: AggregatedDescriptor, **scoring: Any) -> ImageScores:
    """Returns the scores of all images for one query, for a ranking by these and other scores.

    Args:
      query: as for `search`.
      **scoring: as for `search`.

    Returns:
      The scores that `search` ranks by. They are valid until the next search in the same thread.

    Raises:
      ValueError: the query does not fit the index.
      IndexFormatError: a file of the index is damaged.
    """
    return self._get_executor().scores(query, Scoring(**scoring))

  def search_batch(
    self,
    queries: Sequence[AggregatedDescriptor],
    *,
    names: Sequence[str] | None = None,
    threads: int | None = None,
    **options: Any,
  ) -> list[Ranking]:
    """Searches for each query as `search` does.

    Args:
      queries: descriptors.
      names: of the queries; none by default.
      threads: as many as there are cores by default.
      **options: other arguments of `search`.

    Raises:
      ValueError: there are more or fewer names than queries, or a query does not fit the index.
    """
    names = [''] * len(queries) if names is None else names
    require_several(names)
    if len(names) != len(queries):
      raise ValueError(f'expected a name for each of {len(queries)} queries, found {len(names)}')
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
      return list(pool.map(lambda query, name: self.search(query, name=name, **options), queries, names))

  def word_scores(
    self, query: AggregatedDescriptor, image_id: int, *, region: int = -1, **scoring: Any
  ) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.float64]]:
    """Returns what each visual word adds to the score of one image: the terms of the sum that is its score.

    Args:
      query: as for `search`.
      image_id: the image.
      region: with regional search or region masks the region whose score it is (`Ranking.best_regions`).
      **scoring: as for `search`.

    Returns:
      The common words uint32 [W], ascending, and their terms float64 [W].

    Raises:
      IndexError: there is no such image or region.
    """
    return self._get_executor().word_scores(query, image_id, region=region, options=Scoring(**scoring))

  def set_corpus_statistics(self, corpus: CorpusStatistics) -> None:
    """Makes `use_idf` weigh words as in a larger collection, of which this index is a part."""
    self._corpus = corpus
    self._drop_derived()

  # Inspection ----------------------------------------------------------------------------------------

  def __len__(self) -> int:
    return len(self._state.images.names)

  def __repr__(self) -> str:
    return (
      f'{type(self).__name__}({self.kernel.name}, {len(self)} images, {self.num_entries} entries,'
      f' {self.num_postings} postings, K={self.num_words}, D={self.dimensions}, {self.nbytes / 1e6:.1f} MB)'
    )

  @property
  def kernel(self) -> Kernel:
    return self._state.kernel

  @property
  def image_names(self) -> Sequence[str]:
    return self._state.images.names

  @property
  def checksum(self) -> int | None:
    return self._storage.checksum

  @property
  def has_changed(self) -> bool:
    """Whether there are changes that are not saved yet."""
    return self._storage.has_changed

  @property
  def is_regional(self) -> bool:
    return self._state.images.is_regional

  @property
  def has_region_masks(self) -> bool:
    return self._state.layout.has_masks

  @property
  def value_type(self) -> ValueType:
    return self._state.layout.value_type

  @property
  def codebook(self) -> str:
    return self._state.layout.codebook

  @property
  def num_words(self) -> int:
    return self._state.layout.num_words

  @property
  def dimensions(self) -> int:
    return self._state.layout.dimensions

  @property
  def num_entries(self) -> int:
    return self._state.num_entries

  @property
  def num_removed(self) -> int:
    return self._state.num_removed

  @property
  def num_postings(self) -> int:
    return self._state.num_postings

  @property
  def nbytes(self) -> int:
    return self._state.nbytes

  def list_sizes(self) -> npt.NDArray[np.int64]:
    """Returns the lengths of the posting lists: int64 [K]."""
    return self._get_executor().list_sizes()

  @property
  def imbalance(self) -> float:
    sizes = self.list_sizes().astype(np.float64)
    return float(self.num_words * (sizes**2).sum() / max(sizes.sum() ** 2, 1))

  # Inside --------------------------------------------------------------------------------------------

  @classmethod
  def _empty(
    cls, kernel: Kernel, layout: Layout, *, is_regional: bool, directory: str | os.PathLike[str] | None
  ) -> Self:
    return cls(IndexState.empty(kernel, layout, is_regional=is_regional), IndexStorage(directory))

  @contextlib.contextmanager
  def _being_built(self) -> Iterator[None]:
    """Writes segments that are made inside into the directory, if there is one, and saves at the end."""
    try:
      with self._storage.updating():
        yield
        if self._storage.directory is not None:
          self.save()
    except BaseException:
      self.close()
      raise

  def _new_builder(self, memory_budget: int) -> updates.NewBuilder:
    return functools.partial(self._storage.builder, self._state.layout, memory_budget=memory_budget)

  def _replace(self, state: IndexState) -> None:
    self._state = state
    self._drop_derived()

  def _change(self, state: IndexState) -> None:
    self._replace(state)
    self._storage.has_changed = True

  def _drop_derived(self) -> None:
    """Drops all that was derived from the postings."""
    self._executor: QueryExecutor | None = None
    self._check_entry_offsets = _EntryOffsetsCheck(self._state.images, self._storage.directory)

  def _get_executor(self) -> QueryExecutor:
    executor = self._executor
    if executor is None:
      executor = self._executor = QueryExecutor(self._state, self._check_entry_offsets, self._corpus)
    return executor


def _shown(index: InvertedIndex, field: str) -> object:
  value = getattr(index, field)
  return 'none' if value == '' else value


class _EntryOffsetsCheck:
  """Checks the offsets of a regional index at the first call.

  It is no method of the index, so that an index that nobody uses any more, and its lock, end at once.
  """

  def __init__(self, images: ImageTable, directory: str | None) -> None:
    self._images = images
    self._directory = directory
    self._is_done = False

  def __call__(self) -> None:
    if self._directory is not None and not self._is_done:
      stored_index.check_entry_offsets(self._images, self._directory)
      self._is_done = True


class IndexStorage:
  """The place of one index on the disk, and the update of it that is not saved yet.

  Attributes:
    directory: where the index was loaded from, saved to, or is being built; None if it is in memory alone.
    checksum: of the manifest as it was loaded or last saved; None if it was neither.
    has_changed: whether the index has changed since.
  """

  def __init__(self, directory: str | os.PathLike[str] | None = None, checksum: int | None = None) -> None:
    self.directory = None if directory is None else os.path.realpath(directory)
    self.checksum = checksum
    self.has_changed = False
    self._writer: Directory | None = None  # open while there are changes to save there
    self._num_updating = 0

  def begin(self) -> None:
    """Opens the directory, if there is one, for an update, which shuts out any other.

    Raises:
      ChangedIndexError: the directory holds another index than the one with `checksum`.
      BlockingIOError: another process is updating it.
    """
    if self.directory is not None and self._writer is None:
      self._writer = Directory(self.directory, expected=self.checksum)

  @contextlib.contextmanager
  def updating(self) -> Iterator[None]:
    """Does `begin`; afterwards ends the update unless something has changed that is not saved.

    Raises:
      ChangedIndexError, BlockingIOError: for the reasons of `begin`.
    """
    self.begin()
    self._num_updating += 1
    try:
      yield
    finally:
      self._num_updating -= 1
      if not (self._num_updating or self.has_changed):
        self.close()

  def copy(self) -> 'IndexStorage':
    """Returns the storage of a copy of the index; both share an update that is not saved."""
    twin = copy.copy(self)
    twin._num_updating = 0
    return twin

  def builder(self, layout: Layout, segments: list[AnySegment], *, memory_budget: int) -> SegmentBuilder:
    """Returns a builder that appends to `segments`, stored ones if there is a directory.

    Raises:
      ValueError, BlockingIOError: for the reasons of `begin`.
    """
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
    self, state: IndexState, directory: str | os.PathLike[str] | None = None, *, overwrite: bool = False
  ) -> IndexState:
    """Saves a state, by default in this directory, and moves to another one if it is given.

    Returns:
      The state with its segments as they are stored.

    Raises:
      ValueError, BlockingIOError: for the reasons of `InvertedIndex.save`.
    """
    directory = self.directory if directory is None else os.path.realpath(directory)
    if directory is None:
      raise ValueError('the index has no directory yet; pass one to save')
    if directory != self.directory:
      writer = Directory(directory, overwrite=overwrite)
      try:
        stored, checksum = stored_index.write(writer, state)
      finally:
        writer.close()
      self.close()
      self.directory, self.checksum, self.has_changed = directory, checksum, False
      return stored
    if self._writer is None and overwrite:
      self._writer = Directory(directory, overwrite=True)
    with self.updating():
      if self.checksum is not None and not self.has_changed and not overwrite:
        return state
      assert self._writer is not None, 'begun by updating'
      try:
        stored, checksum = stored_index.write(self._writer, state)
      except BaseException:
        committed = self._writer.committed
        if committed is not None:  # interrupted after the new index was in place
          self.checksum, self.has_changed = committed, False
        raise
      self.checksum, self.has_changed = checksum, False
      return stored

  def close(self) -> None:
    """Ends an update; changes that were not saved stay in memory alone."""
    if self._writer is not None:
      self._writer.close()
      self._writer = None
