"""The images of an index: their names, and which entries belong to each.

Names are two arrays, so that a million of them are opened without being read.
"""

import dataclasses
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from delf_d2r.structures import require_several

# As many names are sought one by one; more are compared with a table of all names, which takes a while.
_FEW = 16


class NameTable(Sequence[str]):
  """An immutable sequence of names, decoded when asked for.

  Attributes:
    offsets: uint64 [M + 1]; name m is `utf8[offsets[m]:offsets[m + 1]]`.
    utf8: uint8 [bytes].
  """

  def __init__(self, offsets: npt.NDArray[np.uint64], utf8: npt.NDArray[np.uint8]) -> None:
    self.offsets = offsets
    self.utf8 = utf8

  @classmethod
  def from_names(cls, names: Iterable[str]) -> 'NameTable':
    """Encodes names."""
    encoded = [_encoded(name) for name in names]
    offsets = np.zeros(len(encoded) + 1, '<u8')
    np.cumsum([len(name) for name in encoded], out=offsets[1:])
    return cls(offsets, np.frombuffer(b''.join(encoded), np.uint8))

  def __len__(self) -> int:
    return len(self.offsets) - 1

  @overload
  def __getitem__(self, item: int) -> str: ...
  @overload
  def __getitem__(self, item: slice) -> list[str]: ...
  def __getitem__(self, item: int | slice) -> str | list[str]:
    if isinstance(item, slice):
      return [self[m] for m in range(*item.indices(len(self)))]
    m = range(len(self))[item]
    return _decoded(self.utf8[int(self.offsets[m]) : int(self.offsets[m + 1])].tobytes())

  def __iter__(self) -> Iterator[str]:
    utf8, bounds = self.utf8.tobytes(), self.offsets.tolist()
    for start, stop in itertools.pairwise(bounds):
      yield _decoded(utf8[start:stop])

  def __add__(self, other: 'NameTable') -> 'NameTable':
    return NameTable(_chain(self.offsets, other.offsets), np.concatenate([self.utf8, other.utf8]))

  def __repr__(self) -> str:
    return f'NameTable({len(self)} names)'

  def __contains__(self, name: object) -> bool:
    return isinstance(name, str) and self.position(name) is not None

  def position(self, name: str) -> int | None:
    """Returns the first position of a name, None if it is not there; decodes no name."""
    sought = np.frombuffer(_encoded(name), np.uint8)
    found = np.flatnonzero(np.diff(self.offsets) == len(sought))
    starts = self.offsets[found].astype(np.int64)
    # First the letters that tell most names apart: folders and endings are alike.
    some = starts[:: len(starts) // 1000 + 1]
    alike = [np.count_nonzero(self.utf8[some + place] == letter) for place, letter in enumerate(sought)]
    for place in np.argsort(alike, kind='stable'):
      is_alike = self.utf8[starts + place] == sought[place]
      found, starts = found[is_alike], starts[is_alike]
    return int(found[0]) if len(found) else None

  def positions(self, names: Collection[str]) -> npt.NDArray[np.int64]:
    """Returns the position of each name: int64 [n].

    Raises:
      KeyError: a name is not there.
    """
    places: Callable[[str], int | None] = self.position
    if len(names) > _FEW:
      places = {name: m for m, name in enumerate(self)}.get
    found = np.zeros(len(names), np.int64)
    for number, name in enumerate(names):
      place = places(name)
      if place is None:
        raise KeyError(f'{name!r} is not among the {len(self)} images of the index')
      found[number] = place
    return found

  def keep(self, kept: npt.NDArray[np.bool_]) -> 'NameTable':
    """Returns the names where `kept`, bool [M], is true."""
    lengths = np.diff(self.offsets)[kept]
    offsets = np.zeros(len(lengths) + 1, '<u8')
    np.cumsum(lengths, out=offsets[1:])
    # Names that stay side by side are copied together.
    edges = np.flatnonzero(np.diff(np.concatenate([[False], kept, [False]])))
    bounds = self.offsets[edges].astype(np.int64).reshape(-1, 2).tolist()
    pieces = [self.utf8[start:stop] for start, stop in bounds]
    return NameTable(offsets, np.concatenate([np.zeros(0, np.uint8), *pieces]))

  @property
  def nbytes(self) -> int:
    return self.offsets.nbytes + self.utf8.nbytes


# File names that are not UTF-8 come from the file system as surrogates, which are encoded to the same bytes.


def _encoded(name: str) -> bytes:
  return name.encode('utf-8', 'surrogateescape')


def _decoded(name: bytes) -> str:
  return name.decode('utf-8', 'surrogateescape')


@dataclasses.dataclass(frozen=True)
class ImageTable:
  """Images and their entries.

  Attributes:
    names: of the M images, distinct.
    entry_offsets: uint64 [M + 1], image m owns entries `entry_offsets[m]:entry_offsets[m + 1]`; None
      where entry e is image e.
    entry_regions: int32 [E], the region that an entry describes; None where `entry_offsets` is None.
  """

  names: NameTable
  entry_offsets: npt.NDArray[np.uint64] | None = None
  entry_regions: npt.NDArray[np.int32] | None = None

  @property
  def is_regional(self) -> bool:
    return self.entry_offsets is not None

  @property
  def num_entries(self) -> int:
    return len(self.names) if self.entry_regions is None else len(self.entry_regions)

  @property
  def arrays(self) -> dict[str, npt.NDArray[Any]]:
    """The arrays to save, by name."""
    arrays: dict[str, npt.NDArray[Any]] = {'names_offsets': self.names.offsets, 'names_utf8': self.names.utf8}
    if self.entry_offsets is not None and self.entry_regions is not None:
      arrays |= {'entry_offsets': self.entry_offsets, 'entry_regions': self.entry_regions}
    return arrays

  @property
  def nbytes(self) -> int:
    return sum(array.nbytes for array in self.arrays.values())

  @staticmethod
  def array_types(
    images: int, names_bytes: int, entries: int, is_regional: bool
  ) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Returns names, dtypes and shapes of `arrays`."""
    types: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
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
  def from_arrays(cls, arrays: dict[str, npt.NDArray[Any]]) -> 'ImageTable':
    """Returns the table that has these `arrays`."""
    names = NameTable(arrays['names_offsets'], arrays['names_utf8'])
    return cls(names, arrays.get('entry_offsets'), arrays.get('entry_regions'))

  @classmethod
  def empty(cls, *, is_regional: bool) -> 'ImageTable':
    """Returns the table of no images."""
    return cls.from_entries([], [] if is_regional else None)

  @classmethod
  def from_entries(
    cls,
    names: Sequence[str],
    entry_images: Sequence[int] | None = None,
    entry_regions: Sequence[int] | None = None,
  ) -> 'ImageTable':
    """Returns the table of images whose entries belong to `entry_images`; see `InvertedIndex.build`.

    Raises:
      ValueError: entries are out of order or of no image.
      TypeError: `names` is a string.
    """
    require_several(names, 'image_names')
    table = NameTable.from_names(names)
    if entry_images is None:
      if entry_regions is not None:
        raise ValueError('entry_regions need entry_images, which say whose regions they are; give both')
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
        raise ValueError(
          f'entry_regions: expected {len(owners)}, one for each entry, found shape {regions.shape};'
          ' give the region of each entry'
        )
    return cls(table, offsets, regions.astype('<i4'))

  def __add__(self, other: 'ImageTable') -> 'ImageTable':
    """Returns the images of both, those of `other` last; both tables are regional or neither is."""
    names = self.names + other.names
    if (
      self.entry_offsets is None
      or self.entry_regions is None
      or other.entry_offsets is None
      or other.entry_regions is None
    ):
      return ImageTable(names)
    return ImageTable(
      names,
      _chain(self.entry_offsets, other.entry_offsets),
      np.concatenate([self.entry_regions, other.entry_regions]),
    )

  def kept_entries(self, kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Returns bool [E]: which entries belong to images where `kept`, bool [M], is true."""
    if self.entry_offsets is None:
      return kept
    offsets = self.entry_offsets.astype(np.int64)
    return np.repeat(kept, offsets[1:] - offsets[:-1])

  def keep(self, kept: npt.NDArray[np.bool_]) -> 'ImageTable':
    """Returns the table of the images where `kept`, bool [M], is true."""
    names = self.names.keep(kept)
    if self.entry_offsets is None or self.entry_regions is None:
      return ImageTable(names)
    offsets = np.zeros(len(names) + 1, '<u8')
    np.cumsum(np.diff(self.entry_offsets)[kept], out=offsets[1:])
    return ImageTable(names, offsets, self.entry_regions[self.kept_entries(kept)])


def check_new(names: Sequence[str], present: NameTable) -> None:
  """Raises ValueError if a name occurs twice, or is present already."""
  if len(names) > _FEW:
    check_distinct(itertools.chain(present, names))
    return
  check_distinct(names)
  check_distinct(itertools.chain((name for name in names if name in present), names))


def check_distinct(names: Iterable[str]) -> None:
  """Raises ValueError if a name occurs twice."""
  seen: set[str] = set()
  for name in names:
    if name in seen:
      raise ValueError(f'expected distinct image names, found {name!r} twice; remove or rename one')
    seen.add(name)


def _chain(first: npt.NDArray[np.uint64], second: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
  """Returns the offsets of two tables, one after the other."""
  return np.concatenate([first, first[-1] + second[1:]])
