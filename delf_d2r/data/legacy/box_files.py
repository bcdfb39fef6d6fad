"""`.boxes` files of the tensorflow/models DELF code: the boxes of one photo (docs/reference.md 1.3, 4.1)."""

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

# The class id of a detector that knows landmarks only.
LANDMARK_CLASS = 1


def encode(boxes: Boxes, classes: Sequence[int] | np.ndarray | None = None) -> bytes:
  """Encodes the boxes of one photo.

  Args:
    boxes: R boxes, sorted by descending score as the tensorflow/models DELF code expects.
    classes: R class ids; None: all boxes are landmarks.
  """
  if classes is None:
    classes = [LANDMARK_CLASS] * len(boxes)
  message = delf_box_pb2.Boxes()
  rows = zip(boxes.coordinates.tolist(), boxes.scores.tolist(), classes, strict=True)
  for (ymin, xmin, ymax, xmax), score, class_index in rows:
    message.box.add(ymin=ymin, xmin=xmin, ymax=ymax, xmax=xmax, score=score, class_index=int(class_index))
  return message.SerializeToString(deterministic=True)


def decode(data: bytes) -> tuple[Boxes, np.ndarray]:
  """Decodes the inverse of `encode`.

  Returns:
    The boxes, which may extend beyond the image, and their classes, int64 [R].

  Raises:
    ValueError: the data have another format.
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
  files.write_output(pathlib.Path(path), encode(boxes, classes))


def read(path: str | pathlib.Path) -> tuple[Boxes, np.ndarray]:
  """Reads the boxes and classes of one file.

  Raises:
    UserError: the file is missing or damaged.
  """
  with files.format_errors(path, f'a {EXTENSION} file'):
    return decode(pathlib.Path(path).read_bytes())


def write_directory(directory: str | pathlib.Path, boxes: Iterable[tuple[str, Boxes]]) -> int:
  """Writes `<image name without extension>.boxes` for each image, subfolders included.

  Args:
    directory: created if missing.
    boxes: pairs of image name and boxes.

  Returns:
    The number of files.

  Raises:
    UserError: two image names differ only in their extension, or the directory cannot be written.
  """
  directory = pathlib.Path(directory)
  written: dict[str, str] = {}
  with files.user_errors('cannot write', directory):
    directory.mkdir(parents=True, exist_ok=True)
    for name, found in boxes:
      file = str(pathlib.PurePosixPath(name).with_suffix(EXTENSION))
      if file in written:
        raise UserError(
          f'{directory / file}: would be the file of both {written[file]!r} and {name!r}, because this format'
          ' omits the extension. Rename one of the photos'
        )
      written[file] = name
      place = files.safe_join(directory, file)
      place.parent.mkdir(parents=True, exist_ok=True)
      write(place, found)
  return len(written)


def read_directory(directory: str | pathlib.Path, image_names: Sequence[str]) -> dict[str, Boxes]:
  """Reads the boxes of the given images; files of other images are skipped.

  Args:
    directory: contains `.boxes` files, also in subfolders.
    image_names: M names relative to the folder of photos.

  Returns:
    Boxes by image name, without the images that have no file.

  Raises:
    UserError: there are no files, none belongs to these images, or one is damaged.
  """
  directory = pathlib.Path(directory)
  found = {
    path.relative_to(directory).with_suffix('').as_posix(): path
    for path in sorted(directory.rglob(f'*{EXTENSION}'))
  }
  if not found:
    raise UserError(f'{directory}: contains no {EXTENSION} files')
  by_image = name_matching.names_by_image(found, image_names, source=str(directory))
  return {image: _concatenate([read(found[name])[0] for name in names]) for image, names in by_image.items()}


def _concatenate(parts: Sequence[Boxes]) -> Boxes:
  return Boxes(
    np.concatenate([part.coordinates for part in parts]), np.concatenate([part.scores for part in parts])
  )
