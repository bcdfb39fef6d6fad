"""The files of a live index beside its postings: boxes of all images, features of the added ones.

added/<digest>.features      the features of one added image, a record of records.py, named by its content
live.npz                     boxes of all images, and the digests of the features of added images
live.next.npz                the same, for a change that is being saved

Postings and boxes change together, though they are in different files. First `live.next.npz` is written, with
the checksum of the old postings; then the postings change; then the file takes its final name. If it is found
beside postings of another checksum, these are the new ones, and the file belongs to them. Until the first
change, `boxes.npy` (index_files.py) is valid. Whoever writes or removes one of these files holds the lock of
the postings (`InvertedIndex.updating`).
"""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Collection, Mapping

import numpy as np

from delf_d2r.data import files
from delf_d2r.data.artefacts import index_files, records
from delf_d2r.data.artefacts.artefact import MANIFEST
from delf_d2r.data.artefacts.index_files import ImageBoxes
from delf_d2r.data.foreign import zip_limits
from delf_d2r.errors import ArtefactError
from delf_d2r.index import directory as postings_files
from delf_d2r.structures import ImageFeatures

_STATE = 'live.npz'
_NEXT = 'live.next.npz'
_ADDED = 'added'
_SUFFIX = '.features'


@dataclasses.dataclass(frozen=True)
class LiveState:
  """Boxes and added features, which change together with the postings of an index.

  Attributes:
    boxes: the regions of every image.
    added: the digest of the features of each added image, by name.
  """

  boxes: ImageBoxes
  added: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def equals(self, other: 'LiveState') -> bool:
    """Returns whether two states are of the same boxes and the same added images."""
    return (
      dict(self.added) == dict(other.added)
      and np.array_equal(self.boxes.offsets, other.boxes.offsets)
      and np.array_equal(self.boxes.coordinates, other.boxes.coordinates)
    )


_REPLACED = (f'{index_files.INVERTED}/{postings_files.MANIFEST}', MANIFEST, _STATE, _NEXT)
# Identity, size and modification time of each file that `save` of a live index replaces; None where missing.
Version = tuple[tuple[int, int, int] | None, ...]


def version(directory: pathlib.Path) -> Version:
  """Returns what tells the saved index from the one before and after it, without reading any file.

  The last element is of the file that is there only while a change is being saved.
  """
  place = os.fspath(directory)
  return tuple(_file_version(f'{place}/{name}') for name in _REPLACED)


def _file_version(path: str) -> tuple[int, int, int] | None:
  try:
    found = os.stat(path)
  except OSError:
    return None
  return found.st_ino, found.st_size, found.st_mtime_ns


def load(directory: pathlib.Path, postings: int | None) -> LiveState:
  """Returns the state that belongs to the postings of a checksum.

  Args:
    directory: the index artefact.
    postings: the checksum of its postings; None if they have none.

  Raises:
    ArtefactError: a file is missing or damaged.
  """
  found = _read(directory / _NEXT)
  if found is None or found[0] == postings:
    found = _read(directory / _STATE)
  return LiveState(index_files.load_boxes(directory)) if found is None else found[1]


def prepare(directory: pathlib.Path, state: LiveState, *, replacing: int) -> None:
  """Writes the state that is valid as soon as the checksum of the postings is no longer `replacing`."""
  before = _read(directory / _NEXT)
  if before is not None and before[0] != replacing:
    # A kill came after the change of the postings and before the rename.
    _give_final_name(directory)
  with files.atomic_replace(directory / _NEXT) as temporary, open(temporary, 'wb') as file:
    np.savez(
      file,
      replacing=np.array(replacing, np.int64),
      coordinates=state.boxes.coordinates,
      offsets=state.boxes.offsets,
      added_names=np.array(list(state.added), np.str_),
      added_digests=np.array(list(state.added.values()), np.str_),
    )


def finish(directory: pathlib.Path) -> None:
  """Gives the file of `prepare` its final name, after the postings have changed."""
  _give_final_name(directory)


def abandon(directory: pathlib.Path) -> None:
  """Removes the file of `prepare`, because the postings have not changed."""
  (directory / _NEXT).unlink(missing_ok=True)


def add_features(directory: pathlib.Path, image: ImageFeatures) -> str:
  """Stores the features of an added image; returns their digest."""
  record = records.encode_features(image)
  digest = hashlib.sha256(record).hexdigest()[:32]
  (directory / _ADDED).mkdir(exist_ok=True)
  files.write_atomically(directory / _ADDED / f'{digest}{_SUFFIX}', record)
  return digest


def read_features(directory: pathlib.Path, digest: str) -> ImageFeatures:
  """Returns the features of an added image; raises ArtefactError if they are missing or damaged."""
  path = directory / _ADDED / f'{digest}{_SUFFIX}'
  try:
    record = path.read_bytes()
  except OSError as error:
    raise ArtefactError(f'{path}: {error.strerror}. Remove the image and add it again') from None
  if hashlib.sha256(record).hexdigest()[:32] != digest:
    raise ArtefactError(f'{path}: damaged. Remove the image and add it again')
  return records.decode_features(record)


def stored_features(directory: pathlib.Path) -> set[str]:
  """Returns the digests of all features in the directory, whether or not an image has them."""
  return {path.name.removesuffix(_SUFFIX) for path in (directory / _ADDED).glob(f'*{_SUFFIX}')}


def remove_features(directory: pathlib.Path, digests: Collection[str]) -> None:
  """Removes the features of some digests."""
  for digest in digests:
    (directory / _ADDED / f'{digest}{_SUFFIX}').unlink(missing_ok=True)


def remove_unused_features(directory: pathlib.Path, state: LiveState) -> None:
  """Removes the features of images that are not in the index: removed ones, and those of unsaved changes.

  Temporary files of a process that was killed go with them. The caller has locked the index, and `state` is
  the saved one; otherwise this would remove what others have added.
  """
  remove_features(directory, stored_features(directory) - set(state.added.values()))
  for temporary in (*(directory / _ADDED).glob('.*.tmp'), *directory.glob('.live.*.tmp')):
    temporary.unlink(missing_ok=True)


def is_interrupted(directory: pathlib.Path) -> bool:
  """Returns whether a save is in progress or was stopped."""
  return (directory / _NEXT).exists()


def _give_final_name(directory: pathlib.Path) -> None:
  os.replace(directory / _NEXT, directory / _STATE)
  files.sync_directory(directory)


def _read(path: pathlib.Path) -> tuple[int, LiveState] | None:
  """Returns the checksum of the postings before a state, and the state; None if there is no such file."""
  if not path.is_file():
    return None
  try:
    # NumPy does not close a file that it cannot read.
    with open(path, 'rb') as file:
      # `prepare` writes no compressed files.
      zip_limits.check_unpacked_size(file, path.stat().st_size)
      with np.load(file, allow_pickle=False) as arrays:
        added = zip(arrays['added_names'].tolist(), arrays['added_digests'].tolist(), strict=True)
        boxes = ImageBoxes(arrays['coordinates'], arrays['offsets'])
        return int(arrays['replacing']), LiveState(boxes, dict(added))
  except Exception as error:  # A damaged archive raises nearly any exception.
    raise ArtefactError(f'{path}: damaged ({error}). Delete {path.parent} and build it again') from None
