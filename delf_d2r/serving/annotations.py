"""Annotations of the photos of a folder: one box each, in a CSV file that a detector can be trained on.

`boxes.csv` has the columns `image,ymin,xmin,ymax,xmax` and a row for each photo with a box
(data/boxes/training_boxes.py reads it). Photos that show no object are named in `boxes.csv.no_object.json`,
so that annotating can continue where it was interrupted.
"""

import json
import pathlib
import threading
from collections.abc import Sequence

from delf_d2r.data import files
from delf_d2r.data.boxes.csv_file import COLUMNS, check_box
from delf_d2r.data.csv_rows import format_rows, read_rows
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.errors import UserError

NO_OBJECT = '.no_object.json'
_DECIMALS = 5

Box = tuple[float, ...]


class Annotations:
  """The boxes of a folder of photos. Threads may share it; every change is saved before its method returns.

  Attributes:
    photos: the photos; their numbers are positions in it.
    output: the CSV file.
  """

  def __init__(self, photos: ImageList, output: str | pathlib.Path):
    """Reads the annotations that exist already.

    Args:
      photos: the photos to annotate.
      output: the CSV file, which need not exist.

    Raises:
      UserError: the file holds more than can be written back: several boxes for a photo, other columns,
        photos that are not in the folder.
    """
    self.photos = photos
    self.output = pathlib.Path(output)
    self._no_object_path = self.output.with_name(self.output.name + NO_OBJECT)
    self._lock = threading.Lock()
    self._ids = {name: number for number, name in enumerate(photos.names)}
    self._boxes = self._read_boxes()
    self._no_object = self._read_no_object() - self._boxes.keys()

  def __len__(self) -> int:
    """Returns the number of photos."""
    return len(self.photos)

  @property
  def num_labelled(self) -> int:
    """The number of photos that are labelled: with a box, or as showing no object."""
    return len(self._boxes) + len(self._no_object)

  def box(self, number: int) -> Box | None:
    """Returns the box `(ymin, xmin, ymax, xmax)` of a photo, normalised to [0, 1]; None if it has none."""
    return self._boxes.get(self.photos.names[number])

  def is_labelled(self, number: int) -> bool:
    """Returns whether a photo has a box or is labelled as showing no object."""
    name = self.photos.names[number]
    return name in self._boxes or name in self._no_object

  def next_unlabelled(self, number: int) -> int | None:
    """Returns the next photo without label, from `number` on and then from 0; None if all have one."""
    with self._lock:
      order = (*range(number, len(self)), *range(min(number, len(self))))
      return next((candidate for candidate in order if not self.is_labelled(candidate)), None)

  def set_box(self, number: int, box: Sequence[float]) -> None:
    """Sets the box of a photo.

    Raises:
      UserError: the box is not valid (see `rounded_box`), or the file cannot be written.
    """
    name = self.photos.names[number]
    box = rounded_box(box, name)
    with self._lock:
      self._save(self._boxes | {name: box}, self._no_object - {name})

  def set_no_object(self, number: int) -> None:
    """Labels a photo as showing no object."""
    name = self.photos.names[number]
    with self._lock:
      self._save(_without(self._boxes, name), self._no_object | {name})

  def clear(self, number: int) -> None:
    """Removes the label of a photo."""
    name = self.photos.names[number]
    with self._lock:
      self._save(_without(self._boxes, name), self._no_object - {name})

  def _save(self, boxes: dict[str, Box], no_object: set[str]) -> None:
    """Writes the files that change, and then replaces the labels in memory."""
    with files.user_errors('cannot write', self.output):
      if boxes != self._boxes or not self.output.exists():
        rows = [(name, *boxes[name]) for name in sorted(boxes)]
        files.write_atomically(self.output, format_rows([COLUMNS, *rows]))
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
          f'{self.output}: has columns that annotating would lose ({", ".join(map(str, others))}). Give'
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
        raise ValueError('not a list of names')
    except (OSError, ValueError) as error:
      raise UserError(f'{self._no_object_path}: damaged ({error}). Delete it or restore it') from None
    return set(names) & self._ids.keys()


def rounded_box(box: Sequence[float], place: str) -> Box:
  """Returns a box rounded to the decimals that are written to the file.

  Raises:
    UserError: the box, as given or as rounded, is not within the photo or has no area; the message begins
      with `place`.
  """
  check_box(box, place)
  box = tuple(round(float(value), _DECIMALS) for value in box)
  check_box(box, f'{place}, rounded to {_DECIMALS} decimals')
  return box


def _without(boxes: dict[str, Box], name: str) -> dict[str, Box]:
  return {other: box for other, box in boxes.items() if other != name}
