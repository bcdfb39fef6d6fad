"""Scores of all entries for one query: the scan over segments, idf weights and normalisation.

    score(q, e) = sum over common words w of idf_w sigma(u_w) / sqrt(norm(q) norm(e))

norm(x) is the number of words of x, or the sum of their idf with idf, so that an image scores 1 against
itself (ASMK family; VLAD carries its norm in its values). Without idf all idf_w are 1.

idf_w = log(E / n_w)^2 for a word present in n_w of E entries, 1 for a word that no entry has: the form of
the PyPI package `asmk` (inverted_file.py), where each of the two sides brings one factor log(E / n_w).
It is computed from the final counts, so it does not depend on the order or chunks of insertion, which
in `asmk` it does. A word that every entry has weighs 0.

Burstiness needs no option here: the aggregation leaves one vector per word and image, which is ASMK's own
answer to it (Tolias et al., ICCV 2013, section 5.2). Multiple assignment of a query shows as more words.
"""

import dataclasses
import functools
import math

import numpy as np

from delf_d2r.index.scan import add_word_weights, scan_binary, scan_float
from delf_d2r.index.segments import SEGMENT_ENTRIES, Layout, Segment
from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.kernels.compiled import HAVE_NUMBA
from delf_d2r.kernels.similarity import selectivity_table
from delf_d2r.structures import AggregatedDescriptor


@dataclasses.dataclass(frozen=True)
class Scoring:
  """How a query is compared with an entry.

  Attributes:
    alpha, tau: selectivity sign(u) |u|^alpha if u > tau, else 0 (ASMK family).
    normalize: divide by sqrt(norm(q) norm(e)) (ASMK family).
    use_idf: weigh words by idf.
    compat: the research code's oddities (ASMK family): bits of padding count as agreeing, and an empty
      descriptor on either side scores -1, below the 0 of no common words.
    compiled: numba's path, or NumPy's.
  """

  alpha: float = 3.0
  tau: float = 0.0
  normalize: bool = True
  use_idf: bool = False
  compat: bool = False
  compiled: bool = HAVE_NUMBA


@dataclasses.dataclass(frozen=True)
class Corpus:
  """What idf counts: the lengths of the posting lists, int64 [K], of `num_entries` entries."""

  list_sizes: np.ndarray
  num_entries: int


def inverse_document_frequencies(list_sizes: np.ndarray, num_entries: int) -> np.ndarray:
  """idf_w = log(E / n_w)^2, 1 where n_w = 0: float64 [K] from the lengths of the posting lists [K]."""
  present = list_sizes > 0
  idf = np.ones(len(list_sizes))
  idf[present] = np.log(num_entries / list_sizes[present]) ** 2
  return idf


def inverse_norms(segments: list[Segment], idf: np.ndarray | None) -> np.ndarray:
  """1 / sqrt(norm(e)) of every entry, 0 where the norm is 0: float32 [E]."""
  if idf is None:
    norms = [segment.word_counts for segment in segments]
  else:
    norms = []
    for segment in segments:
      sums = np.zeros(SEGMENT_ENTRIES)
      add_word_weights(segment, idf, sums)
      norms.append(sums[: segment.num_entries])
  norms = np.concatenate([np.zeros(0), *norms])
  return np.where(norms > 0, 1 / np.sqrt(np.where(norms > 0, norms, 1)), 0).astype(np.float32)


@functools.lru_cache(maxsize=64)
def distance_table(layout: Layout, alpha: float, tau: float, compat: bool) -> np.ndarray:
  """sigma by Hamming distance, float32 [64 ceil(D / 64) + 1].

  Distances above the number of bits compared occur only in damaged files; they read as the largest.
  """
  bits = layout.dimensions
  if compat and bits > 8:
    bits = 8 * -(-bits // 8)
  sigma = selectivity_table(bits, alpha=alpha, tau=tau)
  table = np.full(64 * layout.columns + 1, sigma[-1], np.float32)
  table[: len(sigma)] = sigma
  table.flags.writeable = False
  return table


def score_entries(
  query: AggregatedDescriptor,
  segments: list[Segment],
  layout: Layout,
  kernel: Kernel,
  scoring: Scoring,
  idf: np.ndarray | None,
  norms: np.ndarray | None,
  buffer: np.ndarray,
) -> np.ndarray:
  """Scores of all entries.

  Args:
    query: a descriptor that `builder.check_descriptor` admits.
    segments: of the index, in order.
    layout, kernel, scoring: what is compared and how.
    idf: float64 [K] or None.
    norms: the entries' `inverse_norms`, or None if they are not to be used.
    buffer: float32 [len(segments), 65536], overwritten; one for each thread.

  Returns:
    float32 [E], part of `buffer`.
  """
  words = np.ascontiguousarray(query.visual_words, np.uint32)
  weights = np.ones(len(words), np.float32) if idf is None else idf[words].astype(np.float32)
  values = layout.pack([query.values])
  for segment, scores in zip(segments, buffer, strict=True):
    scores[: segment.num_entries] = 0
    if layout.is_binary:
      table = distance_table(layout, scoring.alpha, scoring.tau, scoring.compat)
      scan_binary(segment, words, values, weights, table, scores, compiled=scoring.compiled)
    else:
      alpha = None if kernel is Kernel.VLAD else scoring.alpha
      scan_float(segment, words, values, weights, alpha, scoring.tau, scores, compiled=scoring.compiled)
  entries = sum(segment.num_entries for segment in segments)
  scores = buffer.reshape(-1)[:entries]
  if norms is not None:
    scores *= norms
    query_norm = len(words) if idf is None else float(idf[words].sum())
    scores *= np.float32(1 / math.sqrt(query_norm) if query_norm > 0 else 0)
  if scoring.compat and kernel is not Kernel.VLAD:
    empty = np.concatenate([np.zeros(0, bool), *(segment.word_counts == 0 for segment in segments)])
    scores[empty | (len(words) == 0)] = -1
  return scores
