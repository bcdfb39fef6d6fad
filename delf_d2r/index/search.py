"""Answers to queries: scores of all entries, with idf and normalisation, rankings, contributions of words.

    score(q, e) = sum over common words w of idf_w sigma(u_w) / sqrt(norm(q) norm(e))

norm(x) is the number of words of x, or the sum of their idf with idf, so that an image scores 1 against
itself (ASMK family; VLAD carries its norm in its values). Without idf all idf_w are 1. The scores are those
of a comparison of the query with every entry (kernels/similarity.py), to rounding.

With region masks, e is one of the regions of an image: w runs over the common words that the region has, and
norm(e) counts these alone. An image has the score of its best region, the first of equal ones. Its code of a
word is the same for all regions.

idf_w = log(E / n_w)^2 for a word present in n_w of E entries, 1 for a word that no entry has: the form of
the PyPI package `asmk` (inverted_file.py), where each of the two sides contributes one factor log(E / n_w).
It is computed from the final counts, so it does not depend on the order or chunks of insertion, which
in `asmk` it does. A word that every entry has weighs 0.

Burstiness needs no option here: the aggregation leaves one vector for each word and image, which is how ASMK
itself handles bursts (Tolias et al., ICCV 2013, section 5.2). Multiple assignment of a query adds words.
"""

import dataclasses
import functools
import math
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from delf_d2r.index.builder import check_query
from delf_d2r.index.dense_segment import DenseSegment
from delf_d2r.index.index_state import Ids, IndexState
from delf_d2r.index.ranking import FEW, best_entries, best_scores
from delf_d2r.index.ranking import top_k as select_top_k
from delf_d2r.index.scan import add_word_weights, scan_binary, scan_float
from delf_d2r.index.segments import SEGMENT_ENTRIES, Layout, Segment
from delf_d2r.kernels.aggregation import MASKED_REGIONS, Kernel
from delf_d2r.kernels.compiled import HAVE_NUMBA, njit
from delf_d2r.kernels.similarity import selectivity, selectivity_table
from delf_d2r.structures import AggregatedDescriptor, Ranking

COUNTED_AT_ONCE = 1 << 20  # postings, so that the indexes made of them stay small


@dataclasses.dataclass(frozen=True)
class Scoring:
  """How a query is compared with an entry.

  Attributes:
    alpha, tau: selectivity sign(u) |u|^alpha if u > tau, else 0 (ASMK family).
    normalize: divide by sqrt(norm(q) norm(e)) (ASMK family).
    use_idf: weigh words by idf.
    compat: two peculiarities of the tensorflow/models DELF code (ASMK family; docs/reference.md 2.10): bits
      of padding count as agreeing, and an empty descriptor on either side scores -1, below the 0 of no
      common words.
    compiled: take the path that numba compiles, or that of NumPy.
  """

  alpha: float = 3.0
  tau: float = 0.0
  normalize: bool = True
  use_idf: bool = False
  compat: bool = False
  compiled: bool = HAVE_NUMBA


@dataclasses.dataclass(frozen=True)
class CorpusStatistics:
  """The counts that idf is computed from.

  Attributes:
    list_sizes: int64 [K], the lengths of the posting lists.
    num_entries: E.
  """

  list_sizes: npt.NDArray[np.int64]
  num_entries: int


@dataclasses.dataclass(frozen=True)
class ImageScores:
  """The scores of all images for one query, valid until the next search of this index in the same thread.

  Attributes:
    values: float32 [M].
    best_regions: from ids of images, int64 [k], to their regions with the best score, int32 [k]; -1 without
      regional search and region masks.
  """

  values: npt.NDArray[np.float32]
  best_regions: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int32]]


