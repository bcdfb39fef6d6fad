"""Where the photos of an index lie: in one folder or, with distractors, in several."""

import dataclasses
import os
import pathlib
from collections.abc import Iterable

from delf_d2r.data.artefacts.artefact import Artefact, Input
from delf_d2r.errors import UserError

IMAGES = 'images'
DISTRACTOR_IMAGES = 'distractor_images'


@dataclasses.dataclass(frozen=True)
class PhotoFolders:
  """Folders whose photos have one name each, relative to the folder that they lie in.

  Attributes:
    folders: those that are looked through, in this order; () where none is known.
  """

  folders: tuple[pathlib.Path, ...] = ()

  @classmethod
  def of(cls, folders: Iterable[str | pathlib.Path]) -> 'PhotoFolders':
    """Those that a user names; UserError if one of them is not there."""
    found = tuple(map(pathlib.Path, folders))
    for folder in found:
      if not folder.is_dir():
        raise UserError(f'{folder}: no such folder of photos. Check the path')
    return cls(found)

  @classmethod
  def of_index(cls, index: Artefact) -> 'PhotoFolders':
    """The folders that an index was made from, as they were called then."""
    found = (index.input(role) for role in (IMAGES, DISTRACTOR_IMAGES))
    return cls(tuple(item.path for item in found if item is not None))

  def __str__(self) -> str:
    return ', '.join(map(str, self.folders))

  def find(self, name: str) -> pathlib.Path | None:
    """The photo of that name, in the first folder that has it; None if no folder has.

    A name that would lead out of a folder has no photo: an index may come from someone else.
    """
    if name.startswith('/') or '..' in name.split('/'):
      return None
    paths = (folder / name for folder in self.folders)
    return next((path for path in paths if os.path.isfile(path)), None)

  def name_of(self, photo: pathlib.Path) -> str:
    """The name by which `find` finds a photo; the last part of its path where it lies in no folder."""
    place = photo.resolve()
    roots = (folder.resolve() for folder in self.folders)
    return next(
      (place.relative_to(root).as_posix() for root in roots if place.is_relative_to(root)), photo.name
    )


def of_distractors(descriptors: Artefact) -> tuple[Input, ...]:
  """The folder of distractors as an input of an index: its photos are part of their descriptors already."""
  photos = descriptors.input(IMAGES)
  return (Input(DISTRACTOR_IMAGES, '', photos.path),) if photos else ()
