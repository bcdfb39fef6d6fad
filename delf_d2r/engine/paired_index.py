"""Two indexes of the same images that change together: those of the two searches of a run with fusion.

The first index says which images there are. The other one may hold more: images that have been removed from
the first, or that are about to be added to it. Searches use only those that the first one names. So every
state on the disk can be searched, whenever a process is killed:

    moment                           what a search finds
    in `add` or `remove`             the old images; neither index on the disk has changed
    in `save`, other index saved     the old images. The new ones are in the other index, too, and not used
    first index saved                the new images. Those that were removed are still in the other index
    other index tidied               the new images, and no others anywhere

What is left over in the other index is removed by the next `save`. Changes lock the first index before the
other one, and only who has locked the first removes something from the other.

A photo may be removed, and another one added by its name, before anything is saved. Both are in the other
index then, the newer one under an alias: its name with the digest of its features in the first index. The
first index knows the digests of its added images, so that each state of it leads to its own photo. Once the
older one is gone, the newer one gets the name.
"""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from absl import logging

from delf_d2r.data.artefacts import live_files
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.artefacts.records import ImageDescriptors
from delf_d2r.engine.live_index import Describe, LiveIndex, Snapshot, abbreviated
from delf_d2r.errors import ArtefactError, UserError
from delf_d2r.index.images import NameTable
from delf_d2r.index.inverted_index import InvertedIndex
from delf_d2r.structures import ImageFeatures

# How often both indexes are read while other processes save them, and the seconds between two attempts.
_ATTEMPTS = 50
_PAUSE = 0.02
# No name of a file has it.
_OF_DIGEST = '\0'


@dataclasses.dataclass(frozen=True, eq=False)
class PairedSnapshot(Snapshot):
  """The images of two indexes at one moment. It never changes, so threads may search it.

  Attributes:
    index, state: of the first index.
    other: the snapshot of the other index.
    places: int64 [M], the image id in the other index of each image of the first.
  """

  index: InvertedIndex  # Split indexes are not paired.
  other: Snapshot
  places: npt.NDArray[np.int64]

  @property
  def indexes(self) -> tuple[InvertedIndex, InvertedIndex]:
    """The postings of both indexes."""
    assert isinstance(self.other.index, InvertedIndex), 'split indexes are not paired'
    return self.index, self.other.index


