"""`.boxes` files of the research code: what a detector found in one photo (docs/reference.md 1.3, 4.1)."""

import pathlib
from collections.abc import Iterable, Sequence

import numpy as np
from google.protobuf.message import DecodeError

from delf_d2r.data import files
from delf_d2r.data.photos import name_matching
from delf_d2r.errors import UserError
from delf_d2r.protos import delf_box_pb2
from delf_d2r.structures import Boxes

EXTENSION = '.boxes'

# The id that a detector of landmarks gives to its one class.
LANDMARK_CLASS = 1


def encode(boxes: Boxes, classes: Sequence[int] | np.ndarray | None = None) -> bytes:
  """The bytes of a file.

  Args:
    boxes: R boxes, best first as the research code expects them.
    classes: R ids; None: all are landmarks.
  """
  if classes is None:
    classes = [LANDMARK_CLASS] * len(boxes)
  message = delf_box_pb2.Boxes()
  rows = zip(boxes.coordinates.tolist(), boxes.scores.tolist(), classes, strict=True)
  for (ymin, xmin, ymax, xmax), score, class_index in rows:
    message.box.add(ymin=ymin, xmin=xmin, ymax=ymax, xmax=xmax, score=score, class_index=int(class_index))
  return message.SerializeToString(deterministic=True)


def decode(data: bytes) -> tuple[Boxes, np.ndarray]:
  """The inverse of `encode`: boxes as they are, perhaps reaching beyond the image, and int64 [R] classes.

  Raises:
    ValueError: it is no such file.
  """
  try:
    found = delf_box_pb2.Boxes.FromString(data).box
  except DecodeError as error:
    raise ValueError(str(error)) from None
  coordinates = np.array([(box.ymin, box.xmin, box.ymax, box.xmax) for box in found], np.float32)
  scores = np.array([box.score for box in found], np.float32)
  return Boxes(coordinates.reshape(-1, 4), scores), np.array([box.class_index for box in found], np.int64)


def write(path: str | pathlib.Path, boxes: Boxes, classes: Sequence[int] | np.ndarray | None = None) -> None:
  """Writes one file."""
  files.write_atomically(pathlib.Path(path), encode(boxes, classes))


def read(path: str | pathlib.Path) -> tuple[Boxes, np.ndarray]:
  """Boxes and classes of one file.

  Raises:
    UserError: it is missing or damaged.
  """
  with files.readable(path, f'a {EXTENSION} file'):
    return decode(pathlib.Path(path).read_bytes())


def write_directory(directory: str | pathlib.Path, boxes: Iterable[tuple[str, Boxes]]) -> int:
  """Writes `<image name without extension>.boxes` for each image, in the subfolders of its name.

  Args:
    directory: made if missing.
    boxes: image names and their boxes.

  Returns:
    How many files.

  Raises:
    UserError: two images differ in nothing but their extension, or the place cannot be written.
  """
  directory = pathlib.Path(directory)
  written: dict[str, str] = {}
  with files.user_errors('cannot write', directory):
    directory.mkdir(parents=True, exist_ok=True)
    for name, found in boxes:
      file = str(pathlib.PurePosixPath(name).with_suffix(EXTENSION))
      if file in written:
        raise UserError(
          f'{directory / file}: would be that of {written[file]!r} and of {name!r}, for the research code'
          ' leaves out the extension. Rename one of the photos'
        )
      written[file] = name
      place = files.safe_join(directory, file)
      place.parent.mkdir(parents=True, exist_ok=True)
      write(place, found)
  return len(written)


def read_directory(directory: str | pathlib.Path, image_names: Sequence[str]) -> dict[str, Boxes]:
  """The boxes of the given images; files of other images are left out.

  Args:
    directory: with `.boxes` files, subfolders included.
    image_names: M names relative to the folder of photos.

  Returns:
    Boxes by image name; an image without a file is not in it.

  Raises:
    UserError: there is no such file, none is of these images, or one is damaged.
  """
  directory = pathlib.Path(directory)
  found = {
    path.relative_to(directory).with_suffix('').as_posix(): path
    for path in sorted(directory.rglob(f'*{EXTENSION}'))
  }
  if not found:
    raise UserError(f'{directory}: no {EXTENSION} files in it')
  by_image = name_matching.names_by_image(found, image_names, source=str(directory))
  return {image: _joined([read(found[name])[0] for name in names]) for image, names in by_image.items()}


def _joined(parts: Sequence[Boxes]) -> Boxes:
  return Boxes(
    np.concatenate([part.coordinates for part in parts]), np.concatenate([part.scores for part in parts])
  )
