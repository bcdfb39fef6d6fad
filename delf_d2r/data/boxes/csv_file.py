"""Boxes of a data set in one CSV file: `image,ymin,xmin,ymax,xmax[,score]`, coordinates in [0, 1]."""

import csv
import hashlib
import math
import pathlib
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from delf_d2r.data.photos import name_matching
from delf_d2r.errors import UserError
from delf_d2r.structures import Boxes

COLUMNS = ('image', 'ymin', 'xmin', 'ymax', 'xmax')


def read_boxes(path: str | pathlib.Path, image_names: list[str] | tuple[str, ...]) -> dict[str, Boxes]:
  """Reads the boxes of the given images; lines of other images are left out.

  Args:
    path: the CSV file. Rows of one image may stand anywhere; they keep their order.
    image_names: M names relative to the folder of photos.

  Returns:
    Boxes by image name; an image without a row is not in it.

  Raises:
    UserError: no such file, a column is missing, or a box is no box: the message names the line.
  """
  path = pathlib.Path(path)
  rows = _parse(path)
  found = {}
  # Two spellings may mean one photo.
  for image, spellings in name_matching.names_by_image(rows, image_names, source=str(path)).items():
    table = np.array([entry for name in spellings for entry in rows[name]], np.float32)
    found[image] = Boxes(table[:, :4], table[:, 4])
  return found


def _parse(path: pathlib.Path) -> dict[str, list[list[float]]]:
  rows = defaultdict(list)
  for place, row in read_rows(path, COLUMNS, optional=('score',)):
    try:
      box = [float(row[column]) for column in COLUMNS[1:]]
      score = float(row.get('score') or 1)
    except (TypeError, ValueError):
      raise UserError(f'{place}: box and score must be numbers, found {row}') from None
    if not row['image'] or not math.isfinite(score):
      raise UserError(f'{place}: expected the name of an image and a finite score, found {row}')
    check_box(box, place)
    rows[row['image']].append([*box, score])
  return rows


def read_rows(
  path: pathlib.Path, columns: Sequence[str], *, optional: Sequence[str] = ()
) -> Iterator[tuple[str, dict[str, str]]]:
  """Yields (`file:line`, row) of a CSV file with a header; a row that ends early has None for the rest.

  Raises:
    UserError: it is no UTF-8 CSV file, or the header lacks one of `columns`; `optional` ones are named as
      such in the message.
  """
  try:
    with open(path, encoding='utf-8-sig', newline='') as file:
      reader = csv.DictReader(file)
      missing = [column for column in columns if column not in (reader.fieldnames or ())]
      if missing:
        more = f' and, if you like, {", ".join(optional)}' if optional else ''
        raise UserError(f'{path}:1: the header lacks {", ".join(missing)}; wanted {",".join(columns)}{more}')
      for row in reader:
        yield f'{path}:{reader.line_num}', row
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise UserError(f'{path}: cannot be read as a UTF-8 CSV file ({error})') from None


def check_box(box, place: str) -> None:
  """Raises UserError unless `box` is [ymin, xmin, ymax, xmax] within [0, 1] and has an area."""
  try:
    ymin, xmin, ymax, xmax = map(float, box)
  except (TypeError, ValueError):
    raise UserError(f'{place}: expected four numbers ymin, xmin, ymax, xmax, found {box!r}') from None
  # Written so that NaN fails.
  if not (0 <= ymin < ymax <= 1 and 0 <= xmin < xmax <= 1):
    raise UserError(
      f'{place}: ymin,xmin,ymax,xmax = {",".join(f"{value:g}" for value in box)} must satisfy'
      ' 0 <= min < max <= 1: coordinates are shares of height and width, not pixels'
    )


def fingerprint(path: str | pathlib.Path) -> str:
  """A digest of the file's contents."""
  return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()[:16]
