"""Nearest neighbours among the descriptors whose binary codes are nearest: a fraction of all distances.

A code has a bit for each component of a descriptor: whether it exceeds the mean of both images. Of each
descriptor, the few of the other image at the smallest Hamming distances are candidates, and only these are
compared as they are.

The codes of an index do not serve: they are of visual words, pooled over the features that share one, so they
do not say which feature is near. Codes of features take less time to make than to read.
"""

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from delf_d2r.geometry.distances import Floats, squared_distance, squared_distances, whole_lanes
from delf_d2r.kernels.compiled import HAVE_NUMBA, njit

# Candidates of each descriptor: with so many, real views have no fewer right matches than with all.
CANDIDATES = 16

# The largest share of differing bits of a candidate. Of right matches of RootSIFT and DELF between photos of
# landmarks, no code differed in more than 45 of 128 bits.
_FARTHEST = 3 / 8

# Groups of codes, most of which have none that is near enough to be looked at.
_GROUPS = 256
# Hamming distances that NumPy computes at a time.
_DISTANCES_AT_A_TIME = 2**21

Rows = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint64]
Distances = npt.NDArray[np.unsignedinteger[Any]]
Found = tuple[Rows, Floats, Floats, Floats]


@dataclasses.dataclass(frozen=True)
class Neighbours:
  """The nearest of each of N descriptors of a query.

  Attributes:
    nearest: int64 [N], positions among the descriptors of the index image; any where `best` is infinite.
    best, second: float32 [N], squared distances of the two nearest; infinite where there are none.
    best_of_nearest: float32 [N], the least squared distance of any of the query to the nearest.
  """

  nearest: Rows
  best: Floats
  second: Floats
  best_of_nearest: Floats


