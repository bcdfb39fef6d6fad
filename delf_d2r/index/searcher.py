"""Answers queries over segments that do not change, and keeps what it derives from them."""

import threading
from collections.abc import Callable

import numpy as np

from delf_d2r.index.attribution import word_scores
from delf_d2r.index.builder import check_descriptor
from delf_d2r.index.contents import Contents
from delf_d2r.index.ranking import best_entries, best_scores
from delf_d2r.index.ranking import top_k as select_top_k
from delf_d2r.index.search import (
  Corpus,
  Scoring,
  inverse_document_frequencies,
  inverse_norms,
  score_entries,
)
from delf_d2r.index.segments import SEGMENT_ENTRIES
from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.structures import AggregatedDescriptor, Ranking


class Searcher:
  """The searching half of an index; an index makes a new one after every change.

  Threads may search at once. What two of them derive at the same time comes out equal.
  """

  def __init__(
    self,
    contents: Contents,
    check_entry_offsets: Callable[[], None],
    corpus: Corpus | None = None,
  ):
    """For an index.

    Args:
      contents: of the index.
      check_entry_offsets: raises if the images' entries cannot be those; called before they are used.
      corpus: what idf counts; None: these segments.
    """
    self._layout = contents.layout
    self._kernel = contents.kernel
    self._images = contents.images
    self._segments = contents.segments
    self._check_entry_offsets = check_entry_offsets
    self._corpus = corpus
    self._derived: dict[str, np.ndarray] = {}
    self._buffers = threading.local()

  def search(self, query: AggregatedDescriptor, *, top_k: int, name: str, options: Scoring) -> Ranking:
    """The best `top_k` images; see `InvertedIndex.search`."""
    check_descriptor(query, self._layout)
    segments = [segment.load() for segment in self._segments]
    idf = self._idf() if options.use_idf else None
    normalized = options.normalize and self._kernel is not Kernel.VLAD
    norms = self._norms(options.use_idf) if normalized else None
    scores = score_entries(
      query, segments, self._layout, self._kernel, options, idf, norms, self._buffer(len(segments))
    )
    if not self._images.is_regional:
      ids = select_top_k(scores, top_k)
      return Ranking(name, ids, scores[ids], np.full(len(ids), -1, np.int32))
    self._check_entry_offsets()
    offsets = self._images.entry_offsets
    best = best_scores(scores, offsets)
    ids = select_top_k(best, top_k)
    entries = best_entries(ids, best[ids], scores, offsets)
    regions = np.full(len(ids), -1, np.int32)
    regions[entries >= 0] = self._images.entry_regions[entries[entries >= 0]]
    return Ranking(name, ids, best[ids], regions)

  def word_scores(
    self, query: AggregatedDescriptor, image: int, *, region: int, options: Scoring
  ) -> tuple[np.ndarray, np.ndarray]:
    """What each word adds to the score of one image; see `InvertedIndex.word_scores`."""
    check_descriptor(query, self._layout)
    entry = self._entry(image, region)
    segment = self._segments[entry // SEGMENT_ENTRIES].load()
    normalized = options.normalize and self._kernel is not Kernel.VLAD
    return word_scores(
      query,
      segment,
      entry % SEGMENT_ENTRIES,
      self._layout,
      self._kernel,
      options,
      self._idf() if options.use_idf else None,
      float(self._norms(options.use_idf)[entry]) if normalized else None,
    )

  def _entry(self, image: int, region: int) -> int:
    if not 0 <= image < len(self._images.names):
      raise IndexError(f'expected an image id below {len(self._images.names)}, found {image}')
    if not self._images.is_regional:
      return image
    self._check_entry_offsets()
    start, stop = (int(offset) for offset in self._images.entry_offsets[image : image + 2])
    entries = start + np.flatnonzero(self._images.entry_regions[start:stop] == region)
    if not len(entries):
      raise IndexError(f'image {image} has no region {region} among its {stop - start} entries')
    return int(entries[0])

  def list_sizes(self) -> np.ndarray:
    """Lengths of the posting lists: int64 [K]."""
    sizes = np.zeros(self._layout.num_words, np.int64)
    for segment in self._segments:
      sizes += np.diff(segment.load().offsets.astype(np.int64))
    return sizes

  def _derive(self, name: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
    if name not in self._derived:
      self._derived[name] = compute()
    return self._derived[name]

  def _idf(self) -> np.ndarray:
    def compute() -> np.ndarray:
      entries = sum(segment.num_entries for segment in self._segments)
      corpus = self._corpus or Corpus(self.list_sizes(), entries)
      return inverse_document_frequencies(corpus.list_sizes, corpus.num_entries)

    return self._derive('idf', compute)

  def _norms(self, use_idf: bool) -> np.ndarray:
    segments = (segment.load() for segment in self._segments)
    if use_idf:
      return self._derive('idf norms', lambda: inverse_norms(segments, self._idf()))
    return self._derive('norms', lambda: inverse_norms(segments, None))

  def _buffer(self, segments: int) -> np.ndarray:
    """The thread's array of scores, float32 [segments, 65536]."""
    buffer = getattr(self._buffers, 'scores', None)
    if buffer is None:
      buffer = self._buffers.scores = np.empty((segments, SEGMENT_ENTRIES), np.float32)
    return buffer
