"""Boxes of a data set in one CSV file: `image,ymin,xmin,ymax,xmax[,score]`, coordinates in [0, 1]."""

import csv
import hashlib
import math
import pathlib
from collections import defaultdict

import numpy as np

from delf_d2r.data import name_matching
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
  try:
    with open(path, encoding='utf-8-sig', newline='') as file:
      rows = _parse(file, path)
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise UserError(f'{path}: cannot be read as a UTF-8 CSV file ({error})') from None
  known = _positions(rows, image_names, path)
  # Two spellings may mean one photo.
  found = defaultdict(list)
  for name, position in known.items():
    found[image_names[position]] += rows[name]
  if rows and not found:
    raise UserError(
      f'{path}: none of its {len(rows)} images is among the {len(image_names)} photos (it names'
      f' {next(iter(rows))!r}, there is {image_names[0]!r}). Names are relative to the folder of photos'
    )
  tables = {name: np.array(entries, np.float32) for name, entries in found.items()}
  return {name: Boxes(table[:, :4], table[:, 4]) for name, table in tables.items()}


def _parse(file, path: pathlib.Path) -> dict[str, list[list[float]]]:
  reader = csv.DictReader(file)
  missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
  if missing:
    raise UserError(
      f'{path}:1: the header lacks {", ".join(missing)}; wanted {",".join(COLUMNS)} and, if you like, score'
    )
  rows = defaultdict(list)
  for row in reader:
    place = f'{path}:{reader.line_num}'
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


def check_box(box, place: str) -> None:
  """Raises UserError unless `box` is [ymin, xmin, ymax, xmax] within [0, 1] and has an area."""
  ymin, xmin, ymax, xmax = box
  # Written so that NaN fails.
  if not (0 <= ymin < ymax <= 1 and 0 <= xmin < xmax <= 1):
    raise UserError(
      f'{place}: box ymin,xmin,ymax,xmax = {",".join(f"{value:g}" for value in box)} must satisfy'
      ' 0 <= min < max <= 1: coordinates are shares of height and width, not pixels'
    )


def _positions(rows, image_names, path: pathlib.Path) -> dict[str, int]:
  try:
    return name_matching.match_names(rows, image_names, source=str(path))
  except name_matching.MissingImagesError as error:
    absent = set(error.names)
    return name_matching.match_names(
      [name for name in rows if name not in absent], image_names, source=str(path)
    )


def fingerprint(path: str | pathlib.Path) -> str:
  """A digest of the file's contents."""
  return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()[:16]