class PairedIndex:
  """Two indexes with the same images: takes the place of a LiveIndex, which is the first of them.

  Attributes:
    snapshot: the images to search.
  """

  def __init__(
    self, first: LiveIndex, other: LiveIndex, aggregate: Callable[[ImageFeatures], ImageDescriptors]
  ):
    """Takes both indexes.

    Args:
      first: says which images there are.
      other: has them, and perhaps others.
      aggregate: returns the aggregated descriptors of an image for the other index, from its features there.

    Raises:
      ArtefactError: the other index lacks images of the first.
    """
    self._first = first
    self._other = other
    self._aggregate = aggregate
    self._joining = threading.RLock()
    self._complaint = ''  # why the changes of another process could not be joined
    self.snapshot = self._joined()

  @property
  def artefact(self) -> Artefact:
    """The artefact of the first index as it was loaded or last saved."""
    return self._first.artefact

  @property
  def other_artefact(self) -> Artefact:
    """The artefact of the other index as it was loaded or last saved."""
    return self._other.artefact

  def add(self, names: Sequence[str], describe: Describe, describe_other: Describe) -> None:
    """Adds images to both indexes: all of them or, if one fails, none; see `LiveIndex.add`.

    Args:
      names: the names of the new images.
      describe: returns features and descriptors of an image for the first index.
      describe_other: the same for the other index.
    """
    had_changed = self._other.has_changed

    def add_to_other(digests: Mapping[str, str]) -> None:
      self._other.refresh(wait=True)
      taken = set(self._other.snapshot.index.image_names)
      keys = {_alias(name, digests[name]) if name in taken else name: name for name in names}
      self._other.remove(taken & keys.keys())
      self._other.add(list(keys), lambda key: describe_other(keys[key]))

    with self._joined_afterwards():
      try:
        self._first.add(names, describe, beforehand=add_to_other)
      except BaseException:
        if self._other.has_changed and not had_changed:
          self._other.reload()  # Nothing is kept, nor locked.
        raise

  def remove(self, names: Collection[str]) -> None:
    """Removes images from the first index, and from the other one when the change is saved.

    Raises:
      UserError: for the reasons of `LiveIndex.remove`.
    """
    with self._joined_afterwards():
      self._first.remove(names)

  def save(self) -> None:
    """Writes all changes of both indexes; see the table above.

    Raises:
      UserError: for the reasons of `LiveIndex.save`. Searches find the old images.
    """
    with self._joined_afterwards():
      self._other.save()
      self._first.save()
      try:
        self._tidy()
      except UserError as error:
        logging.warning(
          '%s: the changes are saved, but images that were removed are still in it (%s); the next save'
          ' removes them',
          self.other_artefact.path,
          error,
        )

  def refresh(self, *, wait: bool = False) -> PairedSnapshot:
    """Takes over the changes that another process has saved; see `LiveIndex.refresh`.

    If the other index lacks images of the first, the reason is logged, and the snapshot stays.

    Raises:
      RebuiltIndexError: one of the indexes is another one now.
    """
    first, other = self._first.refresh(wait=wait), self._other.refresh(wait=wait)
    if not self._is_of(first, other):
      try:
        self._join()
        self._complaint = ''
      except ArtefactError as error:
        if str(error) != self._complaint:
          logging.warning('%s', error)
          self._complaint = str(error)
    return self.snapshot

  def reload(self) -> None:
    """Abandons the changes that are not saved and loads both indexes; see `LiveIndex.reload`."""
    try:
      self._first.reload()
    finally:
      self._other.reload()
    self._join()

  @contextlib.contextmanager
  def _joined_afterwards(self) -> Iterator[None]:
    """Takes over what the body has changed or, if it fails, what it has found changed."""
    try:
      yield
    except BaseException:
      with contextlib.suppress(ArtefactError):
        self._join()
      raise
    self._join()

  def _is_of(self, first: Snapshot, other: Snapshot) -> bool:
    snapshot = self.snapshot
    return snapshot.index is first.index and snapshot.state is first.state and snapshot.other is other

  def _join(self) -> None:
    with self._joining:
      if not self._is_of(self._first.snapshot, self._other.snapshot):
        self.snapshot = self._joined()

  def _joined(self) -> PairedSnapshot:
    """Returns the present images of both indexes, although another process may be saving."""
    for attempt in range(_ATTEMPTS):
      first, other = self._first.snapshot, self._other.snapshot
      try:
        places = self._places(first, other)
      except ArtefactError:
        # One of them was read before a save, the other one after it.
        if attempt == _ATTEMPTS - 1:
          raise
        time.sleep(_PAUSE if attempt else 0)
        self._other.refresh(wait=True)
        self._first.refresh(wait=True)
        if attempt and self._first.snapshot is first and self._other.snapshot is other:
          raise
      else:
        assert isinstance(first.index, InvertedIndex), 'split indexes are not paired'
        return PairedSnapshot(first.index, first.state, other, places)
    raise AssertionError('the last attempt returns or raises')

  def _places(self, first: Snapshot, other: Snapshot) -> npt.NDArray[np.int64]:
    """Returns the image id in the other index of each image of the first.

    Raises:
      ArtefactError: images are missing.
    """
    if _equal_names(first.index.image_names, other.index.image_names):
      return np.arange(len(first.index))
    ids = {name: image_id for image_id, name in enumerate(other.index.image_names)}
    keys = list(_keys(first, ids))
    missing = [key for key in keys if key not in ids]
    if missing:
      raise ArtefactError(
        f'{self.other_artefact.path}: lacks {len(missing)} of the {len(keys)} images of {self.artefact.path},'
        f' for example {abbreviated(missing, 3)}: {why_missing(self.artefact)}'
      )
    return np.array([ids[key] for key in keys], np.int64)

  def _tidy(self) -> None:
    """Removes from the other index what the first one does not name, and gives aliases their names.

    Raises:
      UserError: one of the indexes is locked, has changed, or cannot be written.
    """
    with self._first.locked():
      first, other = self._first.snapshot, self._other.refresh(wait=True)
      stored = set(other.index.image_names)
      used = dict(zip(_keys(first, stored), first.index.image_names, strict=True))
      renamed = {name: key for key, name in used.items() if key != name}
      leftover = stored - used.keys()
      if not leftover and not renamed:
        return
      features = {
        name: dataclasses.replace(
          live_files.read_features(self.other_artefact.path, other.state.added[key]), name=name
        )
        for name, key in renamed.items()
      }
      self._other.remove(leftover | set(renamed.values()))
      self._other.add(list(renamed), lambda name: (features[name], self._aggregate(features[name])))
      self._other.save()


def differences(first: Snapshot, other: Snapshot) -> tuple[list[str], list[str]]:
  """Returns the images of the first index that the other one lacks, and those left over in the other one.

  The former are an error; the latter are removed by the next `PairedIndex.save`.
  """
  stored = set(other.index.image_names)
  keys = set(_keys(first, stored))
  return sorted(keys - stored), sorted(map(name_of, stored - keys))


def why_missing(first: Artefact) -> str:
  """Returns, for a message, why the other index may lack images of the first, and the remedy."""
  return (
    'one of the two was changed or built without the other. Wait if a run is building them; else finish the'
    f' run by the same command, or, if images were added to {first.path} alone, load that index, remove them,'
    ' and add them to the run'
  )


def _alias(name: str, digest: str) -> str:
  """Returns the name in the other index of an image whose own name is taken there."""
  return f'{name}{_OF_DIGEST}{digest}'


def name_of(key: str) -> str:
  """Returns the name of an image from its name in the other index."""
  return key.partition(_OF_DIGEST)[0]


def _keys(first: Snapshot, stored: Collection[str]) -> Iterator[str]:
  """Yields the name in the other index, of the names that are stored there, of each image of the first."""
  added = first.state.added
  for name in first.index.image_names:
    alias = _alias(name, added[name]) if name in added else ''
    yield alias if alias in stored else name


def _equal_names(ours: Sequence[str], theirs: Sequence[str]) -> bool:
  """Returns whether both are the same names in the same order."""
  if isinstance(ours, NameTable) and isinstance(theirs, NameTable):
    return np.array_equal(ours.offsets, theirs.offsets) and np.array_equal(ours.utf8, theirs.utf8)
  return list(ours) == list(theirs)
