"""What each visual word adds to the score of one entry.

  score(q, e) = sum over common words w of idf_w sigma(u_w) / sqrt(norm(q) norm(e))

The score (search.py) is a sum over words, so its terms are an exact account of it, no estimate.
"""

import math

import numpy as np

from delf_d2r.index.search import Scoring, distance_table
from delf_d2r.index.segments import Layout, Segment
from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.kernels.similarity import selectivity
from delf_d2r.structures import AggregatedDescriptor


def word_scores(
  query: AggregatedDescriptor,
  segment: Segment,
  entry: int,
  layout: Layout,
  kernel: Kernel,
  scoring: Scoring,
  idf: np.ndarray | None,
  inverse_norm: float | None,
) -> tuple[np.ndarray, np.ndarray]:
  """The terms of the score of `entry` for `query`.

  Args:
    query: a descriptor that `builder.check_descriptor` admits.
    segment: the one that holds the entry.
    entry: its number within the segment.
    layout, kernel, scoring: what is compared and how.
    idf: float64 [K] or None.
    inverse_norm: 1 / sqrt(norm(e)), or None if scores are not normalised.

  Returns:
    The common words uint32 [W], ascending, and their terms float64 [W]. Their sum is the score; under
    `compat` the -1 of an empty descriptor has no terms.
  """
  words = np.ascontiguousarray(query.visual_words, np.uint32)
  places = np.array([_posting(segment, word, entry) for word in words.tolist()], np.int64).reshape(-1)
  common = np.flatnonzero(places >= 0)
  places = places[common]
  values = layout.pack([query.values])[common]
  if layout.is_binary:
    distances = np.bitwise_count(values ^ segment.values[:, places].T).sum(axis=1, dtype=np.int64)
    terms = distance_table(layout, scoring.alpha, scoring.tau, scoring.compat)[distances]
  else:
    terms = np.einsum('wd,wd->w', values, segment.values[places])
    if kernel is not Kernel.VLAD:
      terms = selectivity(terms, alpha=scoring.alpha, tau=scoring.tau)
  terms = terms.astype(np.float64)
  if idf is not None:
    terms *= idf[words[common]]
  if inverse_norm is not None:
    query_norm = len(words) if idf is None else float(idf[words].sum())
    terms *= inverse_norm / math.sqrt(query_norm) if query_norm > 0 else 0
  return words[common], terms


def _posting(segment: Segment, word: int, entry: int) -> int:
  """Where the posting of `entry` stands in the list of `word`, -1 if it is not there."""
  # Clipped as in the scan, in case the file changed since it was checked.
  start, stop = (min(int(offset), segment.num_postings) for offset in segment.offsets[word : word + 2])
  place = start + int(np.searchsorted(segment.entry_ids[start:stop], np.uint16(entry)))
  return place if place < stop and segment.entry_ids[place] == entry else -1
