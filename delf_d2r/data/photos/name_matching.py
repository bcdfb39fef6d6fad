"""Matches the names in a ground truth or a list with photos.

The name of a photo is its path relative to the image folder, with `/` between folders. Ground truths are
often less exact: those of Revisited omit folder and extension, and file systems differ in the Unicode
normalisation of accents (NFC or NFD). A name is therefore looked up in steps, from the exact path to the name
without folder and extension. A step that finds several photos is an error.
"""

import collections
import pathlib
import unicodedata
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from delf_d2r.errors import UserError
from delf_d2r.structures import require_several


class MissingImagesError(UserError):
  """Photos that are named but missing.

  Attributes:
    names: all names that match no photo, sorted.
  """

  def __init__(self, names: Iterable[str], *, num_images: int, source: str) -> None:
    self.names = tuple(sorted(names))
    shown = ', '.join(repr(name) for name in self.names[:5])
    rest = f' and {len(self.names) - 5} more' if len(self.names) > 5 else ''
    super().__init__(
      f'{source}: {len(self.names)} named images are not among the {num_images} photos: {shown}{rest};'
      ' is --images the right folder? Names are relative to it, with / between folders'
    )


def nfc(name: str) -> str:
  """Returns a name in the composed Unicode normalisation, NFC."""
  return unicodedata.normalize('NFC', name)


def match_names(names: Iterable[str], image_names: Sequence[str], *, source: str) -> dict[str, int]:
  """Returns the position in `image_names` of each of `names`.

  The steps are: the same text; the same path up to Unicode normalisation; the path without its extension; the
  file name; the file name without its extension. The first step that finds a photo counts.

  Args:
    names: the names to look up, each of them once.
    image_names: M paths relative to the image folder.
    source: where the names come from, for example the file of a ground truth; begins error messages.

  Raises:
    MissingImagesError: names match no photo.
    UserError: a name matches several photos in the first step that finds any.
  """
  require_several(names)
  require_several(image_names, 'image_names')
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
          f'{source}: {name!r} matches {len(found)} photos ({photos}); write the path relative to --images,'
          ' with the extension'
        )
      if found:
        positions[name] = found[0]
        missing.remove(name)
  if missing:
    raise MissingImagesError(missing, num_images=len(image_names), source=source)
  return positions


def match_those_present(names: Iterable[str], image_names: Sequence[str], *, source: str) -> dict[str, int]:
  """Returns positions like `match_names`, without the names that match no photo."""
  require_several(names)
  names = list(names)
  try:
    return match_names(names, image_names, source=source)
  except MissingImagesError as error:
    absent = set(error.names)
    return match_names([name for name in names if name not in absent], image_names, source=source)


def names_by_image(names: Iterable[str], image_names: Sequence[str], *, source: str) -> dict[str, list[str]]:
  """Returns those of `names` that match each image.

  Images without a name and names of other images are omitted. The arguments are those of `match_names`.

  Raises:
    UserError: none of `names` matches a photo, or one matches several.
  """
  require_several(names)
  names = list(names)
  positions = match_those_present(names, image_names, source=source)
  if names and not positions:
    raise UserError(
      f'{source}: none of its {len(names)} images is among the {len(image_names)} photos (it names'
      f' {names[0]!r}, a photo is {image_names[0]!r}). Names are relative to the folder of photos'
    )
  found = collections.defaultdict(list)
  for name in names:
    if name in positions:
      found[image_names[positions[name]]].append(name)
  return dict(found)


def positions_of(names: Sequence[str], matches: dict[str, int]) -> np.ndarray:
  """Returns the position of each of `names`, in their order: int64 [len(names)]."""
  return np.array([matches[name] for name in names], np.int64)


def _positions_by_key(
  image_names: Sequence[str], key_of_image: Callable[[str], str], wanted: set[str]
) -> dict[str, list[int]]:
  # Only wanted keys are kept: there may be a million distractors, but only a few thousand names are looked
  # up.
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
