"""What the stages that decode photos have in common: which photos they read, and what becomes of each."""

import functools
import pathlib
from collections.abc import Callable, Sequence

from delf_d2r.data.artefacts.artefact import Input
from delf_d2r.data.artefacts.read_photos import PhotoFiles, ReadPhoto, Use
from delf_d2r.data.photos import images, photo_state
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.data.photos.images import Photo
from delf_d2r.errors import ImageError, PhotoUnavailableError

FAILED = ReadPhoto(Use.FAILED)

# The code of OpenCV's error for want of memory.
_OPENCV_NO_MEMORY = -4


def files_of(
  photos: ImageList,
  as_input: Callable[[ImageList], Input],
  *,
  items: Sequence[str] = (),
  apply_exif_orientation: bool,
  max_megapixels: int,
  strict: bool,
) -> PhotoFiles:
  """Returns the photos that an artefact is made from.

  Args:
    photos: one for each item.
    as_input: makes the input of the artefact from them.
    items: the names of the items, if they are not those of the photos.
    apply_exif_orientation, max_megapixels: see `images.load_image`.
    strict: whether a photo that cannot be used is an error.
  """
  return PhotoFiles(
    planned=as_input(photos),
    items=items or photos.names,
    names=photos.names,
    path=photos.path,
    decode=functools.partial(
      images.read_photo, apply_exif_orientation=apply_exif_orientation, max_megapixels=max_megapixels
    ),
    stamps=photos.stamps,
    plan_again=lambda: as_input(ImageList(photos.root, photos.names)),
    strict=strict,
  )


def used(photo: Photo) -> ReadPhoto:
  """Returns the entry of a photo that was used."""
  return ReadPhoto(Use.READ, photo.state)


def unusable(photo: Photo) -> ReadPhoto:
  """Returns the entry of a photo that was decoded and is of no use."""
  return ReadPhoto(Use.UNUSABLE, photo.state)


def lost(path: pathlib.Path) -> ReadPhoto:
  """Returns the entry of a photo that ends every process that it is given to."""
  try:
    return ReadPhoto(Use.UNUSABLE, photo_state.read(path)[1])
  except (OSError, ImageError):
    return FAILED


def as_unavailable(error: Exception, path: pathlib.Path) -> PhotoUnavailableError | None:
  """Returns the error of a photo for which there was not enough memory; None if the error is another one."""
  if isinstance(error, MemoryError) or getattr(error, 'code', None) == _OPENCV_NO_MEMORY:
    return PhotoUnavailableError(
      f'{path}: there is not enough memory for it. Run again with fewer --workers or more memory'
    )
  return None
