"""What the index knows of its images: their names, and which entries are theirs.

Names are two arrays, so that a million of them are opened without being read.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

import numpy as np

# File names that are not UTF-8 come from the file system as surrogates; they go back as they came.
_ENCODING = {'encoding': 'utf-8', 'errors': 'surrogateescape'}


class NameTable(Sequence):
  """An immutable sequence of names, decoded when asked for.

  Attributes:
    offsets: uint64 [M + 1]; name m is `utf8[offsets[m]:offsets[m + 1]]`.
    utf8: uint8 [bytes].
  """

  def __init__(self, offsets: np.ndarray, utf8: np.ndarray):
    self.offsets = offsets
    self.utf8 = utf8

  @classmethod
  def from_names(cls, names: Iterable[str]) -> 'NameTable':
    encoded = [name.encode(**_ENCODING) for name in names]
    offsets = np.zeros(len(encoded) + 1, '<u8')
    np.cumsum([len(name) for name in encoded], out=offsets[1:])
    return cls(offsets, np.frombuffer(b''.join(encoded), np.uint8))

  def __len__(self) -> int:
    return len(self.offsets) - 1

  def __getitem__(self, item):
    if isinstance(item, slice):
      return [self[m] for m in range(*item.indices(len(self)))]
    m = range(len(self))[item]
    return self.utf8[int(self.offsets[m]) : int(self.offsets[m + 1])].tobytes().decode(**_ENCODING)

  def __iter__(self):
    utf8, bounds = self.utf8.tobytes(), self.offsets.tolist()
    for start, stop in itertools.pairwise(bounds):
      yield utf8[start:stop].decode(**_ENCODING)

  def __add__(self, other: 'NameTable') -> 'NameTable':
    return NameTable(_chain(self.offsets, other.offsets), np.concatenate([self.utf8, other.utf8]))

  def __repr__(self) -> str:
    return f'NameTable({len(self)} names)'

  @property
  def nbytes(self) -> int:
    return self.offsets.nbytes + self.utf8.nbytes


@dataclasses.dataclass(frozen=True)
class ImageTable:
  """Images and their entries.

  Attributes:
    names: of the M images, distinct.
    entry_offsets: uint64 [M + 1], image m owns entries `entry_offsets[m]:entry_offsets[m + 1]`; None
      where entry e is image e.
    entry_regions: int32 [E], the region that an entry describes; None likewise.
  """

  names: NameTable
  entry_offsets: np.ndarray | None = None
  entry_regions: np.ndarray | None = None

  @property
  def is_regional(self) -> bool:
    return self.entry_offsets is not None

  @property
  def num_entries(self) -> int:
    return len(self.names) if self.entry_regions is None else len(self.entry_regions)

  @property
  def arrays(self) -> dict[str, np.ndarray]:
    """What is saved, by name."""
    arrays = {'names_offsets': self.names.offsets, 'names_utf8': self.names.utf8}
    if self.is_regional:
      arrays |= {'entry_offsets': self.entry_offsets, 'entry_regions': self.entry_regions}
    return arrays

  @property
  def nbytes(self) -> int:
    return sum(array.nbytes for array in self.arrays.values())

  @staticmethod
  def array_types(
    images: int, names_bytes: int, entries: int, is_regional: bool
  ) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Names, dtypes and shapes of `arrays`."""
    types = {
      'names_offsets': (np.dtype('<u8'), (images + 1,)),
      'names_utf8': (np.dtype('|u1'), (names_bytes,)),
    }
    if is_regional:
      types |= {
        'entry_offsets': (np.dtype('<u8'), (images + 1,)),
        'entry_regions': (np.dtype('<i4'), (entries,)),
      }
    return types

  @classmethod
  def from_arrays(cls, arrays: dict[str, np.ndarray]) -> 'ImageTable':
    names = NameTable(arrays['names_offsets'], arrays['names_utf8'])
    return cls(names, arrays.get('entry_offsets'), arrays.get('entry_regions'))

  @classmethod
  def empty(cls, *, is_regional: bool) -> 'ImageTable':
    return cls.from_entries([], [] if is_regional else None)

  @classmethod
  def from_entries(
    cls,
    names: Sequence[str],
    entry_images: Sequence[int] | None = None,
    entry_regions: Sequence[int] | None = None,
  ) -> 'ImageTable':
    """The table of images whose entries belong to `entry_images`; see `InvertedIndex.build`.

    Raises:
      ValueError: entries are out of order or of no image.
    """
    table = NameTable.from_names(names)
    if entry_images is None:
      if entry_regions is not None:
        raise ValueError('entry_regions need entry_images, which say whose regions they are')
      return cls(table)
    owners = np.asarray(entry_images, np.int64).reshape(-1)
    if len(owners) and (owners[0] < 0 or owners[-1] >= len(names) or np.any(owners[1:] < owners[:-1])):
      raise ValueError(
        f'entry_images: expected ascending images below {len(names)}, found {owners.min()} to'
        f' {owners.max()} with {int((owners[1:] < owners[:-1]).sum())} descents;'
        ' give the entries in the order of the images'
      )
    offsets = np.searchsorted(owners, np.arange(len(names) + 1)).astype('<u8')
    if entry_regions is None:
      regions = np.arange(len(owners)) - offsets[owners].astype(np.int64)
    else:
      regions = np.asarray(entry_regions)
      if regions.shape != owners.shape:
        raise ValueError(f'entry_regions: expected {len(owners)}, one for each entry, found {regions.shape}')
    return cls(table, offsets, regions.astype('<i4'))

  def __add__(self, other: 'ImageTable') -> 'ImageTable':
    """The images of both, `other`'s after these; both regional or neither."""
    names = self.names + other.names
    if not self.is_regional:
      return ImageTable(names)
    return ImageTable(
      names,
      _chain(self.entry_offsets, other.entry_offsets),
      np.concatenate([self.entry_regions, other.entry_regions]),
    )

  def kept_entries(self, kept: np.ndarray) -> np.ndarray:
    """Bool [E]: which entries belong to images where `kept`, bool [M], is true."""
    return np.repeat(kept, np.diff(self.entry_offsets.astype(np.int64))) if self.is_regional else kept

  def keep(self, kept: np.ndarray) -> 'ImageTable':
    """The images where `kept`, bool [M], is true."""
    names = NameTable.from_names(name for name, keep in zip(self.names, kept, strict=True) if keep)
    if not self.is_regional:
      return ImageTable(names)
    offsets = np.zeros(len(names) + 1, '<u8')
    np.cumsum(np.diff(self.entry_offsets)[kept], out=offsets[1:])
    return ImageTable(names, offsets, self.entry_regions[self.kept_entries(kept)])


def check_distinct(names: Iterable[str]) -> None:
  """Raises ValueError if a name occurs twice."""
  seen: set[str] = set()
  for name in names:
    if name in seen:
      raise ValueError(f'expected distinct image names, found {name!r} twice; remove or rename one')
    seen.add(name)


def _chain(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """Offsets of two tables, one after the other."""
  return np.concatenate([first, first[-1] + second[1:]])
