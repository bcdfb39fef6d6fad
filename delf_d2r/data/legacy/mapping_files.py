"""The CSV file of the tensorflow/models DELF code that maps `.delf` files to images (docs/reference.md 4.2).

    name,index_image_id,box_id
    radcliffe_camera_000158,2,-1
    radcliffe_camera_000158_0,2,0

Box -1 is the whole image; boxes from 0 are sorted by descending score.
"""

import dataclasses
import pathlib
from collections import defaultdict
from collections.abc import Sequence

from delf_d2r.data import csv_rows, files
from delf_d2r.errors import UserError

COLUMNS = ('name', 'index_image_id', 'box_id')
WHOLE_IMAGE = -1


@dataclasses.dataclass(frozen=True)
class MappedImage:
  """The names of the feature files of one image, without extension.

  Attributes:
    whole: name of the file of the whole image.
    boxes: names of the files of its boxes, in order.
  """

  whole: str
  boxes: tuple[str, ...] = ()


def encode(images: Sequence[MappedImage]) -> str:
  """Encodes a mapping; lines end with CR LF, the default of the csv module, which the original code uses."""
  rows: list[tuple[object, ...]] = [COLUMNS]
  for image_id, image in enumerate(images):
    rows.append((image.whole, image_id, WHOLE_IMAGE))
    rows += [(name, image_id, box) for box, name in enumerate(image.boxes)]
  return csv_rows.format_rows(rows, line_end='\r\n')


def write(path: str | pathlib.Path, images: Sequence[MappedImage]) -> None:
  """Writes one file."""
  files.write_output(pathlib.Path(path), encode(images))


def read(path: str | pathlib.Path) -> list[MappedImage]:
  """Reads the images of a file, sorted by image id; rows may be in any order.

  Raises:
    UserError: the file cannot be read, lacks a column, contains an invalid number, or lacks the whole image
      or a box of an image.
  """
  rows: dict[int, dict[int, str]] = defaultdict(dict)
  known: set[str] = set()
  for place, row in csv_rows.read_rows(pathlib.Path(path), COLUMNS):
    try:
      image, box = int(row['index_image_id']), int(row['box_id'])
    except (TypeError, ValueError):
      raise UserError(f'{place}: index_image_id and box_id must be whole numbers, found {row}') from None
    if not row['name']:
      raise UserError(f'{place}: expected the name of a feature file, found {row}')
    if box in rows[image]:
      raise UserError(f'{place}: box {box} of image {image} is {rows[image][box]!r} already')
    if row['name'] in known:
      raise UserError(f'{place}: {row["name"]!r} appears twice')
    known.add(row['name'])
    rows[image][box] = row['name']
  images = []
  for image in sorted(rows):
    names = rows[image]
    if sorted(names) != list(range(WHOLE_IMAGE, len(names) + WHOLE_IMAGE)):
      raise UserError(
        f'{path}: image {image} must have the boxes -1 (the whole image), 0, 1, ..., found {sorted(names)}'
      )
    images.append(MappedImage(names[WHOLE_IMAGE], tuple(names[box] for box in range(len(names) - 1))))
  return images
