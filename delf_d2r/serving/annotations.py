"""Annotations of the photos of a folder: one box each, in a CSV file that a detector can be trained on.

`boxes.csv` has the columns `image,ymin,xmin,ymax,xmax` and a row for each photo with a box
(data/boxes/training_boxes.py reads it). Photos that show no object are named in `boxes.csv.no_object.json`,
so that annotating can continue where it was interrupted.

Several servers, and a person with an editor, may change the files: every change reads them again, alters one
photo and writes them, with `.boxes.csv.lock` locked meanwhile.
"""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import threading
import time
from collections.abc import Iterator, Sequence

from delf_d2r.data import files
from delf_d2r.data.boxes.csv_file import COLUMNS, check_box
from delf_d2r.data.csv_rows import format_rows, read_rows
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.errors import UserError

NO_OBJECT = '.no_object.json'
_DECIMALS = 5
_LOCK_SECONDS = 10.0

Box = tuple[float, ...]


class Annotations:
  """The boxes of a folder of photos. Threads may share it; every change is saved before its method returns.

  What other processes write to the files is taken over, and kept by every change.

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
    self._lock_path = self.output.with_name(f'.{self.output.name}.lock')
    self._changes = threading.Lock()  # one change at a time
    self._lock = threading.RLock()  # of what follows
    self._ids = {name: number for number, name in enumerate(photos.names)}
    self._boxes: dict[str, Box] = {}
    self._no_object: set[str] = set()
    self._versions: tuple[object, object] | None = None  # of the files when they were read
    if not self.output.exists():
      with files.user_errors('cannot write', self.output):
        self.output.parent.mkdir(parents=True, exist_ok=True)
    self._refresh()

  def __len__(self) -> int:
    """Returns the number of photos."""
    return len(self.photos)

  @property
  def num_labelled(self) -> int:
    """The number of photos that are labelled: with a box, or as showing no object."""
    boxes, no_object = self._labels()
    return len(boxes) + len(no_object & self._ids.keys())

  def box(self, number: int) -> Box | None:
    """Returns the box `(ymin, xmin, ymax, xmax)` of a photo, normalised to [0, 1]; None if it has none."""
    return self._labels()[0].get(self.photos.names[number])

  def is_labelled(self, number: int) -> bool:
    """Returns whether a photo has a box or is labelled as showing no object."""
    name = self.photos.names[number]
    return any(name in labels for labels in self._labels())

  def next_unlabelled(self, number: int) -> int | None:
    """Returns the next photo without label, from `number` on and then from 0; None if all have one."""
    boxes, no_object = self._labels()
    order = (*range(number, len(self)), *range(min(number, len(self))))
    names = self.photos.names
    return next((n for n in order if names[n] not in boxes and names[n] not in no_object), None)

  def set_box(self, number: int, box: Sequence[float]) -> None:
    """Sets the box of a photo.

    Raises:
      UserError: the box is not valid (see `rounded_box`), or the files cannot be written.
    """
    name = self.photos.names[number]
    box = rounded_box(box, name)
    with self._changing():
      self._save(self._boxes | {name: box}, self._no_object - {name})

  def set_no_object(self, number: int) -> None:
    """Labels a photo as showing no object; raises UserError if the files cannot be written."""
    name = self.photos.names[number]
    with self._changing():
      self._save(_without(self._boxes, name), self._no_object | {name})

  def clear(self, number: int) -> None:
    """Removes the label of a photo; raises UserError if the files cannot be written."""
    name = self.photos.names[number]
    with self._changing():
      self._save(_without(self._boxes, name), self._no_object - {name})

  def _labels(self) -> tuple[dict[str, Box], set[str]]:
    """Returns the current boxes and the photos without object; those read before if a file is damaged."""
    with self._lock:
      # A change says what is wrong with the file. Perhaps somebody is still editing it.
      with contextlib.suppress(UserError):
        self._refresh()
      return self._boxes, self._no_object

  @contextlib.contextmanager
  def _changing(self) -> Iterator[None]:
    """Locks the files, for other threads and processes, and reads what has changed in them."""
    with self._changes, contextlib.ExitStack() as stack:
      with files.user_errors('cannot write', self.output):
        handle = os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o666)
        stack.callback(os.close, handle)
        _lock_file(handle)
      with self._lock:
        self._refresh()
        yield

  def _refresh(self) -> None:
    """Reads the files if they have changed since they were read."""
    versions = _version(self.output), _version(self._no_object_path)
    if versions != self._versions:
      boxes = self._read_boxes()
      self._no_object = self._read_no_object() - boxes.keys()
      self._boxes = boxes
      self._versions = versions

  def _save(self, boxes: dict[str, Box], no_object: set[str]) -> None:
    """Writes the files that change, and then replaces the labels in memory."""
    with files.user_errors('cannot write', self.output):
      if boxes != self._boxes or not self.output.exists():
        rows = ((name, *boxes[name]) for name in sorted(boxes))
        files.write_output(self.output, format_rows([COLUMNS, *rows]))
      self._boxes = boxes
      if no_object != self._no_object:
        document = json.dumps(sorted(no_object), ensure_ascii=False, indent=1)
        files.write_output(self._no_object_path, document)
      self._no_object = no_object
    # The next access reads them again: somebody may have changed them since.
    self._versions = None

  def _read_boxes(self) -> dict[str, Box]:
    if not self.output.exists():
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
    return set(names)


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


def _lock_file(handle: int) -> None:
  """Locks an open file for this process until it is closed; raises OSError if another process keeps it."""
  deadline = time.monotonic() + _LOCK_SECONDS
  while True:
    try:
      fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
      return
    except BlockingIOError as error:
      if time.monotonic() > deadline:
        raise OSError(error.errno, f'another process locks it for more than {_LOCK_SECONDS:g} s') from None
      time.sleep(0.02)
    except OSError as error:
      if error.errno in (errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS):  # The file system has no locks.
        return
      raise


def _version(path: pathlib.Path) -> tuple[int, ...] | None:
  """Returns what changes with a file; None if there is none."""
  try:
    status = path.stat()
  except OSError:
    return None
  return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def _without(boxes: dict[str, Box], name: str) -> dict[str, Box]:
  return {other: box for other, box in boxes.items() if other != name}