def neighbours(
  query: Floats,
  query_rows: Rows,
  index: Floats,
  index_rows: Rows,
  *,
  ratio: float = np.inf,
  candidates: int = CANDIDATES,
  compiled: bool = HAVE_NUMBA,
) -> Neighbours:
  """Returns the neighbours of some descriptors of a query among some of an index image.

  Args:
    query, index: float32 [., D].
    query_rows, index_rows: int64 [N] and [M], N, M >= 1, the descriptors to compare, which are finite.
    ratio: `best_of_nearest` is infinite, which saves time, unless the second nearest is farther than the
      nearest by more than the factor 1 / ratio. 0: everywhere.
    candidates: the number of descriptors that each is compared with, there and back.
    compiled: take the path that numba compiles; both return the same bytes.
  """
  add_up, encode, search = _COMPILED if compiled else _NUMPY
  limits = candidates, math.floor(_FARTHEST * query.shape[1])
  query, index = map(whole_lanes, (query, index))
  dimensions = query.shape[1]
  centre = np.zeros(dimensions, np.float32)
  add_up(query, query_rows, centre)
  add_up(index, index_rows, centre)
  centre /= np.float32(len(query_rows) + len(index_rows))
  codes, index_codes = (
    np.zeros((-(-dimensions // 64), len(rows)), np.uint64) for rows in (query_rows, index_rows)
  )
  encode(query, query_rows, centre, codes)
  encode(index, index_rows, centre, index_codes)
  nearest, best, second, best_of_index = search(
    codes, query, query_rows, index_codes, index, index_rows, *limits
  )
  # Back, from the nearest.
  asked = np.isfinite(best)
  if ratio < 1:
    with np.errstate(invalid='ignore'):  # 0 times infinity, of which nothing is less
      asked &= best < ratio**2 * second
  partners = np.unique(nearest[asked])
  partner_codes = np.ascontiguousarray(index_codes[:, partners])
  back = search(partner_codes, index, index_rows[partners], codes, query, query_rows, *limits)
  best_of_index[partners] = np.minimum(best_of_index[partners], back[1])
  return Neighbours(nearest, best, second, np.where(asked, best_of_index[nearest], np.float32(np.inf)))


# Compiled loops --------------------------------------------------------------------------------------


@njit
def _add_up(descriptors: Floats, rows: Rows, total: Floats) -> None:
  """Adds rows to `total`, float32 [D], in their order."""
  for row in rows:
    for d in range(total.size):
      total[d] += descriptors[row, d]


@njit
def _encode(descriptors: Floats, rows: Rows, centre: Floats, codes: Codes) -> None:
  """Sets bit d % 64 of `codes[d // 64]`, zeros uint64 [ceil(D / 64), R], where d is above the centre."""
  for r in range(rows.size):
    own = descriptors[rows[r]]
    for column in range(codes.shape[0]):
      start = 64 * column
      word = np.uint64(0)
      for bit in range(min(64, centre.size - start)):
        word |= np.uint64(own[start + bit] > centre[start + bit]) << np.uint64(bit)
      codes[column, r] = word


@njit
def _popcount(bits: np.uint64) -> np.uint64:
  """Returns the number of bits that are 1; compilers make one instruction of these steps."""
  bits -= (bits >> np.uint64(1)) & np.uint64(0x5555555555555555)
  bits = (bits & np.uint64(0x3333333333333333)) + ((bits >> np.uint64(2)) & np.uint64(0x3333333333333333))
  bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
  return (bits * np.uint64(0x0101010101010101)) >> np.uint64(56)


@njit
def _distances_of_one(column: Codes, code: np.uint64, distances: Distances) -> None:
  for j in range(distances.size):
    distances[j] = _popcount(column[j] ^ code)


@njit
def _distances_of_two(
  first: Codes,
  second: Codes,
  code: np.uint64,
  other: np.uint64,
  distances: Distances,
) -> None:
  for j in range(distances.size):
    distances[j] = _popcount(first[j] ^ code) + _popcount(second[j] ^ other)


@njit
def _add_distances(column: Codes, code: np.uint64, distances: Distances) -> None:
  for j in range(distances.size):
    distances[j] += _popcount(column[j] ^ code)


@njit
def _least(distances: Distances) -> Any:
  least = distances[0]
  for distance in distances:
    least = min(least, distance)
  return least


@njit
def _lower(minima: Distances, distances: Distances) -> None:
  for g in range(distances.size):
    minima[g] = min(minima[g], distances[g])


@njit
def _count_up_to(limit: int, distances: Distances) -> int:
  count = 0
  for distance in distances:
    count += distance <= limit
  return count


@njit
def _limit(minima: Distances, wanted: int, largest: int) -> int:
  """Returns the least distance that `wanted` of the minima do not exceed; none exceeds `largest`."""
  low, high = 0, largest
  while low < high:
    middle = (low + high) // 2
    if _count_up_to(middle, minima) >= wanted:
      high = middle
    else:
      low = middle + 1
  return low


@njit
def _search_loop(
  codes: Codes,
  descriptors: Floats,
  rows: Rows,
  other_codes: Codes,
  others: Floats,
  other_rows: Rows,
  candidates: int,
  farthest: int,
  distances: Distances,
  minima: Distances,
  nearest: Rows,
  best: Floats,
  second: Floats,
  best_of_other: Floats,
) -> None:
  groups, infinity, columns = minima.size, np.float32(np.inf), codes.shape[0]
  for i in range(rows.size):
    if columns == 2:
      _distances_of_two(other_codes[0], other_codes[1], codes[0, i], codes[1, i], distances)
    else:
      _distances_of_one(other_codes[0], codes[0, i], distances)
      for column in range(1, columns):
        _add_distances(other_codes[column], codes[column, i], distances)
    minima[:] = distances[:groups]
    for start in range(groups, distances.size, groups):
      _lower(minima, distances[start : start + groups])
    chosen, least, next_least = 0, infinity, infinity
    nearest[i], best[i], second[i] = chosen, least, next_least
    if _least(minima) > farthest:
      continue
    limit = _limit(minima, candidates, 64 * columns)
    for g in range(groups):
      if minima[g] > limit:
        continue
      for j in range(g, distances.size, groups):
        if distances[j] > limit:
          continue
        squared = squared_distance(descriptors, rows[i], others, other_rows[j])
        best_of_other[j] = min(best_of_other[j], squared)
        if squared < least or (squared == least and j < chosen):
          next_least, least, chosen = least, squared, j
        else:
          next_least = min(next_least, squared)
    nearest[i], best[i], second[i] = chosen, least, next_least


def _search(
  codes: Codes,
  descriptors: Floats,
  rows: Rows,
  other_codes: Codes,
  others: Floats,
  other_rows: Rows,
  candidates: int,
  farthest: int,
) -> Found:
  """Returns the nearest of the candidates of each row, the first of equally near ones.

  Positions among the others are dealt into `_GROUPS` groups, j into group j % _GROUPS. Candidates are all at
  a Hamming distance that is the least one in some of the groups, as many as are wanted. Vectors of
  instructions find it, which a list of the nearest would not let them. Without any within `farthest`, there
  are no candidates.

  Returns:
    int64 [R] nearest, float32 [R] its squared distance, [R] that of the next, and [M] the least squared
    distance found of each of the others.
  """
  count = len(other_rows)
  groups = min(_GROUPS, count)
  # A byte holds all distances of 128 bits; two bytes take twice as long.
  dtype: type[np.unsignedinteger[Any]] = np.uint8 if 64 * len(codes) < 256 else np.uint16
  scratch, minima = np.empty(count, dtype), np.empty(groups, dtype)
  found = _nothing_found(len(rows), count)
  _search_loop(
    codes,
    descriptors,
    rows,
    other_codes,
    others,
    other_rows,
    min(candidates, groups),
    farthest,
    scratch,
    minima,
    *found,
  )
  return found


def _nothing_found(count: int, others: int) -> Found:
  infinite = np.full((3, max(count, others)), np.inf, np.float32)
  return np.zeros(count, np.int64), infinite[0, :count], infinite[1, :count], infinite[2, :others]


# The same in NumPy -----------------------------------------------------------------------------------


def _add_up_numpy(descriptors: Floats, rows: Rows, total: Floats) -> None:
  # A sum along the first axis adds row after row.
  total[:] = np.add.reduce(np.concatenate([total[None], descriptors[rows]]), axis=0)


def _encode_numpy(descriptors: Floats, rows: Rows, centre: Floats, codes: Codes) -> None:
  bits = np.zeros((len(rows), 64 * len(codes)), bool)
  bits[:, : len(centre)] = descriptors[rows] > centre
  codes[:] = np.packbits(bits, axis=1, bitorder='little').view('<u8').T


def _search_numpy(
  codes: Codes,
  descriptors: Floats,
  rows: Rows,
  other_codes: Codes,
  others: Floats,
  other_rows: Rows,
  candidates: int,
  farthest: int,
) -> Found:
  """Does what `_search` does, piece by piece."""
  count = len(other_rows)
  groups = min(_GROUPS, count)
  found = _nothing_found(len(rows), count)
  nearest, best, second, best_of_other = found
  padding = np.full((1, -count % groups), 64 * len(codes) + 1)
  for start in range(0, len(rows), step := max(_DISTANCES_AT_A_TIME // count, 1)):
    own = codes[:, start : start + step, None]
    distances = np.bitwise_count(own ^ other_codes[:, None]).sum(axis=0, dtype=np.int64)
    padded = np.concatenate([distances, np.repeat(padding, len(distances), axis=0)], axis=1)
    minima = padded.reshape(len(distances), -1, groups).min(axis=1)
    wanted = min(candidates, groups) - 1
    limits = np.partition(minima, wanted, axis=1)[:, wanted]
    limits[minima.min(axis=1) > farthest] = -1
    i, j = np.nonzero(distances <= limits[:, None])
    i += start
    squared = squared_distances(descriptors[rows[i]], others[other_rows[j]])
    np.minimum.at(best_of_other, j, squared)
    order = np.lexsort((j, squared, i))
    firsts = order[np.flatnonzero(np.diff(i[order], prepend=-1))]
    nearest[i[firsts]], best[i[firsts]] = j[firsts], squared[firsts]
    squared[firsts] = np.inf
    np.minimum.at(second, i, squared)
  return found


_COMPILED = (_add_up, _encode, _search)
_NUMPY = (_add_up_numpy, _encode_numpy, _search_numpy)
