"""One box for each photo of a folder, kept in a CSV file that a detector can be trained from.

`boxes.csv` holds `image,ymin,xmin,ymax,xmax`, a row for each photo with a box (landmark_boxes.py reads it).
Photos that were looked at and show no object are named in `boxes.csv.no_object.json`, so that the work can be
taken up where it was left.
"""

import csv
import io
import json
import pathlib
import threading
from collections.abc import Sequence

from delf_d2r.data import files
from delf_d2r.data.boxes.csv_file import COLUMNS, check_box, read_rows
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.errors import UserError

NO_OBJECT = '.no_object.json'
_DECIMALS = 5

Box = tuple[float, ...]


class Annotations:
  """The boxes of a folder of photos. Threads may share it; every change is on the disk when it returns."""

  def __init__(self, photos: ImageList, output: str | pathlib.Path):
    """Takes up what is in `output`, a CSV file, if it is there.

    Raises:
      UserError: the file is not of the form that is written here: several boxes for a photo, other columns,
        photos that are not in the folder. Writing would lose what it says.
    """
    self.photos = photos
    self.output = pathlib.Path(output)
    self._no_object_path = self.output.with_name(self.output.name + NO_OBJECT)
    self._lock = threading.Lock()
    self._ids = {name: number for number, name in enumerate(photos.names)}
    self._boxes = self._read_boxes()
    self._no_object = self._read_no_object() - self._boxes.keys()

  def __len__(self) -> int:
    return len(self.photos)

  @property
  def num_done(self) -> int:
    """Photos that have a box or were found to show no object."""
    return len(self._boxes) + len(self._no_object)

  def box(self, number: int) -> Box | None:
    """The box `(ymin, xmin, ymax, xmax)` of a photo, normalised; None if it has none."""
    return self._boxes.get(self.photos.names[number])

  def is_done(self, number: int) -> bool:
    """Whether a photo has a box or was found to show no object."""
    name = self.photos.names[number]
    return name in self._boxes or name in self._no_object

  def next_undone(self, number: int) -> int | None:
    """The first photo that is not done, from `number` on and then from the beginning; None: all are."""
    with self._lock:
      order = (*range(number, len(self)), *range(min(number, len(self))))
      return next((candidate for candidate in order if not self.is_done(candidate)), None)

  def set_box(self, number: int, box: Sequence[float]) -> None:
    """Gives a photo its box.

    Raises:
      UserError: of `as_kept`, or the file cannot be written.
    """
    name = self.photos.names[number]
    box = as_kept(box, name)
    with self._lock:
      self._save(self._boxes | {name: box}, self._no_object - {name})

  def set_no_object(self, number: int) -> None:
    """Says that a photo shows no object."""
    name = self.photos.names[number]
    with self._lock:
      self._save(_without(self._boxes, name), self._no_object | {name})

  def clear(self, number: int) -> None:
    """Forgets what was said of a photo."""
    name = self.photos.names[number]
    with self._lock:
      self._save(_without(self._boxes, name), self._no_object - {name})

  def _save(self, boxes: dict[str, Box], no_object: set[str]) -> None:
    """Writes what has changed, and takes it over once it is written."""
    with files.user_errors('cannot write', self.output):
      if boxes != self._boxes or not self.output.exists():
        text = io.StringIO()
        writer = csv.writer(text, lineterminator='\n')
        writer.writerow(COLUMNS)
        writer.writerows((name, *boxes[name]) for name in sorted(boxes))
        files.write_atomically(self.output, text.getvalue())
      self._boxes = boxes
      if no_object != self._no_object:
        document = json.dumps(sorted(no_object), ensure_ascii=False, indent=1)
        files.write_atomically(self._no_object_path, document)
      self._no_object = no_object

  def _read_boxes(self) -> dict[str, Box]:
    if not self.output.exists():
      self.output.parent.mkdir(parents=True, exist_ok=True)
      return {}
    boxes = {}
    for place, row in read_rows(self.output, COLUMNS):
      others = row.keys() - set(COLUMNS)
      if others:
        raise UserError(
          f'{self.output}: has columns that drawing boxes would lose ({", ".join(map(str, others))}). Give'
          ' another --output'
        )
      name = row['image']
      if name in boxes or name not in self._ids:
        problem = (
          'has several boxes' if name in boxes else f'is not among the {len(self)} photos of the folder'
        )
        raise UserError(
          f'{place}: {name!r} {problem}, which one box for each photo would lose. Give another --output'
        )
      try:
        box = tuple(float(row[column]) for column in COLUMNS[1:])
      except (TypeError, ValueError):
        raise UserError(f'{place}: expected four numbers, found {row}. Correct the line') from None
      check_box(box, place)
      boxes[name] = box
    return boxes

  def _read_no_object(self) -> set[str]:
    if not self._no_object_path.exists():
      return set()
    try:
      names = files.parse_json(self._no_object_path.read_text(encoding='utf-8'))
      if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError('no list of names')
    except (OSError, ValueError) as error:
      raise UserError(f'{self._no_object_path}: damaged ({error}). Delete it or restore it') from None
    return set(names) & self._ids.keys()


def as_kept(box: Sequence[float], place: str) -> Box:
  """A box with as many decimals as are written.

  Raises:
    UserError: it is not within the photo, or has no area, given or kept; the message begins with `place`.
  """
  check_box(box, place)
  box = tuple(round(float(value), _DECIMALS) for value in box)
  check_box(box, f'{place}, kept with {_DECIMALS} decimals')
  return box


def _without(boxes: dict[str, Box], name: str) -> dict[str, Box]:
  return {other: box for other, box in boxes.items() if other != name}
