"""Reads boxes for training a detector from files of three formats.

- Google Landmark Boxes: `id,box`, where a box is four numbers, top left bottom right, as shares of the photo.
The
  landmark of an id comes from `train.csv` of the landmarks (`id,url,landmark_id`).
- Any CSV file `image,ymin,xmin,ymax,xmax` with the optional columns `class` and `group`.
- COCO JSON: `images`, `annotations` with `bbox` [x, y, width, height] in pixels, `categories`.

All boxes refer to the upright photo. Malformed rows are no error: they are reported with their photo.
"""

import dataclasses
import pathlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from absl import logging

from delf_d2r.data import csv_rows, files
from delf_d2r.data.boxes import csv_file
from delf_d2r.data.photos import name_matching
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.errors import UserError

DEFAULT_CLASS = 'landmark'

# Coordinates outside of the photo by at most this are rounding errors of the file and are clipped: one pixel
# in 1,000.
TOLERANCE = 1e-3

_GOOGLE_COLUMNS = ('id', 'box')


@dataclasses.dataclass(frozen=True)
class PhotoBoxes:
  """The boxes of one photo.

  Attributes:
    name: name of the photo; if there is no such photo, its name in the file.
    path: path of the photo; None if there is no such photo.
    boxes: float32 [R, 4], `[ymin, xmin, ymax, xmax]`, normalised, with positive areas.
    classes: names of the classes of the R boxes.
    groups: the landmark or object of each of the R boxes; '' if the file does not tell.
    problems: the reasons why rows of the file cannot be used. A photo with any of them cannot serve as an
      example without objects.
  """

  name: str
  path: pathlib.Path | None
  boxes: np.ndarray
  classes: tuple[str, ...]
  groups: tuple[str, ...]
  problems: tuple[str, ...] = ()

  def __len__(self) -> int:
    return len(self.boxes)


@dataclasses.dataclass(frozen=True)
class _Row:
  """One box of a file: its place there, the name of the photo, and either the box or a problem."""

  place: str
  photo: str
  box: tuple[float, ...] = ()
  class_name: str = DEFAULT_CLASS
  group: str = ''
  problem: str = ''


def read(
  path: str | pathlib.Path, photos: ImageList, *, landmarks_path: str | pathlib.Path | None = None
) -> list[PhotoBoxes]:
  """Reads a file of boxes in any of the three formats, which are told apart by their content.

  Args:
    path: the file; `.json` is COCO, a CSV file with a column `box` is Google Landmark Boxes.
    photos: N photos; names are matched as in name_matching.py, so an id finds its photo in any subfolder.
    landmarks_path: `train.csv` of the landmarks; only for Google Landmark Boxes.

  Returns:
    All photos in their order with their boxes, followed by the missing photos that the file names.

  Raises:
    UserError: the file has none of the formats or names none of the photos, or a name matches several photos.
  """
  path = pathlib.Path(path)
  if path.suffix.lower() == '.json':
    rows = _coco_rows(path)
  elif set(_GOOGLE_COLUMNS) <= set(csv_rows.read_header(path)):
    rows = _google_rows(path, landmarks_path)
    landmarks_path = None
  else:
    rows = _csv_rows(path)
  if landmarks_path:
    raise UserError(
      f'{path}: --landmarks is for Google Landmark Boxes (id,box); this file is another kind. Drop the flag'
    )
  return _join_photos(list(rows), photos, path)


def whole_photos(photos: ImageList) -> list[PhotoBoxes]:
  """Returns every photo as one object that fills it, grouped by folder, or alone if it is in no folder."""
  return [
    PhotoBoxes(
      name,
      photos.path(name),
      np.array([[0, 0, 1, 1]], np.float32),
      (DEFAULT_CLASS,),
      (pathlib.PurePosixPath(name).parent.as_posix().strip('.') or pathlib.PurePosixPath(name).stem,),
    )
    for name in photos.names
  ]


def _google_rows(path: pathlib.Path, landmarks_path: str | pathlib.Path | None) -> Iterator[_Row]:
  rows = [(place, row['id'], row['box']) for place, row in csv_rows.read_rows(path, _GOOGLE_COLUMNS)]
  landmarks = _landmarks(pathlib.Path(landmarks_path), {row[1] for row in rows}) if landmarks_path else {}
  for place, photo, box in rows:
    yield _row(place, photo, (box or '').split(), group=landmarks.get(photo, ''))


def _landmarks(path: pathlib.Path, wanted: set[str]) -> dict[str, str]:
  """Reads the landmarks of the wanted ids, as far as the file contains them."""
  found = {
    row['id']: row['landmark_id'] or ''
    for _, row in csv_rows.read_rows(path, ('id', 'landmark_id'))
    if row['id'] in wanted
  }
  if wanted and not found:
    raise UserError(
      f'{path}: has none of the {len(wanted)} ids with boxes, for example {min(wanted)}. Is it the train.csv'
      ' of the same version of the landmarks?'
    )
  if len(found) < len(wanted):
    missing = sorted(wanted - found.keys())
    logging.warning('%s: lacks %d of %d ids, for example %s', path, len(missing), len(wanted), missing[0])
  return found


