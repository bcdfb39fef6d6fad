"""The scan: adds the similarity of every posting of the query's words to the score of its entry.

    score(e) += weight_w * sigma(u),  u = 1 - 2 hamming / T (binary) or <a, b> (float)

Binary similarities come from a table by Hamming distance. No content of a file can make the scan leave
its arrays: the scores have 65,536 places, as many as 16-bit ids can address, and the table has a place
for every distance that the stored bits can show, padding included.
"""

import numpy as np

from delf_d2r.index.segments import Segment
from delf_d2r.kernels.compiled import HAVE_NUMBA, njit

GROUP_POSTINGS = 1 << 16  # that the NumPy path scans at once


def scan_binary(segment: Segment, words, codes, weights, table, scores, *, compiled: bool = HAVE_NUMBA):
  """Adds the similarities of a binary query to `scores`.

  Args:
    segment: what to scan.
    words: uint32 [W], ascending, each below K.
    codes: uint64 [W, ceil(D / 64)], the query's codes, padded as the segment's.
    weights: float32 [W], a factor for each word.
    table: float32 [64 ceil(D / 64) + 1], sigma by Hamming distance.
    scores: float32 [65536], changed in place.
    compiled: take numba's path; both add the same numbers in the same order.
  """
  if not compiled:
    _scan_binary_numpy(segment, words, codes, weights, table, scores)
    return
  scan = _scan_128 if codes.shape[1] == 2 else _scan_codes
  scan(segment.offsets, segment.entry_ids, segment.values, words, codes, weights, table, scores)


def scan_float(segment: Segment, words, values, weights, alpha, tau, scores, *, compiled: bool = HAVE_NUMBA):
  """Adds the similarities of a float query to `scores`; as `scan_binary` but for

  Args:
    segment, words, weights, scores, compiled: as there.
    values: float32 [W, D].
    alpha, tau: selectivity sign(u) |u|^alpha if u > tau, else 0; alpha = None takes u itself (VLAD).
  """
  if not compiled:
    _scan_float_numpy(segment, words, values, weights, alpha, tau, scores)
    return
  integer_power = int(alpha) if alpha is not None and float(alpha).is_integer() and 1 <= alpha <= 8 else 0
  _scan_floats(
    segment.offsets,
    segment.entry_ids,
    segment.values,
    words,
    values,
    weights,
    alpha is None,
    np.float32(1 if alpha is None else alpha),
    integer_power,
    np.float32(tau),
    scores,
  )


if HAVE_NUMBA:
  from delf_d2r.index.intrinsics import popcount, prefetch


@njit
def _bounds(offsets, word, postings):
  """First and last posting of a word. Clipped, in case the file changed since it was checked.

  Unsigned, since signed indices cost a test for negative ones at every access.
  """
  return np.uint64(offsets[word]), np.uint64(min(offsets[word + 1], np.uint64(postings)))


@njit
def _prefetch_lists(offsets, entry_ids, stored, words, i):
  """Asks for what words i + 2 and i + 8 will need first: short lists cost more latency than work."""
  if i + 8 < words.size:
    prefetch(offsets, words[i + 8])
  if i + 2 < words.size:
    ahead = np.uint64(offsets[words[i + 2]])
    prefetch(entry_ids, ahead)
    for column in range(stored.shape[0]):
      for line in range(4):
        prefetch(stored[column], ahead + np.uint64(8 * line))


@njit
def _scan_128(offsets, entry_ids, stored, words, codes, weights, table, scores):
  """Two columns; with prefetching inside lists, too, whose pages and ends stop the hardware's."""
  first, second = stored[0], stored[1]
  step, distance = np.uint64(16), np.uint64(64)
  scaled, weight = table.copy(), np.float32(1)
  for i in range(words.size):
    _prefetch_lists(offsets, entry_ids, stored, words, i)
    if weights[i] != weight:
      weight = weights[i]
      for h in range(table.size):
        scaled[h] = table[h] * weight
    code0, code1 = codes[i, 0], codes[i, 1]
    start, stop = _bounds(offsets, words[i], entry_ids.size)
    while start + step <= stop:
      prefetch(entry_ids, start + distance)
      for line in range(0, step, 8):
        prefetch(first, start + distance + np.uint64(line))
        prefetch(second, start + distance + np.uint64(line))
      # A loop of constant length, for the compiler to unroll.
      for j in range(start, start + step):
        scores[entry_ids[j]] += scaled[popcount(first[j] ^ code0) + popcount(second[j] ^ code1)]
      start += step
    for j in range(start, stop):
      scores[entry_ids[j]] += scaled[popcount(first[j] ^ code0) + popcount(second[j] ^ code1)]


