"""A segment of global descriptors: VLAD of a single visual word, as the rows of a matrix.

Where there is one visual word, every entry has it, and ids, offsets and counts of postings say nothing. The
values of entry e are row e; an entry without descriptor is a row of zeros. Values are stored in 2 bytes
(FLOAT16), or in 1 byte with a factor for each row (INT8):

    v_d = s q_d,   s = max |v_d| / 127,   q_d = round(v_d / s)

A score is the product of the query with the stored values, in float32.
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from delf_d2r.index.segments import Layout, Postings
from delf_d2r.index.sorting import Allocate, freeze_arrays, in_memory
from delf_d2r.kernels.compiled import HAVE_NUMBA, njit

# Rows that are converted and multiplied at a time, so that they stay in the cache.
BLOCK_ROWS = 1024


@dataclasses.dataclass(frozen=True)
class DenseSegment:
  """The descriptors of `n` entries. It can be read like a Segment with one visual word.

  Attributes:
    values: float16 [n, D], or int8 [n, D].
    scales: float32 [n], the factors of int8 values, 0 for an entry without descriptor; None for float16.
  """

  values: npt.NDArray[Any]
  scales: npt.NDArray[np.float32] | None = None

  @property
  def num_entries(self) -> int:
    return len(self.values)

  @property
  def num_postings(self) -> int:
    return int(np.count_nonzero(self.present))

  @functools.cached_property
  def present(self) -> npt.NDArray[np.bool_]:
    """Whether each entry has a descriptor: bool [n]. Reads all values, unless they have factors."""
    found = np.zeros(len(self.values), bool)
    for rows in _blocks(len(self.values)):
      found[rows] = self.values[rows].any(axis=1) if self.scales is None else self.scales[rows] != 0
    return found

  @property
  def offsets(self) -> npt.NDArray[np.uint32]:
    """The bounds of the postings of the one visual word: uint32 [2]."""
    return np.array([0, self.num_postings], np.uint32)

  @property
  def entry_ids(self) -> npt.NDArray[np.uint16]:
    """The entries that have a descriptor: uint16 [P]."""
    return np.flatnonzero(self.present).astype(np.uint16)

  @property
  def word_counts(self) -> npt.NDArray[np.uint32]:
    """The number of visual words of each entry, 0 or 1: uint32 [n]."""
    return self.present.astype(np.uint32)

  def count_words(self, entries: npt.NDArray[np.integer]) -> int:
    """Returns how many of some entries have a descriptor."""
    found = self.values[entries].any(axis=1) if self.scales is None else self.scales[entries] != 0
    return int(np.count_nonzero(found))

  @property
  def masks(self) -> None:
    """None: VLAD has no region masks."""

  @property
  def region_counts(self) -> None:
    """None: VLAD has no region masks."""

  @property
  def arrays(self) -> dict[str, npt.NDArray[Any]]:
    """The arrays to save, by name."""
    arrays: dict[str, npt.NDArray[Any]] = {'values': self.values}
    return arrays if self.scales is None else arrays | {'scales': self.scales}

  @property
  def nbytes(self) -> int:
    return sum(array.nbytes for array in self.arrays.values())

  @property
  def is_finite(self) -> bool:
    """Whether all values are finite. Reads all of them."""
    if self.scales is not None:
      return bool(np.isfinite(self.scales).all() and (self.scales >= 0).all())
    return all(bool(np.isfinite(self.values[rows]).all()) for rows in _blocks(len(self.values)))

  def load(self) -> 'DenseSegment':
    """Returns this segment, the counterpart of `StoredSegment.load`."""
    return self

  def rows(self, entries: slice | npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
    """Returns the stored values of some entries: float32 [m, D]."""
    values = self.values[entries].astype(np.float32)
    return values if self.scales is None else values * self.scales[entries, None]

  def add_products(
    self,
    query: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float32],
    *,
    compiled: bool = HAVE_NUMBA,
  ) -> None:
    """Adds the product of the matrix of values and a query to the scores of all entries.

    Args:
      query: float32 [D].
      scores: float32 [at least n], changed in place.
      compiled: take the path that numba compiles: 3 to 10 times faster than to convert the values first. Both
        add the same products, in another order.
    """
    if not compiled:
      for rows in _blocks(len(self.values)):
        # OpenBLAS now and then reports an invalid operation where all numbers are finite (numpy issue 24067).
        with np.errstate(invalid='ignore'):
          products = self.values[rows].astype(np.float32) @ query
        scores[rows] += products if self.scales is None else products * self.scales[rows]
    elif self.scales is None:
      _add_half_products(self.values.view(np.uint16), _half_values(), query, scores)
    else:
      _add_int8_products(self.values, self.scales, query, scores)

  def postings(self, layout: Layout, new_ids: npt.NDArray[np.int32] | None = None) -> Iterator[Postings]:
    """Yields all postings in blocks, by entry; see `Segment.postings`."""
    for start in range(0, self.num_entries, layout.block_postings):
      block = slice(start, min(start + layout.block_postings, self.num_entries))
      entries = block.start + np.flatnonzero(self.present[block])
      ids = entries if new_ids is None else new_ids[entries]
      entries, ids = entries[ids >= 0], ids[ids >= 0]
      rows = np.zeros((len(entries), layout.columns), layout.dtype)
      if self.scales is None:
        rows[:] = self.values[entries]
      else:
        rows[:, : layout.dimensions] = self.values[entries].view(np.uint8)
        rows[:, layout.dimensions :].view('<f4')[:, 0] = self.scales[entries]
      yield Postings(np.zeros(len(entries), np.uint32), ids.astype(np.uint16), rows)


def place_rows(
  blocks: Iterable[Postings], entries: int, layout: Layout, *, allocate: Allocate = in_memory
) -> DenseSegment:
  """Returns the segment of postings; entries without any are rows of zeros.

  Args:
    blocks: the postings.
    entries: the number of entries.
    layout: sizes of the index.
    allocate: makes the array of values, which may be too large for memory.
  """
  arrays = layout.arrays(entries, 0)
  values = allocate('values', *arrays['values'])
  values[:] = 0
  scales = np.zeros(entries, '<f4') if 'scales' in arrays else None
  for block in blocks:
    values[block.entry_ids] = block.rows[:, : layout.dimensions].view(values.dtype)
    if scales is not None:
      scales[block.entry_ids] = np.ascontiguousarray(block.rows[:, layout.dimensions :]).view('<f4')[:, 0]
  segment = DenseSegment(values, scales)
  freeze_arrays(segment.arrays)
  return segment


@functools.cache
def _half_values() -> npt.NDArray[np.float32]:
  """Returns the float32 value of each float16 by its bits: float32 [65536]."""
  return np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)


@njit(fastmath={'reassoc', 'contract'})
def _add_half_products(
  bits: npt.NDArray[np.uint16],
  values: npt.NDArray[np.float32],
  query: npt.NDArray[np.float32],
  scores: npt.NDArray[np.float32],
) -> None:
  for entry in range(bits.shape[0]):
    total = np.float32(0)
    for d in range(bits.shape[1]):
      total += values[bits[entry, d]] * query[d]
    scores[entry] += total


@njit(fastmath={'reassoc', 'contract'})
def _add_int8_products(
  values: npt.NDArray[np.int8],
  scales: npt.NDArray[np.float32],
  query: npt.NDArray[np.float32],
  scores: npt.NDArray[np.float32],
) -> None:
  for entry in range(values.shape[0]):
    total = np.float32(0)
    for d in range(values.shape[1]):
      total += np.float32(values[entry, d]) * query[d]
    scores[entry] += scales[entry] * total


def _blocks(entries: int) -> Iterator[slice]:
  for start in range(0, entries, BLOCK_ROWS):
    yield slice(start, min(start + BLOCK_ROWS, entries))