def _csv_rows(path: pathlib.Path) -> Iterator[_Row]:
  for place, row in csv_rows.read_rows(path, csv_file.COLUMNS, optional=('class', 'group')):
    box = [row[column] for column in csv_file.COLUMNS[1:]]
    yield _row(place, row['image'], box, row.get('class') or DEFAULT_CLASS, row.get('group') or '')


def _coco_rows(path: pathlib.Path) -> Iterator[_Row]:
  try:
    content = files.parse_json(path.read_text(encoding='utf-8-sig'))
    images = {image['id']: image for image in content['images']}
    names = {number: str(image['file_name']) for number, image in images.items()}
    categories = {category['id']: str(category['name']) for category in content['categories']}
    annotations = [
      (item['image_id'], item['category_id'], item['bbox'], item) for item in content['annotations']
    ]
  except (OSError, ValueError) as error:
    raise UserError(f'{path}: cannot be read as JSON ({error})') from None
  except (KeyError, TypeError) as error:
    raise UserError(
      f'{path}: no COCO annotations ({type(error).__name__}: {error}); wanted images (id, file_name, width,'
      ' height), annotations (image_id, category_id, bbox) and categories (id, name)'
    ) from None
  for number, (image, category, bbox, item) in enumerate(annotations):
    place, photo = f'{path}: annotation {item.get("id", number)}', names.get(image, f'image {image}')
    if image not in images:
      yield _Row(place, photo, problem='its image_id is not among the images')
    elif category not in categories:
      yield _Row(place, photo, problem=f'its category_id {category} is not among the categories')
    elif item.get('iscrowd'):
      yield _Row(place, photo, problem='a crowd (iscrowd), which is not a single object')
    else:
      try:
        width, height = float(images[image]['width']), float(images[image]['height'])
        x, y, w, h = map(float, bbox)
        box = (y / height, x / width, (y + h) / height, (x + w) / width)
      except (KeyError, TypeError, ValueError, ZeroDivisionError):
        yield _Row(
          place, photo, problem=f'bbox {bbox} is not four numbers, or the size of its image is missing'
        )
      else:
        yield _row(place, photo, box, categories[category])


def _row(place: str, photo: str, box: Iterable, class_name: str = DEFAULT_CLASS, group: str = '') -> _Row:
  """Returns a row whose box is checked: four numbers in [0, 1] up to TOLERANCE, and a positive area."""
  try:
    # Checked in the precision in which they are stored: a thin box can lose its area by rounding.
    numbers = [float(np.float32(value)) for value in box]
    if len(numbers) != 4:
      raise ValueError
  except (TypeError, ValueError):
    problem = f'expected a box of four numbers, found {" ".join(map(str, box)) or "nothing"}'
    return _Row(place, photo or '', problem=problem)
  tidy = tuple(value if abs(value - 0.5) > 0.5 + TOLERANCE else min(max(value, 0), 1) for value in numbers)
  try:
    csv_file.check_box(tidy, place)
  except UserError as error:
    return _Row(place, photo or '', problem=str(error).removeprefix(f'{place}: '))
  return _Row(place, photo or '', tidy, class_name, group)


def _join_photos(rows: list[_Row], photos: ImageList, source: pathlib.Path) -> list[PhotoBoxes]:
  known = name_matching.match_those_present(
    (row.photo for row in rows if row.photo), photos.names, source=str(source)
  )
  if rows and not known:
    raise UserError(
      f'{source}: none of its {len(rows)} boxes belongs to one of the {len(photos)} photos (it names'
      f' {rows[0].photo!r}, a photo is {photos.names[0]!r}). Names are relative to --images'
    )
  present: dict[str, list[_Row]] = defaultdict(list)
  absent: dict[str, list[_Row]] = defaultdict(list)
  for row in rows:
    if row.photo in known:
      present[photos.names[known[row.photo]]].append(row)
    else:
      absent[row.photo].append(row)
  found = [_photo_boxes(name, photos.path(name), present[name]) for name in photos.names]
  for name in sorted(absent):
    problem = f'{absent[name][0].place}: {name!r} is not among the {len(photos)} photos'
    found.append(_photo_boxes(name, None, [], [problem]))
  return found


def _photo_boxes(
  name: str, path: pathlib.Path | None, rows: list[_Row], problems: Iterable[str] = ()
) -> PhotoBoxes:
  good = [row for row in rows if not row.problem]
  return PhotoBoxes(
    name,
    path,
    np.array([row.box for row in good], np.float32).reshape(-1, 4),
    tuple(row.class_name for row in good),
    tuple(row.group for row in good),
    (*problems, *(f'{row.place}: {row.problem}' for row in rows if row.problem)),
  )


def select_classes(photo: PhotoBoxes, classes: Sequence[str]) -> PhotoBoxes:
  """Returns the photo with only its boxes of the given classes."""
  kept = [number for number, name in enumerate(photo.classes) if name in classes]
  return dataclasses.replace(
    photo,
    boxes=photo.boxes[kept].reshape(-1, 4),
    classes=tuple(photo.classes[number] for number in kept),
    groups=tuple(photo.groups[number] for number in kept),
  )
