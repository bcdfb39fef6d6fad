"""Distractors: photos that join an index and that no ground truth names, such as the million of Revisited.

Revisited's (Radenovic et al., CVPR 2018) lie in a folder with `jpg/` and the list of those that count:

    revisitop1m.txt     a name a line, relative to jpg/, with or without extension
    jpg/

Any other folder of photos serves as it is.
"""

import collections
import functools
import os
import pathlib
from collections.abc import Iterator

from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.errors import UserError

LIST = 'revisitop1m.txt'
PHOTOS = 'jpg'


def load(folder: str | pathlib.Path) -> ImageList:
  """The photos of a folder, of Revisited's those of its list and in that order.

  Their names begin with the folder's own, so that they are not those of the photos that they join.

  Raises:
    UserError: no photos, photos of the list are missing, or the list names one twice.
  """
  folder = pathlib.Path(folder).resolve()
  if (folder / LIST).is_file():
    photos = ImageList.from_folder(folder / PHOTOS).select(read_list(folder / LIST), source=folder / LIST)
  else:
    photos = ImageList.from_folder(folder)
  prefix = photos.root.relative_to(folder.parent).as_posix()
  return ImageList(folder.parent, tuple(f'{prefix}/{name}' for name in photos.names))


def require_disjoint(distractors: ImageList, dataset: Dataset) -> None:
  """Makes sure that no distractor is a photo of a data set, under whatever name, or has the name of one.

  Raises:
    UserError: some are or have. Right answers, or the queries themselves, would count as wrong ones.
  """
  folder = distractors.root / pathlib.PurePosixPath(distractors.names[0]).parts[0]
  shared = sorted(set(distractors.names) & set(dataset.images.names))
  if shared:
    raise UserError(
      f'{len(shared)} distractors have the names of photos that are searched, {shared[0]!r} for one. Rename'
      f' the folder {folder}'
    )
  for photos in (dataset.images, *([dataset.queries.images] if dataset.queries else [])):
    files = set(_files(photos))
    both = [file for file in _files(distractors) if file in files]
    if both:
      raise UserError(
        f'{folder}: {len(both)} of these distractors are photos of the data set in {photos.root}, {both[0]}'
        ' for one: its right answers would count as wrong. Give a folder of other photos, neither that one'
        ' nor one around or within it'
      )


def _files(photos: ImageList) -> Iterator[str]:
  """Where each photo is, wherever links lead; folders are asked once, since there may be a million photos."""
  real_folder = functools.cache(os.path.realpath)
  for name in photos.names:
    folder, file = os.path.split(photos.path(name))
    place = os.path.join(real_folder(folder), file)
    yield os.path.realpath(place) if os.path.islink(place) else place


def read_list(path: pathlib.Path) -> tuple[str, ...]:
  """The names in a list of photos.

  Raises:
    UserError: it cannot be read as UTF-8, is empty, or names a photo twice.
  """
  try:
    names = tuple(line.strip() for line in path.read_text(encoding='utf-8').splitlines() if line.strip())
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f'{path}: cannot be read as a list of photos ({error}). Fetch it again') from None
  if not names:
    raise UserError(f'{path}: expected a name a line, found none. Fetch it again')
  name, count = collections.Counter(names).most_common(1)[0]
  if count > 1:
    raise UserError(f'{path}: {name!r} stands {count} times; keep one')
  return names
