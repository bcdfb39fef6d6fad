"""One segment of the index: the postings of up to 65,536 entries, sorted by visual word.

An entry is one indexed descriptor: an image, or one region of an image in regional search. Entries are
numbered from 0 within their segment, so a posting takes two bytes for its id and those of its code.
sorting.py makes segments of postings. An index with region masks has one byte more in each posting and, for
each entry, the number of words of each region.
"""

import dataclasses
import enum
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from delf_d2r.kernels.aggregation import MASKED_REGIONS

SEGMENT_ENTRIES = 1 << 16
BLOCK_BYTES = 1 << 24  # postings are moved in blocks of about this size


class ValueType(enum.Enum):
  """How an index stores the values of VLAD; the value is the dtype."""

  FLOAT32 = '<f4'
  FLOAT16 = '<f2'  # of one visual word alone; see dense_segment.py
  INT8 = '|i1'  # the same, with a factor for each entry


@dataclasses.dataclass(frozen=True)
class Layout:
  """The sizes that all arrays share: K words, D dimensions, binary or float values, with masks or not.

  Values of another type than FLOAT32 are those of VLAD of one visual word; other words raise ValueError.

  Descriptors that are alike in all sizes may be of different codebooks: `codebook` is the digest of theirs,
  or '' where the index does not name it.

  Codes of 1 to 32 and of 65 to 96 bits are stored in columns of 32 bits, others in columns of 64. `is_wide`
  says that the former take columns of 64 bits as well, as in an index of an earlier release.
  """

  num_words: int
  dimensions: int
  is_binary: bool
  has_masks: bool = False
  value_type: ValueType = ValueType.FLOAT32
  codebook: str = ''
  is_wide: bool = False

  def __post_init__(self) -> None:
    if self.is_wide and not (self.is_binary and fits_narrow_columns(self.dimensions)):
      raise ValueError(f'is_wide: codes of {self.dimensions} bits take columns of 64 bits anyway')
    if self.is_dense and (self.num_words != 1 or self.is_binary or self.has_masks):
      raise ValueError(
        f'value_type: {self.value_type.name} is for VLAD of one visual word, found {self.num_words} words,'
        f' {"binary" if self.is_binary else "float"} values, {"with" if self.has_masks else "without"} masks;'
        ' store them as FLOAT32'
      )

  @property
  def is_dense(self) -> bool:
    """Whether segments are matrices with a row for each entry, instead of lists of postings."""
    return self.value_type is not ValueType.FLOAT32

  @property
  def columns(self) -> int:
    """The number of columns of the values of a posting.

    Words of 64 or 32 bits of a code; float components; or bytes, the last four of which are the factor of
    INT8.
    """
    if self.value_type is ValueType.INT8:
      return self.dimensions + 4
    return -(-self.dimensions // self.column_bits) if self.is_binary else self.dimensions

  @property
  def column_bits(self) -> int:
    """The bits of a column of codes."""
    return 32 if fits_narrow_columns(self.dimensions) and not self.is_wide else 64

  @property
  def dtype(self) -> np.dtype[Any]:
    """The dtype of the values of a posting."""
    if self.value_type is ValueType.INT8:
      return np.dtype('|u1')
    codes = '<u8' if self.column_bits == 64 else '<u4'
    return np.dtype(codes if self.is_binary else self.value_type.value)

  @property
  def posting_bytes(self) -> int:
    """The bytes of one posting in a segment: the id of its entry, its values and its region mask."""
    return 2 + self.columns * self.dtype.itemsize + self.has_masks

  @property
  def block_postings(self) -> int:
    """The number of postings of a block."""
    return max(1, BLOCK_BYTES // self.posting_bytes)

  def values_shape(self, postings: int) -> tuple[int, int]:
    """Returns the shape of the values: codes by columns, float values by postings.

    To scan contiguous columns is 1.15 times faster than to scan codes side by side, and the NumPy path
    needs columns anyway.
    """
    return (self.columns, postings) if self.is_binary else (postings, self.columns)

  def arrays(self, entries: int, postings: int) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Returns names, dtypes and shapes of the arrays of a segment."""
    if self.is_dense:
      shape = (entries, self.dimensions)
      dense: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
        'values': (np.dtype(self.value_type.value), shape)
      }
      has_scales = self.value_type is ValueType.INT8
      return dense | ({'scales': (np.dtype('<f4'), (entries,))} if has_scales else {})
    arrays: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
      'offsets': (np.dtype('<u4'), (self.num_words + 1,)),
      'entry_ids': (np.dtype('<u2'), (postings,)),
      'values': (self.dtype, self.values_shape(postings)),
      'word_counts': (np.dtype('<u4'), (entries,)),
    }
    if self.has_masks:
      arrays['masks'] = (np.dtype('|u1'), (postings,))
      arrays['region_counts'] = (np.dtype('<u4'), (entries, MASKED_REGIONS))
    return arrays

  def pack(self, values: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Returns the values of several `AggregatedDescriptor`s as rows [n, columns], padding bits 0.

    Raises:
      ValueError: a value is too large for FLOAT16.
    """
    if self.is_dense:
      return _compact(np.concatenate(values), self.value_type)
    rows = np.empty((sum(map(len, values)), self.columns), self.dtype)
    target: npt.NDArray[Any] = rows.view(np.uint8) if self.is_binary else rows
    used = values[0].shape[1]  # bytes or components
    np.concatenate(values, out=target[:, :used])
    target[:, used:] = 0
    return rows

  def repack(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns rows of postings [n, columns] whose codes may be in columns of another width."""
    if not self.is_binary or rows.dtype == self.dtype:
      return np.ascontiguousarray(rows)
    used = -(-self.dimensions // 8)
    return self.pack([np.ascontiguousarray(rows).view(np.uint8)[:, :used]])


def fits_narrow_columns(bits: int) -> bool:
  """Returns whether codes take less space in columns of 32 bits, and have at most three of them."""
  return -(-bits // 32) in (1, 3)


def _compact(values: npt.NDArray[np.float32], value_type: ValueType) -> npt.NDArray[Any]:
  """Returns values float32 [n, D] as rows of postings.

  FLOAT16: float16 [n, D]. INT8: uint8 [n, D + 4], round(v / s) of each value and the 4 bytes of s, with
  s = max |v| / 127 of the row in float32.

  Raises:
    ValueError: a value is too large for FLOAT16.
  """
  if value_type is ValueType.FLOAT16:
    with np.errstate(over='ignore'):
      halves: npt.NDArray[Any] = values.astype('<f2')
    if not np.isfinite(halves).all():
      raise ValueError(
        f'expected values of at most {np.finfo(np.float16).max:g} for FLOAT16, found'
        f' {np.abs(values).max():g}; normalise the descriptors, or store them as FLOAT32'
      )
    return halves
  scales = (np.abs(values).max(axis=1, initial=0) / np.float32(127)).astype('<f4')
  divisors = np.where(scales > 0, scales, np.float32(1))
  rounded = np.clip(np.rint(values / divisors[:, None]), -127, 127).astype(np.int8)
  return np.concatenate([rounded.view(np.uint8), scales.view(np.uint8).reshape(-1, 4)], axis=1)


@dataclasses.dataclass(frozen=True)
class Postings:
  """Postings in any order, for sorting.

  Attributes:
    words: uint32 [n].
    entry_ids: uint16 [n].
    rows: [n, columns], values as of `Layout.pack`.
    masks: uint8 [n], the regions of the entry that have the word; None in an index without masks.
  """

  words: npt.NDArray[np.uint32]
  entry_ids: npt.NDArray[np.uint16]
  rows: npt.NDArray[Any]
  masks: npt.NDArray[np.uint8] | None = None


@dataclasses.dataclass(frozen=True)
class Segment:
  """Postings of `n` entries sorted by word, then by entry.

  Attributes:
    offsets: uint32 [K + 1]; word w owns postings `offsets[w]:offsets[w + 1]`.
    entry_ids: uint16 [P], ascending within a word.
    values: codes, uint64 [ceil(D / 64), P] or uint32 [ceil(D / 32), P], or float32 [P, D].
    word_counts: uint32 [n], the number of words W of each entry.
    masks: uint8 [P], bit r is 1 if region r of the entry has the word; None in an index without masks.
    region_counts: uint32 [n, 8], the number of words of each region; None in an index without masks.
  """

  offsets: npt.NDArray[np.uint32]
  entry_ids: npt.NDArray[np.uint16]
  values: npt.NDArray[Any]
  word_counts: npt.NDArray[np.uint32]
  masks: npt.NDArray[np.uint8] | None = None
  region_counts: npt.NDArray[np.uint32] | None = None

  @property
  def num_entries(self) -> int:
    return len(self.word_counts)

  @property
  def num_postings(self) -> int:
    return len(self.entry_ids)

  @property
  def arrays(self) -> dict[str, npt.NDArray[Any]]:
    """The arrays to save, by name."""
    arrays = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
    return {name: array for name, array in arrays.items() if array is not None}

  @property
  def nbytes(self) -> int:
    return sum(array.nbytes for array in self.arrays.values())

  def count_words(self, entries: npt.NDArray[np.integer]) -> int:
    """Returns the number of postings of some entries."""
    return int(self.word_counts[entries].sum(dtype=np.int64))

  def load(self) -> 'Segment':
    """Returns this segment, the counterpart of `StoredSegment.load`."""
    return self

  def rows(self, entries: slice) -> npt.NDArray[np.float32]:
    """Returns the values of some entries of an index of one visual word: float32 [m, D], or zeros.

    Args:
      entries: without a step.
    """
    found = np.zeros((entries.stop - entries.start, self.values.shape[1]), np.float32)
    first, last = np.searchsorted(self.entry_ids, (entries.start, entries.stop))
    found[self.entry_ids[first:last].astype(np.int64) - entries.start] = self.values[first:last]
    return found

  def postings(self, layout: Layout, new_ids: npt.NDArray[np.int32] | None = None) -> Iterator[Postings]:
    """Yields all postings in blocks, by word and entry.

    Args:
      layout: sizes of the index that the postings are for.
      new_ids: int32 [65536], the id that each entry gets, -1 for an entry to leave out; None keeps all ids.
    """
    rows = self.values.T if layout.is_binary else self.values
    offsets = self.offsets.astype(np.int64)
    all_words = np.arange(layout.num_words, dtype=np.uint32)
    for start in range(0, self.num_postings, layout.block_postings):
      block = slice(start, min(start + layout.block_postings, self.num_postings))
      bounds = np.clip(offsets, block.start, block.stop)
      words = np.repeat(all_words, bounds[1:] - bounds[:-1])
      ids = self.entry_ids[block]
      masks = None if self.masks is None else self.masks[block]
      if new_ids is None:
        yield Postings(words, ids, layout.repack(rows[block]), masks)
      else:
        renumbered = new_ids[ids]
        kept = renumbered >= 0
        yield Postings(
          words[kept],
          renumbered[kept].astype(np.uint16),
          layout.repack(rows[block][kept]),
          None if masks is None else masks[kept],
        )
