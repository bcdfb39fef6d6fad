"""Finds photos by the names that a ground truth or a list gives them.

A photo is known by its path relative to the image folder, with `/` between folders. Ground truths are
often looser: Revisited leaves out folder and extension, and file systems differ in how they write accents
(Unicode NFC or NFD). So a name is looked for in steps, from the exact path to the bare stem, and a step
that finds two photos is an error, never a guess.
"""

import collections
import pathlib
import unicodedata
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from delf_d2r.errors import UserError


class MissingImagesError(UserError):
  """Photos that are named but absent.

  Attributes:
    names: all names that fit no photo, sorted.
  """

  def __init__(self, names: Iterable[str], *, num_images: int, source: str):
    self.names = tuple(sorted(names))
    shown = ', '.join(repr(name) for name in self.names[:5])
    rest = f' and {len(self.names) - 5} more' if len(self.names) > 5 else ''
    super().__init__(
      f'{source}: {len(self.names)} named images are not among the {num_images} photos: {shown}{rest};'
      ' is --images the right folder? Names are relative to it, with / between folders'
    )


def nfc(name: str) -> str:
  """`name` in Unicode's composed form: one way to write each accented letter."""
  return unicodedata.normalize('NFC', name)


def match_names(names: Iterable[str], image_names: Sequence[str], *, source: str) -> dict[str, int]:
  """The position in `image_names` of each of `names`.

  Steps: the same text; the same path but for Unicode normalisation; the path without its extension; the
  file name; the file name without its extension. The first step that finds a photo counts.

  Args:
    names: what to look for; repeated names are looked up once.
    image_names: M paths relative to the image folder.
    source: opens the error messages, for example the ground truth's file.

  Raises:
    MissingImagesError: names that fit no photo.
    UserError: a name fits several photos in the first step that finds any.
  """
  positions: dict[str, int] = {}
  missing = set(names)
  for fold_name, key_of_image in _STEPS:
    if not missing:
      break
    wanted = {fold_name(name) for name in missing}
    candidates = _positions_by_key(image_names, key_of_image, wanted)
    for name in sorted(missing):
      found = candidates.get(fold_name(name), [])
      if len(found) > 1:
        photos = ', '.join(repr(image_names[i]) for i in found[:5])
        raise UserError(
          f'{source}: {name!r} fits {len(found)} photos ({photos}); write the path relative to --images,'
          ' extension included'
        )
      if found:
        positions[name] = found[0]
        missing.remove(name)
  if missing:
    raise MissingImagesError(missing, num_images=len(image_names), source=source)
  return positions


def match_those_present(names: Iterable[str], image_names: Sequence[str], *, source: str) -> dict[str, int]:
  """`match_names` for lists that may name photos that are not there: those are not in the answer."""
  names = list(names)
  try:
    return match_names(names, image_names, source=source)
  except MissingImagesError as error:
    absent = set(error.names)
    return match_names([name for name in names if name not in absent], image_names, source=source)


def names_by_image(names: Iterable[str], image_names: Sequence[str], *, source: str) -> dict[str, list[str]]:
  """Which of `names` mean each image; images without a name and names of other images are left out.

  Arguments as of `match_names`.

  Raises:
    UserError: none of `names` fits, or one fits several photos.
  """
  names = list(names)
  positions = match_those_present(names, image_names, source=source)
  if names and not positions:
    raise UserError(
      f'{source}: none of its {len(names)} images is among the {len(image_names)} photos (it names'
      f' {names[0]!r}, there is {image_names[0]!r}). Names are relative to the folder of photos'
    )
  found = collections.defaultdict(list)
  for name in names:
    if name in positions:
      found[image_names[positions[name]]].append(name)
  return dict(found)


def positions_of(names: Sequence[str], matches: dict[str, int]) -> np.ndarray:
  """int64 [len(names)]: the position of each of `names`, in their order."""
  return np.array([matches[name] for name in names], np.int64)


def _positions_by_key(
  image_names: Sequence[str], key_of_image: Callable[[str], str], wanted: set[str]
) -> dict[str, list[int]]:
  # Only wanted keys are kept: with a million distractors the names of interest are still a few thousand.
  found = collections.defaultdict(list)
  for position, image in enumerate(image_names):
    key = key_of_image(image)
    if key in wanted:
      found[key].append(position)
  return found


def _without_extension(name: str) -> str:
  return str(pathlib.PurePosixPath(nfc(name)).with_suffix(''))


def _file_name(name: str) -> str:
  return pathlib.PurePosixPath(nfc(name)).name


def _stem(name: str) -> str:
  return pathlib.PurePosixPath(nfc(name)).stem


_STEPS: tuple[tuple[Callable[[str], str], Callable[[str], str]], ...] = (
  (str, str),
  (nfc, nfc),
  (nfc, _without_extension),
  (nfc, _file_name),
  (nfc, _stem),
)