def _no_regions(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
  return np.full(len(ids), -1, np.int32)


def _masked_regions(
  scores: npt.NDArray[np.float32],
  norms: npt.NDArray[np.float32],
  rows_of_entries: npt.NDArray[np.int64] | None,
  ids: npt.NDArray[np.int64],
) -> npt.NDArray[np.int32]:
  rows = ids if rows_of_entries is None else rows_of_entries[ids]
  return best_regions(scores, norms, rows)


def _entry_regions(
  best: npt.NDArray[np.float32],
  scores: npt.NDArray[np.float32],
  offsets: npt.NDArray[np.uint64],
  region_of_entry: npt.NDArray[np.int32],
  ids: npt.NDArray[np.int64],
) -> npt.NDArray[np.int32]:
  entries = best_entries(ids, best[ids], scores, offsets)
  regions = np.full(len(ids), -1, np.int32)
  regions[entries >= 0] = region_of_entry[entries[entries >= 0]]
  return regions


class QueryExecutor:
  """Answers queries over segments that do not change, and keeps what it derives from them.

  An index makes another one after every change. Threads may search at the same time; if two of them derive
  the same values at the same time, the results are equal.
  """

  def __init__(
    self,
    state: IndexState,
    check_entry_offsets: Callable[[], None],
    corpus: CorpusStatistics | None = None,
  ) -> None:
    """Takes what an index consists of.

    Args:
      state: of the index.
      check_entry_offsets: raises if the offsets of a regional index are damaged; called before their use.
      corpus: what idf counts; None: the segments of the index.
    """
    self._layout = state.layout
    self._kernel = state.kernel
    self._images = state.images
    self._segments = state.segments
    self._parts = tuple(state.parts)
    self._num_entries = state.num_entries
    self._num_rows = state.num_rows
    self._rows = state.kept_rows()  # of the entries; None: entry e is row e
    self._check_entry_offsets = check_entry_offsets
    self._corpus = corpus
    self._derived: dict[str, npt.NDArray[Any]] = {}
    self._buffers = threading.local()

  def search(self, query: AggregatedDescriptor, *, top_k: int, name: str, options: Scoring) -> Ranking:
    """Returns the best `top_k` images; see `InvertedIndex.search`."""
    found = self.scores(query, options)
    ids = select_top_k(found.values, top_k)
    return Ranking(name, ids, found.values[ids], found.best_regions(ids))

  def scores(self, query: AggregatedDescriptor, options: Scoring) -> 'ImageScores':
    """Returns the scores of all images; see `InvertedIndex.scores`."""
    check_query(query, self._layout)
    segments = [segment.load() for segment in self._segments]
    idf = self._idf() if options.use_idf else None
    norms = self._norms(options)
    buffer = self._buffer()
    scores = score_rows(query, segments, self._layout, self._kernel, options, idf, norms, buffer)
    if self._layout.has_masks:
      assert norms is not None, 'regions without words are known by their norms'
      best = best_region_scores(scores, norms, compiled=options.compiled)
      finish_scores(best, query, segments, self._kernel, options, idf)
      return ImageScores(self._kept(best), functools.partial(_masked_regions, scores, norms, self._rows))
    scores = self._kept(scores)
    offsets, region_of_entry = self._images.entry_offsets, self._images.entry_regions
    if offsets is None or region_of_entry is None:
      return ImageScores(scores, _no_regions)
    self._check_entry_offsets()
    best = best_scores(scores, offsets)
    return ImageScores(best, functools.partial(_entry_regions, best, scores, offsets, region_of_entry))

  def word_scores(
    self, query: AggregatedDescriptor, image: int, *, region: int, options: Scoring
  ) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.float64]]:
    """Returns what each word adds to the score of one image; see `InvertedIndex.word_scores`."""
    check_query(query, self._layout)
    entry = self._entry(image, region)
    row = entry if self._rows is None else int(self._rows[entry])
    starts = np.cumsum([0, *(segment.num_entries for segment in self._segments)])
    number = int(np.searchsorted(starts, row, side='right')) - 1
    norms = self._norms(options)
    if self._layout.has_masks and norms is not None:
      # A region without words has no terms, whatever its norm.
      norms = np.nan_to_num(norms[:, region]) if options.normalize else None
    return word_scores(
      query,
      self._segments[number].load(),
      row - int(starts[number]),
      self._layout,
      self._kernel,
      options,
      self._idf() if options.use_idf else None,
      None if norms is None else float(norms[row]),
      region=region if self._layout.has_masks else None,
    )

  def _entry(self, image: int, region: int) -> int:
    """Returns the entry of an image, or of one of its regions."""
    if not 0 <= image < len(self._images.names):
      raise IndexError(f'expected an image id below {len(self._images.names)}, found {image}')
    offsets, region_of_entry = self._images.entry_offsets, self._images.entry_regions
    if self._layout.has_masks and not 0 <= region < MASKED_REGIONS:
      raise IndexError(f'image {image} has no region {region}; expected one of 0 to {MASKED_REGIONS - 1}')
    if offsets is None or region_of_entry is None:
      return image
    self._check_entry_offsets()
    start, stop = (int(offset) for offset in offsets[image : image + 2])
    entries = start + np.flatnonzero(region_of_entry[start:stop] == region)
    if not len(entries):
      raise IndexError(f'image {image} has no region {region} among its {stop - start} entries')
    return int(entries[0])

  def list_sizes(self) -> npt.NDArray[np.int64]:
    """Returns the lengths of the posting lists: int64 [K]."""
    sizes = np.zeros(self._layout.num_words, np.int64)
    for segment, removed in self._parts:
      loaded = segment.load()
      offsets = loaded.offsets.astype(np.int64)
      sizes += offsets[1:] - offsets[:-1]
      if len(removed):
        sizes -= count_words(loaded, removed)
    return sizes

  def _derive(self, name: str, compute: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any]:
    if name not in self._derived:
      self._derived[name] = compute()
    return self._derived[name]

  def _idf(self) -> npt.NDArray[np.float64]:
    return self._derive('idf', self._compute_idf)

  def _compute_idf(self) -> npt.NDArray[np.float64]:
    corpus = self._corpus or CorpusStatistics(self.list_sizes(), self._num_entries)
    return inverse_document_frequencies(corpus.list_sizes, corpus.num_entries)

  def _norms(self, options: Scoring) -> npt.NDArray[np.float32] | None:
    """Returns the `inverse_norms` of all rows, None where scores are not divided by them.

    With region masks, they are those of all regions, and 1 where scores are not divided by them.
    """
    if self._layout.has_masks:
      return self._region_norms(options)
    segments = (segment.load() for segment in self._segments)
    if not (options.normalize and self._kernel.is_selective):
      return None
    if options.use_idf:
      return self._derive('idf norms', lambda: inverse_norms(segments, self._idf()))
    return self._derive('norms', lambda: inverse_norms(segments, None))

  def _region_norms(self, options: Scoring) -> npt.NDArray[np.float32]:
    segments = (segment.load() for segment in self._segments)
    if options.normalize and options.use_idf:
      return self._derive(
        'idf norms', lambda: inverse_norms(segments, self._idf()).reshape(-1, MASKED_REGIONS)
      )
    norms = self._derive('norms', lambda: inverse_norms(segments, None).reshape(-1, MASKED_REGIONS))
    if options.normalize:
      return norms
    return self._derive('ones', lambda: np.where(norms > 0, np.float32(1), np.float32(np.nan)))

  def _kept(self, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Returns the scores of the entries, float32 [E], from those of all rows."""
    return scores if self._rows is None else scores[self._rows]

  def _buffer(self) -> npt.NDArray[np.float32]:
    """Returns the scores of the thread, float32 [rows + 65536, ...] (`score_rows`)."""
    buffer: npt.NDArray[np.float32] | None = getattr(self._buffers, 'scores', None)
    if buffer is None:
      regions = (MASKED_REGIONS,) if self._layout.has_masks else ()
      buffer = self._buffers.scores = np.empty((self._num_rows + SEGMENT_ENTRIES, *regions), np.float32)
    return buffer


# Weights and norms -----------------------------------------------------------------------------------


def count_words(segment: Segment | DenseSegment, entries: Ids) -> npt.NDArray[np.int64]:
  """Returns how many of some entries of a segment, uint16 [n], have each word: int64 [K]."""
  offsets = segment.offsets.astype(np.int64)
  is_counted = np.zeros(1 << 16, bool)  # any id has a place there
  is_counted[entries] = True
  ids = segment.entry_ids
  found = [np.zeros(0, np.int64)]
  for start in range(0, len(ids), COUNTED_AT_ONCE):
    found.append(start + np.flatnonzero(is_counted[ids[start : start + COUNTED_AT_ONCE]]))
  words = np.searchsorted(offsets, np.concatenate(found), side='right') - 1
  return np.bincount(words, minlength=len(offsets) - 1)


def inverse_document_frequencies(
  list_sizes: npt.NDArray[np.int64], num_entries: int
) -> npt.NDArray[np.float64]:
  """Returns idf_w = log(E / n_w)^2, 1 where n_w = 0: float64 [K] from the lengths n_w of the lists [K]."""
  present = list_sizes > 0
  idf = np.ones(len(list_sizes))
  idf[present] = np.log(num_entries / list_sizes[present]) ** 2
  return idf


def inverse_norms(
  segments: Iterable[Segment | DenseSegment], idf: npt.NDArray[np.float64] | None
) -> npt.NDArray[np.float32]:
  """Returns 1 / sqrt(norm(e)) of every row, 0 where the norm is 0: float32 [rows] (ASMK family).

  With region masks, they are those of every region: float32 [rows, 8], NaN for a region without words.
  """
  parts: list[npt.NDArray[Any]] = []
  empty: list[npt.NDArray[np.bool_]] = []
  for segment in segments:
    counts = segment.word_counts if segment.region_counts is None else segment.region_counts
    empty.append(counts == 0)
    if idf is None:
      parts.append(counts)
    else:
      assert isinstance(segment, Segment), 'matrices are of VLAD'
      sums = np.zeros((SEGMENT_ENTRIES, *counts.shape[1:]))
      add_word_weights(segment, idf, sums)
      parts.append(sums[: segment.num_entries])
  if not parts:
    return np.zeros(0, np.float32)
  norms = np.concatenate(parts)
  inverse: npt.NDArray[np.float64] = 1 / np.sqrt(np.where(norms > 0, norms, 1))
  inverse[norms <= 0] = 0
  if inverse.ndim == 2:
    inverse[np.concatenate(empty)] = np.nan
  return inverse.astype(np.float32)


def best_region_scores(
  scores: npt.NDArray[np.float32], factors: npt.NDArray[np.float32], *, compiled: bool = HAVE_NUMBA
) -> npt.NDArray[np.float32]:
  """Returns the score of the best region of every entry.

  Args:
    scores: float32 [E, 8].
    factors: float32 [E, 8], multiplied; NaN for a region that is not there.
    compiled: take the path that numba compiles; both give the same numbers.

  Returns:
    float32 [E], 0 for an entry without regions.
  """
  if compiled:
    return _best_region_scores(scores, factors)
  best = np.full(len(scores), np.nan, np.float32)
  for region in range(scores.shape[1]):
    np.fmax(best, scores[:, region] * factors[:, region], out=best)  # the one that is no NaN
  return np.where(np.isnan(best), np.float32(0), best)


@njit
def _best_region_scores(
  scores: npt.NDArray[np.float32], factors: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
  best = np.zeros(len(scores), np.float32)
  for entry in range(len(scores)):
    most = np.float32(-np.inf)
    for region in range(MASKED_REGIONS):
      value = scores[entry, region] * factors[entry, region]
      if value > most:  # false for NaN
        most = value
    if most > -np.inf:
      best[entry] = most
  return best


def best_regions(
  scores: npt.NDArray[np.float32],
  factors: npt.NDArray[np.float32],
  rows: npt.NDArray[np.int64],
  *,
  compiled: bool | None = None,
) -> npt.NDArray[np.int32]:
  """Returns the regions of the `best_region_scores` of some rows.

  Args:
    scores, factors: those of `best_region_scores`.
    rows: int64 [k].
    compiled: take the path that numba compiles, by default for many rows; both give the same regions.

  Returns:
    int32 [k], the first of equal ones, 0 for a row without regions.
  """
  if HAVE_NUMBA and len(rows) > FEW if compiled is None else compiled:
    return _best_regions(scores, factors, rows)
  values = scores[rows] * factors[rows]
  regions: npt.NDArray[np.int32] = np.where(np.isnan(values), -np.inf, values).argmax(axis=1).astype(np.int32)
  return regions


@njit
def _best_regions(
  scores: npt.NDArray[np.float32], factors: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.int32]:
  best = np.zeros(rows.size, np.int32)
  for i in range(rows.size):
    row = rows[i]
    most = np.float32(-np.inf)
    for region in range(MASKED_REGIONS):
      value = scores[row, region] * factors[row, region]
      if value > most:  # false for NaN
        most = value
        best[i] = region
  return best


@functools.lru_cache(maxsize=64)
def distance_table(layout: Layout, alpha: float, tau: float, compat: bool) -> npt.NDArray[np.float32]:
  """Returns sigma by Hamming distance, float32, for all distances of the bits that are stored.

  Distances above the number of bits compared occur only in damaged files; their sigma is that of the largest.
  """
  bits = layout.dimensions
  if compat and bits > 8:
    bits = 8 * -(-bits // 8)
  sigma = selectivity_table(bits, alpha=alpha, tau=tau)
  table = np.full(layout.column_bits * layout.columns + 1, sigma[-1], np.float32)
  table[: len(sigma)] = sigma
  table.flags.writeable = False
  return table


# Scores ----------------------------------------------------------------------------------------------


def score_rows(
  query: AggregatedDescriptor,
  segments: Sequence[Segment | DenseSegment],
  layout: Layout,
  kernel: Kernel,
  scoring: Scoring,
  idf: npt.NDArray[np.float64] | None,
  norms: npt.NDArray[np.float32] | None,
  buffer: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
  """Returns the scores of all rows; with region masks the sums of all regions, not yet divided.

  Args:
    query: a descriptor that `builder.check_query` accepts.
    segments: of the index, in order.
    layout, kernel: of the index.
    scoring: how to compare.
    idf: float64 [K] or None.
    norms: the `inverse_norms` of the rows, or None if scores are not divided by them.
    buffer: float32 [rows + 65536] or, with region masks, [rows + 65536, 8], overwritten; one for each thread.

  Returns:
    float32 [rows] or [rows, 8], part of `buffer`.
  """
  words = np.ascontiguousarray(query.visual_words, np.uint32)
  weights = np.ones(len(words), np.float32) if idf is None else idf[words].astype(np.float32)
  values = query.values if layout.is_dense else layout.pack([query.values])
  stop = 0
  for segment in segments:
    # 65,536 places, for any id that a damaged file may hold; the next segment sets those behind to 0.
    start, stop = stop, stop + segment.num_entries
    scores = buffer[start : start + SEGMENT_ENTRIES]
    scores[: segment.num_entries] = 0
    if isinstance(segment, DenseSegment):
      for row in weights[:, None] * values:  # one, or none
        segment.add_products(row.astype(np.float32), scores, compiled=scoring.compiled)
    elif layout.is_binary:
      table = distance_table(layout, scoring.alpha, scoring.tau, scoring.compat)
      scan_binary(segment, words, values, weights, table, scores, compiled=scoring.compiled)
    else:
      alpha = scoring.alpha if kernel.is_selective else None
      scan_float(segment, words, values, weights, alpha, scoring.tau, scores, compiled=scoring.compiled)
  scores = buffer[:stop]
  if not layout.has_masks:
    if norms is not None:
      scores *= norms
    finish_scores(scores, query, segments, kernel, scoring, idf)
  return scores


def finish_scores(
  scores: npt.NDArray[np.float32],
  query: AggregatedDescriptor,
  segments: Sequence[Segment | DenseSegment],
  kernel: Kernel,
  scoring: Scoring,
  idf: npt.NDArray[np.float64] | None,
) -> None:
  """Divides the scores of all rows, float32 [rows], by the norm of the query, and applies `compat`, in place.

  The other arguments are those of `score_rows`.
  """
  if not kernel.is_selective:
    return
  words = query.visual_words
  if scoring.normalize:
    query_norm = len(words) if idf is None else float(idf[words].sum())
    scores *= np.float32(1 / math.sqrt(query_norm) if query_norm > 0 else 0)
  if scoring.compat:
    empty = np.concatenate([np.zeros(0, bool), *(segment.word_counts == 0 for segment in segments)])
    scores[empty | (len(words) == 0)] = -1


def word_scores(
  query: AggregatedDescriptor,
  segment: Segment | DenseSegment,
  entry: int,
  layout: Layout,
  kernel: Kernel,
  scoring: Scoring,
  idf: npt.NDArray[np.float64] | None,
  inverse_norm: float | None,
  *,
  region: int | None = None,
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.float64]]:
  """Returns what each visual word adds to the score of one entry.

  The score is a sum over words, so its terms account for it exactly; nothing is estimated.

  Args:
    query: a descriptor that `builder.check_query` accepts.
    segment: the segment of the entry.
    entry: its number within the segment.
    layout, kernel: of the index.
    scoring: how to compare.
    idf: float64 [K] or None.
    inverse_norm: 1 / sqrt(norm(e)), or None if scores are not normalised.
    region: with region masks, the region whose words count.

  Returns:
    The common words uint32 [W], ascending, and their terms float64 [W]. Their sum is the score; under
    `compat` the -1 of an empty descriptor has no terms.
  """
  words = np.ascontiguousarray(query.visual_words, np.uint32)
  if isinstance(segment, DenseSegment):
    shared = words[: int(segment.present[entry])]
    products = query.values[: len(shared)] @ segment.rows(slice(entry, entry + 1))[0]
    terms = products.astype(np.float64)
    return shared, terms if idf is None else terms * idf[shared]
  places = np.array([_posting(segment, word, entry) for word in words.tolist()], np.int64).reshape(-1)
  found = places >= 0
  if region is not None and segment.masks is not None:
    found[found] = (segment.masks[places[found]] >> region) & 1 == 1
  common = np.flatnonzero(found)
  places = places[common]
  values = layout.pack([query.values])[common]
  if layout.is_binary:
    distances = np.bitwise_count(values ^ segment.values[:, places].T).sum(axis=1, dtype=np.int64)
    similarities = distance_table(layout, scoring.alpha, scoring.tau, scoring.compat)[distances]
  else:
    similarities = np.einsum('wd,wd->w', values, segment.values[places])
    if kernel.is_selective:
      similarities = selectivity(similarities, alpha=scoring.alpha, tau=scoring.tau)
  terms = similarities.astype(np.float64)
  if idf is not None:
    terms *= idf[words[common]]
  if inverse_norm is not None:
    query_norm = len(words) if idf is None else float(idf[words].sum())
    terms *= inverse_norm / math.sqrt(query_norm) if query_norm > 0 else 0
  return words[common], terms


def _posting(segment: Segment, word: int, entry: int) -> int:
  """Returns the position of the posting of `entry` in the list of `word`, -1 if there is none."""
  # Clipped as in the scan, in case the file changed since it was checked.
  start, stop = (min(int(offset), segment.num_postings) for offset in segment.offsets[word : word + 2])
  place = start + int(np.searchsorted(segment.entry_ids[start:stop], np.uint16(entry)))
  return place if place < stop and segment.entry_ids[place] == entry else -1
