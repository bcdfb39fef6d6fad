"""The folders of the photos of an index: one or, with distractors, several."""

import dataclasses
import os
import pathlib
from collections.abc import Iterable

from delf_d2r.data.artefacts.artefact import Artefact, Input
from delf_d2r.errors import UserError
from delf_d2r.structures import require_several

IMAGES = 'images'
DISTRACTOR_IMAGES = 'distractor_images'


@dataclasses.dataclass(frozen=True)
class PhotoFolders:
  """Folders of photos; the name of a photo is its path relative to its folder.

  Attributes:
    folders: the absolute paths of the folders, in the order in which they are searched; () if none is known.
  """

  folders: tuple[pathlib.Path, ...] = ()

  def __post_init__(self) -> None:
    # Absolute, so that a program that changes its working folder still reads these photos.
    object.__setattr__(self, 'folders', tuple(pathlib.Path(path).absolute() for path in self.folders))

  @classmethod
  def of(cls, folders: Iterable[str | pathlib.Path]) -> 'PhotoFolders':
    """Returns the given folders; raises UserError if one of them does not exist."""
    require_several(folders, 'folders')
    found = tuple(map(pathlib.Path, folders))
    for folder in found:
      if not folder.is_dir():
        raise UserError(f'{folder}: no such folder of photos. Check the path')
    return cls(found)

  @classmethod
  def of_index(cls, index: Artefact) -> 'PhotoFolders':
    """Returns the folders that an index was made from, by their paths at that time."""
    found = (index.input(role) for role in (IMAGES, DISTRACTOR_IMAGES))
    return cls(tuple(item.path for item in found if item is not None))

  def __str__(self) -> str:
    return ', '.join(map(str, self.folders))

  def find(self, name: str) -> pathlib.Path | None:
    """Returns the path of a photo in the first folder that has it; None if no folder has it.

    Names that lead out of a folder are not found, because an index may come from somebody else.
    """
    if name.startswith('/') or '..' in name.split('/'):
      return None
    paths = (folder / name for folder in self.folders)
    return next((path for path in paths if os.path.isfile(path)), None)

  def name_of(self, photo: pathlib.Path) -> str:
    """Returns the name by which `find` finds a photo; its file name if it is in none of the folders."""
    place = photo.resolve()
    roots = (folder.resolve() for folder in self.folders)
    return next(
      (place.relative_to(root).as_posix() for root in roots if place.is_relative_to(root)), photo.name
    )


def of_distractors(descriptors: Artefact) -> tuple[Input, ...]:
  """Returns the folder of distractors as an input of an index, without fingerprint: that of the descriptors
  covers the photos.
  """
  photos = descriptors.input(IMAGES)
  return (Input(DISTRACTOR_IMAGES, '', photos.path),) if photos else ()
