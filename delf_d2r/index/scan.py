"""The scan: adds the similarity of every posting of the query's words to the score of its entry.

    score(e) += weight_w * sigma(u),  u = 1 - 2 hamming / T (binary) or <a, b> (float)

With region masks, an entry has a score for each of 8 regions, and a posting adds to those of its mask.

Binary similarities come from a table by Hamming distance. Whatever a damaged file holds, the scan stays
within its arrays: the scores have 65,536 places, as many as 16-bit ids can address, and the table has a place
for every distance that the stored bits can give, padding included.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from delf_d2r.index.segments import Segment
from delf_d2r.kernels.aggregation import MASKED_REGIONS
from delf_d2r.kernels.compiled import HAVE_NUMBA, intrinsic, njit

GROUP_POSTINGS = 1 << 16  # postings that the NumPy path scans at once

# The factors of the 8 regions by mask, 0 or 1: float32 [256, 8].
_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder='little').astype(np.float32)
_BITS.flags.writeable = False

Floats = npt.NDArray[np.float32]
Words = npt.NDArray[np.uint32]
Ids = npt.NDArray[np.uint16]
Codes = npt.NDArray[np.uint64] | npt.NDArray[np.uint32]
Masks = npt.NDArray[np.uint8]


def scan_binary(
  segment: Segment,
  words: Words,
  codes: Codes,
  weights: Floats,
  table: Floats,
  scores: Floats,
  *,
  compiled: bool = HAVE_NUMBA,
) -> None:
  """Adds the similarities of a binary query to `scores`.

  Args:
    segment: the segment to scan.
    words: uint32 [W], ascending, each below K.
    codes: uint64 or uint32 [W, columns], the codes of the query, packed as those of the segment.
    weights: float32 [W], a factor for each word.
    table: float32 [bits of all columns + 1], sigma by Hamming distance.
    scores: float32 [65536], or [65536, 8] if the segment has masks; changed in place.
    compiled: take the path that numba compiles; both add the same numbers in the same order.
  """
  if not compiled:
    _scan_binary_numpy(segment, words, codes, weights, table, scores)
    return
  if segment.masks is not None:
    _SCANS_BY_REGION.get(codes.shape[1], _scan_codes_by_region)(
      segment.offsets,
      segment.entry_ids,
      segment.values,
      segment.masks,
      words,
      codes,
      weights,
      table,
      _BITS,
      scores,
    )
    return
  scan = _SCANS.get(codes.shape[1], _scan_codes)
  scan(segment.offsets, segment.entry_ids, segment.values, words, codes, weights, table, scores)


def scan_float(
  segment: Segment,
  words: Words,
  values: Floats,
  weights: Floats,
  alpha: float | None,
  tau: float,
  scores: Floats,
  *,
  compiled: bool = HAVE_NUMBA,
) -> None:
  """Adds the similarities of a float query to `scores`.

  Args:
    segment, words, weights, scores, compiled: those of `scan_binary`.
    values: float32 [W, D].
    alpha, tau: selectivity sign(u) |u|^alpha if u > tau, else 0; alpha = None takes u itself (VLAD).
  """
  if not compiled:
    _scan_float_numpy(segment, words, values, weights, alpha, tau, scores)
    return
  integer_power = int(alpha) if alpha is not None and float(alpha).is_integer() and 1 <= alpha <= 8 else 0
  identity, power = alpha is None, np.float32(1 if alpha is None else alpha)
  offsets, entry_ids, stored = segment.offsets, segment.entry_ids, segment.values
  scan: Callable[..., None]
  if segment.masks is None:
    scan = _scan_floats
    of_regions: tuple[npt.NDArray[Any], ...] = ()
  else:
    scan, of_regions = _scan_floats_by_region, (segment.masks, _BITS)
  scan(
    offsets,
    entry_ids,
    stored,
    words,
    values,
    weights,
    identity,
    power,
    integer_power,
    np.float32(tau),
    scores,
    *of_regions,
  )


def add_word_weights(
  segment: Segment,
  weights: npt.NDArray[np.float64],
  sums: npt.NDArray[np.float64],
  *,
  compiled: bool = HAVE_NUMBA,
) -> None:
  """Adds to `sums` of each entry the `weights` float64 [K] of the words it has.

  `sums` is float64 [65536], or [65536, 8] if the segment has masks: those of each region.
  """
  if segment.masks is not None:
    for word in np.flatnonzero(np.diff(segment.offsets)):
      own = slice(segment.offsets[word], segment.offsets[word + 1])
      sums[segment.entry_ids[own]] += weights[word] * _BITS[segment.masks[own]]
    return
  if compiled:
    _add_word_weights(segment.offsets, segment.entry_ids, weights, sums)
    return
  for word in np.flatnonzero(np.diff(segment.offsets)):
    sums[segment.entry_ids[segment.offsets[word] : segment.offsets[word + 1]]] += weights[word]


# Machine instructions that numba has no function for ---------------------------------------------------


@intrinsic
def popcount(typing_context: Any, value: Any) -> Any:
  """Returns the number of bits that are 1: uint64 -> uint64."""
  from numba import types

  del typing_context, value

  def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    del context, signature
    return builder.ctpop(arguments[0])

  return types.uint64(types.uint64), generate


@intrinsic
def prefetch(typing_context: Any, array: Any, index: Any) -> Any:
  """Requests the cache line of `array[index]`, array [n]; any index is harmless, none is read."""
  from llvmlite import ir
  from numba import types

  del typing_context

  def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
    byte_pointer = ir.IntType(8).as_pointer()
    int32 = ir.IntType(32)
    function = builder.module.declare_intrinsic(
      'llvm.prefetch', (byte_pointer,), ir.FunctionType(ir.VoidType(), [byte_pointer, int32, int32, int32])
    )
    address = builder.bitcast(builder.gep(data, [arguments[1]]), byte_pointer)
    read, keep_in_all_caches, is_data = (ir.Constant(int32, flag) for flag in (0, 3, 1))
    builder.call(function, [address, read, keep_in_all_caches, is_data])
    return context.get_dummy_value()

  return types.void(array, index), generate


@intrinsic
def add_to_regions(
  typing_context: Any, scores: Any, entry: Any, similarity: Any, bits: Any, mask: Any
) -> Any:
  """Adds `similarity * bits[mask]` to `scores[entry]`, float32 [8] each, in three vector instructions.

  Numba unrolls a loop over 8 regions before it could be vectorised, which takes three times as long. Both
  arrays are float32 [n, 8] in C order; an unsigned `entry` and `mask` are not checked.
  """
  from llvmlite import ir
  from numba import types

  del typing_context

  def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    lanes = ir.VectorType(ir.FloatType(), MASKED_REGIONS)
    index = ir.IntType(64)

    def row(which: int, number: Any) -> Any:
      data = context.make_array(signature.args[which])(context, builder, arguments[which]).data
      offset = builder.mul(builder.zext(number, index), ir.Constant(index, MASKED_REGIONS))
      return builder.bitcast(builder.gep(data, [offset]), lanes.as_pointer())

    target = row(0, arguments[1])
    one = builder.insert_element(
      ir.Constant(lanes, ir.Undefined), arguments[2], ir.Constant(ir.IntType(32), 0)
    )
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), MASKED_REGIONS), [0] * MASKED_REGIONS)
    everywhere = builder.shuffle_vector(one, one, zeros)
    added = builder.fmul(everywhere, builder.load(row(3, arguments[4]), align=4))
    builder.store(builder.fadd(builder.load(target, align=4), added), target, align=4)
    return context.get_dummy_value()

  return types.void(scores, entry, similarity, bits, mask), generate


# Compiled loops --------------------------------------------------------------------------------------


@njit
def _bounds(offsets: Words, word: Any, postings: int) -> tuple[np.uint64, np.uint64]:
  """Returns first posting and end of the list of a word, clipped in case the file changed since its check.

  They are unsigned, since signed indices cost a test for negative ones at every access.
  """
  return np.uint64(offsets[word]), np.uint64(min(offsets[word + 1], np.uint64(postings)))


# Codes are scanned in steps of 16 postings. The step that comes some steps later is requested from memory
# meanwhile, across the ends of lists: lists are short, and memory answers only after many postings. The
# numbers of steps keep about as many requests open as a core has room for. Requests are not left out where a
# list ends: the branch would cost more.
_STEP = 16
_AHEAD_64, _AHEAD_128, _AHEAD_MORE = 12, 8, 4
_WORDS_AHEAD = 12  # words whose offsets are requested; the list of a word may be a single step


@njit
def _next_step(
  offsets: Words, words: Words, postings: int, i: int, place: np.uint64, end: np.uint64
) -> tuple[int, np.uint64, np.uint64]:
  """Returns the step that follows: the number of its word, its first posting and the end of its list.

  It is the one at `place` in the list of word i, which stops at `end`, or the first of the next list.
  """
  while place >= end and i + 1 < words.size:
    i += 1
    if i + _WORDS_AHEAD < words.size:
      prefetch(offsets, words[i + _WORDS_AHEAD])
    place, end = _bounds(offsets, words[i], postings)
  return i, place, end


@njit
def _request_first(
  offsets: Words, entry_ids: Ids, stored: Codes, words: Words, steps: int
) -> tuple[int, np.uint64, np.uint64]:
  """Requests the first steps; returns the place of the next one, for `_next_step`."""
  for i in range(min(_WORDS_AHEAD, words.size)):
    prefetch(offsets, words[i])
  i, place, end = -1, np.uint64(0), np.uint64(0)
  for _ in range(steps):
    i, place, end = _next_step(offsets, words, entry_ids.size, i, place, end)
    prefetch(entry_ids, place)
    for column in range(stored.shape[0]):
      _request(stored[column], place)
    place += np.uint64(_STEP)
  return i, place, end


@njit
def _request(column: npt.NDArray[Any], place: np.uint64) -> None:
  """Requests the cache lines of a step, two of 64-bit columns."""
  prefetch(column, place)
  if column.itemsize > 4:
    prefetch(column, place + np.uint64(8))


@njit
def _weigh(table: Floats, weight: np.float32, scaled: Floats) -> None:
  """Writes the similarities by distance, multiplied by the weight of a word."""
  for h in range(table.size):
    scaled[h] = table[h] * weight


@njit
def _scan_64(
  offsets: Words,
  entry_ids: Ids,
  stored: Codes,
  words: Words,
  codes: Codes,
  weights: Floats,
  table: Floats,
  scores: Floats,
) -> None:
  """Scans codes of one column."""
  column = stored[0]
  step = np.uint64(_STEP)
  scaled, weight = table.copy(), np.float32(1)
  ahead, place, end = _request_first(offsets, entry_ids, stored, words, _AHEAD_64)
  for i in range(words.size):
    if weights[i] != weight:
      weight = weights[i]
      _weigh(table, weight, scaled)
    code = codes[i, 0]
    start, stop = _bounds(offsets, words[i], entry_ids.size)
    while start < stop:
      ahead, place, end = _next_step(offsets, words, entry_ids.size, ahead, place, end)
      prefetch(entry_ids, place)
      _request(column, place)
      place += step
      # A loop of constant length, for the compiler to unroll.
      if start + step <= stop:
        for j in range(start, start + step):
          scores[entry_ids[j]] += scaled[popcount(column[j] ^ code)]
      else:
        for j in range(start, stop):
          scores[entry_ids[j]] += scaled[popcount(column[j] ^ code)]
      start += step


@njit
def _scan_128(
  offsets: Words,
  entry_ids: Ids,
  stored: Codes,
  words: Words,
  codes: Codes,
  weights: Floats,
  table: Floats,
  scores: Floats,
) -> None:
  """Scans codes of two columns."""
  first, second = stored[0], stored[1]
  step = np.uint64(_STEP)
  scaled, weight = table.copy(), np.float32(1)
  ahead, place, end = _request_first(offsets, entry_ids, stored, words, _AHEAD_128)
  for i in range(words.size):
    if weights[i] != weight:
      weight = weights[i]
      _weigh(table, weight, scaled)
    code0, code1 = codes[i, 0], codes[i, 1]
    start, stop = _bounds(offsets, words[i], entry_ids.size)
    while start < stop:
      ahead, place, end = _next_step(offsets, words, entry_ids.size, ahead, place, end)
      prefetch(entry_ids, place)
      _request(first, place)
      _request(second, place)
      place += step
      if start + step <= stop:
        for j in range(start, start + step):
          scores[entry_ids[j]] += scaled[popcount(first[j] ^ code0) + popcount(second[j] ^ code1)]
      else:
        for j in range(start, stop):
          scores[entry_ids[j]] += scaled[popcount(first[j] ^ code0) + popcount(second[j] ^ code1)]
      start += step


@njit
def _scan_96(
  offsets: Words,
  entry_ids: Ids,
  stored: Codes,
  words: Words,
  codes: Codes,
  weights: Floats,
  table: Floats,
  scores: Floats,
) -> None:
  """Scans codes of three columns."""
  first, second, third = stored[0], stored[1], stored[2]
  step = np.uint64(_STEP)
  scaled, weight = table.copy(), np.float32(1)
  ahead, place, end = _request_first(offsets, entry_ids, stored, words, _AHEAD_128)
  for i in range(words.size):
    if weights[i] != weight:
      weight = weights[i]
      _weigh(table, weight, scaled)
    code0, code1, code2 = codes[i, 0], codes[i, 1], codes[i, 2]
    start, stop = _bounds(offsets, words[i], entry_ids.size)
    while start < stop:
      ahead, place, end = _next_step(offsets, words, entry_ids.size, ahead, place, end)
      prefetch(entry_ids, place)
      _request(first, place)
      _request(second, place)
      _request(third, place)
      place += step
      if start + step <= stop:
        for j in range(start, start + step):
          distance = popcount(first[j] ^ code0) + popcount(second[j] ^ code1) + popcount(third[j] ^ code2)
          scores[entry_ids[j]] += scaled[distance]
      else:
        for j in range(start, stop):
          distance = popcount(first[j] ^ code0) + popcount(second[j] ^ code1) + popcount(third[j] ^ code2)
          scores[entry_ids[j]] += scaled[distance]
      start += step


@njit
def _scan_codes(
  offsets: Words,
  entry_ids: Ids,
  stored: Codes,
  words: Words,
  codes: Codes,
  weights: Floats,
  table: Floats,
  scores: Floats,
) -> None:
  """Scans codes of any number of columns."""
  step = np.uint64(_STEP)
  scaled, weight = table.copy(), np.float32(1)
  ahead, place, end = _request_first(offsets, entry_ids, stored, words, _AHEAD_MORE)
  for i in range(words.size):
    if weights[i] != weight:
      weight = weights[i]
      _weigh(table, weight, scaled)
    start, stop = _bounds(offsets, words[i], entry_ids.size)
    while start < stop:
      ahead, place, end = _next_step(offsets, words, entry_ids.size, ahead, place, end)
      prefetch(entry_ids, place)
      for c in range(stored.shape[0]):
        _request(stored[c], place)
      place += step
      for j in range(start, min(start + step, stop)):
        distance = np.uint64(0)
        for column in range(codes.shape[1]):
          distance += popcount(stored[column, j] ^ codes[i, column])
        scores[entry_ids[j]] += scaled[distance]
      start += step


@njit
def _scan_64_by_region(
  offsets: Words,
  entry_ids: Ids,
  stored: Codes,
  masks: Masks,
  words: Words,
  codes: Codes,
  weights: Floats,
  table: Floats,
  bits: Floats,
  scores: Floats,
) -> None:
  """Scans codes of one column with region masks."""
  column = stored[0]
  step = np.uint64(_STEP)
  scaled, weight = table.copy(), np.float32(1)
  ahead, place, end = _request_first(offsets, entry_ids, stored, words, _AHEAD_64)
  for i in range(words.size):
    if weights[i] != weight:
      weight = weights[i]
      _weigh(table, weight, scaled)
    code = codes[i, 0]
    start, stop = _bounds(offsets, words[i], min(entry_ids.size, masks.size))
    while start < stop:
      ahead, place, end = _next_step(offsets, words, entry_ids.size, ahead, place, end)
      prefetch(entry_ids, place)
      prefetch(masks, place)
      _request(column, place)
      place += step
      if start + step <= stop:
        for j in range(start, start + step):
          add_to_regions(scores, entry_ids[j], scaled[popcount(column[j] ^ code)], bits, masks[j])
      else:
        for j in range(start, stop):
          add_to_regions(scores, entry_ids[j], scaled[popcount(column[j] ^ code)], bits, masks[j])
      start += step


@njit
def _scan_128_by_region(
  offsets: Words,
  entry_ids: Ids,
  stored: Codes,
  masks: Masks,
  words: Words,
  codes: Codes,
  weights: Floats,
  table: Floats,
  bits: Floats,
  scores: Floats,
) -> None:
  """Scans codes of two columns with region masks."""
  first, second = stored[0], stored[1]
  step = np.uint64(_STEP)
  scaled, weight = table.copy(), np.float32(1)
  ahead, place, end = _request_first(offsets, entry_ids, stored, words, _AHEAD_128)
  for i in range(words.size):
    if weights[i] != weight:
      weight = weights[i]
      _weigh(table, weight, scaled)
    code0, code1 = codes[i, 0], codes[i, 1]
    start, stop = _bounds(offsets, words[i], min(entry_ids.size, masks.size))
    while start < stop:
      ahead, place, end = _next_step(offsets, words, entry_ids.size, ahead, place, end)
      prefetch(entry_ids, place)
      prefetch(masks, place)
      _request(first, place)
      _request(second, place)
      place += step
      if start + step <= stop:
        for j in range(start, start + step):
          similarity = scaled[popcount(first[j] ^ code0) + popcount(second[j] ^ code1)]
          add_to_regions(scores, entry_ids[j], similarity, bits, masks[j])
      else:
        for j in range(start, stop):
          similarity = scaled[popcount(first[j] ^ code0) + popcount(second[j] ^ code1)]
          add_to_regions(scores, entry_ids[j], similarity, bits, masks[j])
      start += step


@njit
def _scan_96_by_region(
  offsets: Words,
  entry_ids: Ids,
  stored: Codes,
  masks: Masks,
  words: Words,
  codes: Codes,
  weights: Floats,
  table: Floats,
  bits: Floats,
  scores: Floats,
) -> None:
  """Scans codes of three columns with region masks."""
  first, second, third = stored[0], stored[1], stored[2]
  step = np.uint64(_STEP)
  scaled, weight = table.copy(), np.float32(1)
  ahead, place, end = _request_first(offsets, entry_ids, stored, words, _AHEAD_128)
  for i in range(words.size):
    if weights[i] != weight:
      weight = weights[i]
      _weigh(table, weight, scaled)
    code0, code1, code2 = codes[i, 0], codes[i, 1], codes[i, 2]
    start, stop = _bounds(offsets, words[i], min(entry_ids.size, masks.size))
    while start < stop:
      ahead, place, end = _next_step(offsets, words, entry_ids.size, ahead, place, end)
      prefetch(entry_ids, place)
      prefetch(masks, place)
      _request(first, place)
      _request(second, place)
      _request(third, place)
      place += step
      if start + step <= stop:
        for j in range(start, start + step):
          distance = popcount(first[j] ^ code0) + popcount(second[j] ^ code1) + popcount(third[j] ^ code2)
          add_to_regions(scores, entry_ids[j], scaled[distance], bits, masks[j])
      else:
        for j in range(start, stop):
          distance = popcount(first[j] ^ code0) + popcount(second[j] ^ code1) + popcount(third[j] ^ code2)
          add_to_regions(scores, entry_ids[j], scaled[distance], bits, masks[j])
      start += step


@njit
def _scan_codes_by_region(
  offsets: Words,
  entry_ids: Ids,
  stored: Codes,
  masks: Masks,
  words: Words,
  codes: Codes,
  weights: Floats,
  table: Floats,
  bits: Floats,
  scores: Floats,
) -> None:
  """Scans codes of any number of columns with region masks."""
  step = np.uint64(_STEP)
  scaled, weight = table.copy(), np.float32(1)
  ahead, place, end = _request_first(offsets, entry_ids, stored, words, _AHEAD_MORE)
  for i in range(words.size):
    if weights[i] != weight:
      weight = weights[i]
      _weigh(table, weight, scaled)
    start, stop = _bounds(offsets, words[i], min(entry_ids.size, masks.size))
    while start < stop:
      ahead, place, end = _next_step(offsets, words, entry_ids.size, ahead, place, end)
      prefetch(entry_ids, place)
      prefetch(masks, place)
      for c in range(stored.shape[0]):
        _request(stored[c], place)
      place += step
      for j in range(start, min(start + step, stop)):
        distance = np.uint64(0)
        for column in range(codes.shape[1]):
          distance += popcount(stored[column, j] ^ codes[i, column])
        add_to_regions(scores, entry_ids[j], scaled[distance], bits, masks[j])
      start += step


# By the number of columns, of 64 or 32 bits.
_SCANS = {1: _scan_64, 2: _scan_128, 3: _scan_96}
_SCANS_BY_REGION = {1: _scan_64_by_region, 2: _scan_128_by_region, 3: _scan_96_by_region}


@njit(fastmath={'reassoc', 'contract'})
def _dot(a: Floats, b: Floats) -> np.float32:
  total = np.float32(0)
  for d in range(a.size):
    total += a[d] * b[d]
  return total


@njit
def _sigma(u: np.float32, identity: bool, alpha: np.float32, integer_power: int) -> np.float32:
  """Returns u itself, or sign(u) |u|^alpha."""
  if identity:
    return u
  if integer_power:
    similarity = u
    for _ in range(integer_power - 1):
      similarity *= abs(u)
    return similarity
  powered: np.float32 = np.float32(abs(u) ** alpha) * np.sign(u)
  return powered


@njit
def _scan_floats(
  offsets: Words,
  entry_ids: Ids,
  stored: Floats,
  words: Words,
  values: Floats,
  weights: Floats,
  identity: bool,
  alpha: np.float32,
  integer_power: int,
  tau: np.float32,
  scores: Floats,
) -> None:
  for i in range(words.size):
    start, stop = _bounds(offsets, words[i], entry_ids.size)
    for j in range(start, stop):
      u = _dot(values[i], stored[j])
      if not identity and not u > tau:
        continue
      scores[entry_ids[j]] += weights[i] * _sigma(u, identity, alpha, integer_power)


@njit
def _scan_floats_by_region(
  offsets: Words,
  entry_ids: Ids,
  stored: Floats,
  words: Words,
  values: Floats,
  weights: Floats,
  identity: bool,
  alpha: np.float32,
  integer_power: int,
  tau: np.float32,
  scores: Floats,
  masks: Masks,
  bits: Floats,
) -> None:
  for i in range(words.size):
    start, stop = _bounds(offsets, words[i], min(entry_ids.size, masks.size))
    for j in range(start, stop):
      u = _dot(values[i], stored[j])
      if not identity and not u > tau:
        continue
      similarity = weights[i] * _sigma(u, identity, alpha, integer_power)
      add_to_regions(scores, entry_ids[j], np.float32(similarity), bits, masks[j])


@njit
def _add_word_weights(
  offsets: Words, entry_ids: Ids, weights: npt.NDArray[np.float64], sums: npt.NDArray[np.float64]
) -> None:
  for word in range(weights.size):
    start, stop = _bounds(offsets, word, entry_ids.size)
    for j in range(start, stop):
      sums[entry_ids[j]] += weights[word]


# The same in NumPy -----------------------------------------------------------------------------------


def _lists(segment: Segment, words: Words) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
  """Returns starts and lengths int64 [W] of the posting lists of words."""
  starts = segment.offsets[words].astype(np.int64)
  stops = np.minimum(segment.offsets[words.astype(np.int64) + 1].astype(np.int64), segment.num_postings)
  return starts, np.maximum(stops - starts, 0)


def _scan_binary_numpy(
  segment: Segment, words: Words, codes: Codes, weights: Floats, table: Floats, scores: Floats
) -> None:
  starts, lengths = _lists(segment, words)
  stops, totals = starts + lengths, np.cumsum(lengths)
  first = 0
  while first < len(words):
    # As many lists as fit into the cache together: one at a time costs calls, all at once memory.
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
    ids = np.concatenate([segment.entry_ids[own] for own in lists]).astype(np.int64)
    if segment.masks is None:
      np.add.at(scores, ids, similarities)
    else:
      masks = np.concatenate([segment.masks[own] for own in lists])
      for region in range(MASKED_REGIONS):
        hits = np.flatnonzero(masks & (1 << region))
        np.add.at(scores.reshape(-1), MASKED_REGIONS * ids[hits] + region, similarities[hits])
    first = last


def _scan_float_numpy(
  segment: Segment,
  words: Words,
  values: Floats,
  weights: Floats,
  alpha: float | None,
  tau: float,
  scores: Floats,
) -> None:
  starts, lengths = _lists(segment, words)
  for i, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
    own = slice(start, start + length)
    # OpenBLAS now and then reports an invalid operation where all numbers are finite (numpy issue 24067).
    with np.errstate(invalid='ignore'):
      u = segment.values[own] @ values[i]
    if alpha is not None:
      u = np.where(u > tau, np.sign(u) * np.abs(u) ** np.float32(alpha), np.float32(0))
    _add(segment, own, weights[i] * u, scores)


def _add(segment: Segment, own: slice, similarities: Floats, scores: Floats) -> None:
  """Adds the similarities of the postings `own` of one word, each of another entry, to the scores."""
  if segment.masks is None:
    scores[segment.entry_ids[own]] += similarities
  else:
    scores[segment.entry_ids[own]] += similarities[:, None] * _BITS[segment.masks[own]]
