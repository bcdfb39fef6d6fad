"""An index that is searched: it answers by reading the lists of the query's words alone.

The scores are those of comparing the query with every image (kernels.similarity), to rounding; search.py has
their definition.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import numpy as np

from delf_d2r.index import stored_index
from delf_d2r.index.contents import Contents
from delf_d2r.index.home import Home
from delf_d2r.index.search import Corpus, Scoring
from delf_d2r.index.searcher import Searcher
from delf_d2r.index.stored_segment import StoredSegment
from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.structures import AggregatedDescriptor, Ranking


class SearchableIndex:
  """What an `InvertedIndex` does without changing: open, search, tell its sizes.

  Attributes:
    kernel: what the descriptors are.
    num_words: K.
    dimensions: D.
    image_names: the images' names by image id.
    is_regional: whether an image has an entry for each region.
  """

  def __init__(self, contents: Contents, home: Home):
    """For `load` and `InvertedIndex.build`, which are the ways to get an index."""
    self._contents = contents
    self._home = home
    self._corpus: Corpus | None = None  # whose idf counts; None: that of the index itself
    self._forget()

  @classmethod
  def load(cls, directory: str | os.PathLike, *, verify: bool = False) -> Self:
    """Opens an index by memory map, in a time that does not grow with its postings.

    Sizes of files are checked at once, headers and offsets when an array is first used; whatever a file
    holds, a search stays within its arrays. `verify` reads every byte; see `verify`.

    Raises:
      IndexFormatError: a file is missing, damaged or of another version.
    """
    directory = os.path.realpath(directory)
    if verify:
      stored_index.verify(directory)
    contents, checksum = stored_index.read(directory)
    return cls(contents, Home(directory, checksum))

  def verify(self) -> None:
    """Reads every byte of the index on the disk: checksums, and arrays against one another.

    Raises:
      IndexFormatError: naming the file that is damaged.
    """
    self._home.verify()

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
    return self._home.warm(report)

  def close(self) -> None:
    """Drops memory maps, and gives up what was not saved in the directory; then, load the index anew."""
    for segment in self._contents.segments:
      if isinstance(segment, StoredSegment):
        segment.unload()
    self._home.close()
    self._forget()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *exception) -> None:
    self.close()

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

  def use_corpus(self, corpus: Corpus) -> None:
    """Has `use_idf` weigh words as in a larger collection, of which this index is a part."""
    self._corpus = corpus
    self._forget()

  # Inspection ----------------------------------------------------------------------------------------

  def __len__(self) -> int:
    return len(self._contents.images.names)

  def __repr__(self) -> str:
    return (
      f'{type(self).__name__}({self.kernel.name}, {len(self)} images, {self.num_entries} entries,'
      f' {self.num_postings} postings, K={self.num_words}, D={self.dimensions}, {self.nbytes / 1e6:.1f} MB)'
    )

  @property
  def kernel(self) -> Kernel:
    return self._contents.kernel

  @property
  def image_names(self) -> Sequence[str]:
    return self._contents.images.names

  @property
  def checksum(self) -> int | None:
    """Of the manifest as it was loaded or last saved; None if it was neither."""
    return self._home.checksum

  @property
  def is_regional(self) -> bool:
    return self._contents.images.is_regional

  @property
  def num_words(self) -> int:
    return self._contents.layout.num_words

  @property
  def dimensions(self) -> int:
    return self._contents.layout.dimensions

  @property
  def num_entries(self) -> int:
    return self._contents.num_entries

  @property
  def num_postings(self) -> int:
    return self._contents.num_postings

  @property
  def nbytes(self) -> int:
    """Bytes of all arrays, in memory or on the disk, headers and manifest aside."""
    return self._contents.nbytes

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
      searcher = self._searcher = Searcher(self._contents, self._check_entry_offsets, self._corpus)
    return searcher

  def _check_entry_offsets(self) -> None:
    if self._home.directory is not None and not self._entry_offsets_are_checked:
      stored_index.check_entry_offsets(self._contents.images, self._home.directory)
      self._entry_offsets_are_checked = True