@njit
def _scan_codes(offsets, entry_ids, stored, words, codes, weights, table, scores):
  scaled, weight = table.copy(), np.float32(1)
  for i in range(words.size):
    _prefetch_lists(offsets, entry_ids, stored, words, i)
    if weights[i] != weight:
      weight = weights[i]
      for h in range(table.size):
        scaled[h] = table[h] * weight
    start, stop = _bounds(offsets, words[i], entry_ids.size)
    for j in range(start, stop):
      distance = np.uint64(0)
      for column in range(codes.shape[1]):
        distance += popcount(stored[column, j] ^ codes[i, column])
      scores[entry_ids[j]] += scaled[distance]


@njit(fastmath={'reassoc', 'contract'})
def _dot(a, b):
  total = np.float32(0)
  for d in range(a.size):
    total += a[d] * b[d]
  return total


@njit
def _scan_floats(
  offsets, entry_ids, stored, words, values, weights, identity, alpha, integer_power, tau, scores
):
  for i in range(words.size):
    start, stop = _bounds(offsets, words[i], entry_ids.size)
    for j in range(start, stop):
      u = _dot(values[i], stored[j])
      if identity:
        similarity = u
      elif not u > tau:
        continue
      elif integer_power:
        similarity = u
        for _ in range(integer_power - 1):
          similarity *= abs(u)
      else:
        similarity = np.float32(abs(u) ** alpha) * np.sign(u)
      scores[entry_ids[j]] += weights[i] * similarity


def _lists(segment: Segment, words):
  """Starts and lengths int64 [W] of the words' posting lists."""
  starts = segment.offsets[words].astype(np.int64)
  stops = np.minimum(segment.offsets[words.astype(np.int64) + 1].astype(np.int64), segment.num_postings)
  return starts, np.maximum(stops - starts, 0)


def _scan_binary_numpy(segment: Segment, words, codes, weights, table, scores) -> None:
  starts, lengths = _lists(segment, words)
  stops, totals = starts + lengths, np.cumsum(lengths)
  first = 0
  while first < len(words):
    # As many lists as together stay in the cache: one at a time costs calls, all at once memory.
    done = totals[first - 1] if first else 0
    last = max(first + 1, int(np.searchsorted(totals, done + GROUP_POSTINGS)))
    group = slice(first, last)
    lists = [slice(*bounds) for bounds in zip(starts[group].tolist(), stops[group].tolist(), strict=True)]
    distances = np.zeros(totals[last - 1] - done, np.uint16)
    for stored, code in zip(segment.values, codes.T, strict=True):
      differences = np.concatenate([stored[own] for own in lists])
      differences ^= np.repeat(code[group], lengths[group])
      distances += np.bitwise_count(differences)
    similarities = table.take(distances)
    similarities *= np.repeat(weights[group], lengths[group])
    # NumPy adds several times faster at 64-bit indices than at those of other widths.
    np.add.at(
      scores, np.concatenate([segment.entry_ids[own] for own in lists]).astype(np.int64), similarities
    )
    first = last


def _scan_float_numpy(segment: Segment, words, values, weights, alpha, tau, scores) -> None:
  starts, lengths = _lists(segment, words)
  for i, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
    own = slice(start, start + length)
    # OpenBLAS now and then reports an invalid operation where all numbers are finite (numpy issue 24067).
    with np.errstate(invalid='ignore'):
      u = segment.values[own] @ values[i]
    if alpha is not None:
      u = np.where(u > tau, np.sign(u) * np.abs(u) ** np.float32(alpha), np.float32(0))
    scores[segment.entry_ids[own]] += weights[i] * u


def add_word_weights(segment: Segment, weights, sums, *, compiled: bool = HAVE_NUMBA) -> None:
  """Adds to `sums` float64 [65536] of each entry the `weights` float64 [K] of the words it has."""
  if compiled:
    _add_word_weights(segment.offsets, segment.entry_ids, weights, sums)
    return
  for word in np.flatnonzero(np.diff(segment.offsets)):
    sums[segment.entry_ids[segment.offsets[word] : segment.offsets[word + 1]]] += weights[word]


@njit
def _add_word_weights(offsets, entry_ids, weights, sums):
  for word in range(weights.size):
    start, stop = _bounds(offsets, word, entry_ids.size)
    for j in range(start, stop):
      sums[entry_ids[j]] += weights[word]
