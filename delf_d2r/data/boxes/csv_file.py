"""Boxes of a data set in a CSV file: `image,ymin,xmin,ymax,xmax[,score]`, coordinates in [0, 1]."""

import math
import pathlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from delf_d2r.data import csv_rows
from delf_d2r.data.photos import name_matching
from delf_d2r.errors import UserError
from delf_d2r.structures import Boxes

COLUMNS = ('image', 'ymin', 'xmin', 'ymax', 'xmax')


def read_boxes(path: str | pathlib.Path, image_names: Sequence[str]) -> dict[str, Boxes]:
  """Reads the boxes of the given images; rows of other images are skipped.

  Args:
    path: the CSV file. The rows of an image need not be adjacent; they keep their order.
    image_names: M names relative to the folder of photos.

  Returns:
    Boxes by image name, without the images that have no row.

  Raises:
    UserError: the file or a column is missing, or a row is malformed; the message names the line.
  """
  path = pathlib.Path(path)
  rows = _parse(path)
  found = {}
  # Several spellings may name one photo.
  for image, spellings in name_matching.names_by_image(rows, image_names, source=str(path)).items():
    table = np.array([entry for name in spellings for entry in rows[name]], np.float32)
    found[image] = Boxes(table[:, :4], table[:, 4])
  return found


def _parse(path: pathlib.Path) -> dict[str, list[list[float]]]:
  rows: dict[str, list[list[float]]] = defaultdict(list)
  for place, row in csv_rows.read_rows(path, COLUMNS, optional=('score',)):
    if None in row:
      raise UserError(f'{place}: the row has more values than the header; quote names with commas: {row}')
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


def check_box(box: Iterable[float | str], place: str) -> None:
  """Raises UserError unless `box` is [ymin, xmin, ymax, xmax] within [0, 1] with a positive area.

  Args:
    box: four numbers.
    place: the origin of the box, for example `file:line`; begins the message.
  """
  try:
    ymin, xmin, ymax, xmax = map(float, box)
  except (TypeError, ValueError):
    raise UserError(f'{place}: expected four numbers ymin, xmin, ymax, xmax, found {box!r}') from None
  # Written so that NaN fails.
  if not (0 <= ymin < ymax <= 1 and 0 <= xmin < xmax <= 1):
    raise UserError(
      f'{place}: ymin,xmin,ymax,xmax = {ymin:g},{xmin:g},{ymax:g},{xmax:g} must satisfy 0 <= min < max <= 1:'
      ' coordinates are shares of height and width, not pixels'
    )
