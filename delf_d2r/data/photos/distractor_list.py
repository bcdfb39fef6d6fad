"""Distractors: photos that are added to an index and shown by no query, such as the million of Revisited.

The folder of those (Radenovic et al., CVPR 2018) holds their list and their photos:

    revisitop1m.txt     one name a line, relative to jpg/, with or without extension
    jpg/

Any other folder of photos can be used as well; all its photos are distractors.
"""

import collections
import functools
import os
import pathlib
from collections.abc import Iterator, Sequence

from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.errors import UserError

LIST = 'revisitop1m.txt'
PHOTOS = 'jpg'


def load(folder: str | pathlib.Path, *, exclude: Sequence[str] = (), strict: bool = False) -> ImageList:
  """Loads the distractors of a folder: those of the list, in its order, or all photos if there is no list.

  Their names begin with the name of the folder, so that they differ from the names of the photos of a data
  set.

  Args:
    folder: the folder.
    exclude, strict: see `ImageList.from_folder`.

  Raises:
    UserError: there are no photos, photos of the list are missing, or the list names one twice.
  """
  folder = pathlib.Path(folder).resolve()
  if (folder / LIST).is_file():
    photos = ImageList.from_folder(folder / PHOTOS, exclude=exclude, strict=strict).select(
      read_list(folder / LIST), source=str(folder / LIST)
    )
  else:
    photos = ImageList.from_folder(folder, exclude=exclude, strict=strict)
  prefix = photos.root.relative_to(folder.parent).as_posix()
  return ImageList(folder.parent, tuple(f'{prefix}/{name}' for name in photos.names), photos.left_out)


def require_disjoint(distractors: ImageList, dataset: Dataset) -> None:
  """Checks that no distractor is a photo of a data set, under any name, or has the name of one.

  Raises:
    UserError: some are or have, so positives or queries would count as negatives.
  """
  folder = distractors.root / pathlib.PurePosixPath(distractors.names[0]).parts[0]
  shared = sorted(set(distractors.names) & set(dataset.images.names))
  if shared:
    raise UserError(
      f'{len(shared)} distractors have the names of photos of the data set, for example {shared[0]!r}. Rename'
      f' the folder {folder}'
    )
  for photos in (dataset.images, *([dataset.queries.images] if dataset.queries else [])):
    files = set(_files(photos))
    both = [file for file in _files(distractors) if file in files]
    if both:
      raise UserError(
        f'{folder}: {len(both)} of these distractors are photos of the data set in {photos.root}, for example'
        f' {both[0]}: positives would count as negatives. Give a folder of other photos, neither that one nor'
        ' one around or within it'
      )


def _files(photos: ImageList) -> Iterator[str]:
  """Yields the real path of each photo; each folder is resolved once, as there may be a million photos."""
  real_folder = functools.cache(os.path.realpath)
  for name in photos.names:
    folder, file = os.path.split(photos.path(name))
    place = os.path.join(real_folder(folder), file)
    yield os.path.realpath(place) if os.path.islink(place) else place


def read_list(path: pathlib.Path) -> tuple[str, ...]:
  """Reads a list of photos: one name a line.

  Raises:
    UserError: the list cannot be read as UTF-8, is empty, or names a photo twice.
  """
  try:
    names = tuple(line.strip() for line in path.read_text(encoding='utf-8').splitlines() if line.strip())
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f'{path}: cannot be read as a list of photos ({error}). Download it again') from None
  if not names:
    raise UserError(f'{path}: expected one name a line, found none. Download it again')
  name, count = collections.Counter(names).most_common(1)[0]
  if count > 1:
    raise UserError(f'{path}: {name!r} appears {count} times; keep one')
  return names
