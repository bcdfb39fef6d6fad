"""Reads boxes for training a detector from files of three formats.

- Google Landmark Boxes: `id,box`, where a box is four numbers, top left bottom right, as shares of the photo.
The
  landmark of an id comes from `train.csv` of the landmarks (`id,url,landmark_id`).
- Any CSV file `image,ymin,xmin,ymax,xmax` with the optional columns `class` and `group`.
- COCO JSON: `images`, `annotations` with `bbox` [x, y, width, height] in pixels, `categories`.

All boxes refer to the upright photo. Malformed rows are no error: they are reported with their photo. So are
boxes that cannot be of the photo: the size that COCO has of every photo must have the proportions of the
file, and no box covers less than a pixel.
"""

import dataclasses
import json
import math
import pathlib
import reprlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from delf_d2r.data import csv_rows, files
from delf_d2r.data.boxes import csv_file
from delf_d2r.data.photos import images as photo_files
from delf_d2r.data.photos import name_matching
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.errors import ImageError, UserError

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
  """One box of a file: its place there, the name of the photo, and either the box or a problem.

  `size` is (width, height) of the photo as the file has it; None if it does not tell.
  """

  place: str
  photo: str
  box: tuple[float, ...] = ()
  class_name: str = DEFAULT_CLASS
  group: str = ''
  problem: str = ''
  size: tuple[float, float] | None = None


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
    if None in row:
      problem = 'the row has more values than the header; names and numbers with commas must be quoted'
      yield _Row(place, row['image'], problem=problem)
      continue
    yield _row(place, row['image'], box, row.get('class') or DEFAULT_CLASS, row.get('group') or '')


def _coco_rows(path: pathlib.Path) -> Iterator[_Row]:
  try:
    content = files.parse_json(path.read_text(encoding='utf-8-sig'))
    images = _coco_entries(content, 'images', 'file_name')
    categories = _coco_entries(content, 'categories', 'name')
    annotations = _coco_list(content, 'annotations')
    for item in annotations:
      _require_keys(item, 'annotations', ('image_id', 'category_id', 'bbox'))
  except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
    raise UserError(f'{path}: cannot be read as JSON ({error})') from None
  except ValueError as error:
    raise UserError(
      f'{path}: no COCO annotations ({error}); wanted images (id, file_name, width, height), annotations'
      ' (image_id, category_id, bbox) and categories (id, name)'
    ) from None
  for number, item in enumerate(annotations):
    yield from _coco_row(f'{path}: annotation {item.get("id", number)}', item, images, categories)


def _coco_list(content: object, key: str) -> list[dict[str, Any]]:
  found = content.get(key) if isinstance(content, dict) else None
  if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
    raise ValueError(f'{key}: expected a list of objects, found {reprlib.repr(found)}')
  return found


def _require_keys(item: Mapping[str, Any], key: str, wanted: Sequence[str]) -> None:
  lacking = [name for name in wanted if name not in item]
  if lacking:
    raise ValueError(f'{key}: {reprlib.repr(item)} lacks {", ".join(lacking)}')


def _coco_entries(content: object, key: str, name: str) -> dict[object, list[dict[str, Any]]]:
  """Returns images or categories by id: one of each id, unless the file repeats it.

  Raises:
    ValueError: an entry lacks its id or name, or they are of another type.
  """
  found: dict[object, list[dict[str, Any]]] = defaultdict(list)
  for item in _coco_list(content, key):
    _require_keys(item, key, ('id', name))
    if not _is_id(item['id']):
      raise ValueError(f'{key}: expected a number or a text as id, found {reprlib.repr(item["id"])}')
    text = item[name]
    if not isinstance(text, str) or not text or not _is_unicode(text):
      raise ValueError(f'{key}: expected a text as {name}, found {reprlib.repr(text)}')
    if item not in found[item['id']]:
      found[item['id']].append(item)
  return dict(found)


def _is_id(value: object) -> bool:
  return isinstance(value, str | int | float) and not isinstance(value, bool)


def _is_unicode(text: str) -> bool:
  return not any('\ud800' <= letter <= '\udfff' for letter in text)


def _coco_row(
  place: str,
  item: Mapping[str, Any],
  images: Mapping[object, Sequence[Mapping[str, Any]]],
  categories: Mapping[object, Sequence[Mapping[str, Any]]],
) -> Iterator[_Row]:
  """Yields an annotation; with a problem one for each photo that it may be of."""
  image, category, bbox = item['image_id'], item['category_id'], item['bbox']
  of_image = images.get(image, ()) if _is_id(image) else ()
  of_category = categories.get(category, ()) if _is_id(category) else ()
  problem = ''
  if not of_image:
    problem = 'its image_id is not among the images'
  elif len(of_image) > 1:
    names = ', '.join(repr(entry['file_name']) for entry in of_image)
    problem = f'its image_id {image} is that of {len(of_image)} images ({names}); give each an id of its own'
  elif not of_category:
    problem = f'its category_id {reprlib.repr(category)} is not among the categories'
  elif len(of_category) > 1:
    names = ', '.join(repr(entry['name']) for entry in of_category)
    problem = f'its category_id {category} is that of {len(of_category)} categories ({names})'
  elif item.get('iscrowd'):
    problem = 'a crowd (iscrowd), which is not a single object'
  if problem:
    photos = [str(entry['file_name']) for entry in of_image] or [f'image {reprlib.repr(image)}']
    yield from (_Row(place, photo, problem=problem) for photo in photos)
    return
  photo = of_image[0]['file_name']
  size: tuple[Any, Any] = (of_image[0].get('width'), of_image[0].get('height'))
  if not all(_is_positive(side) for side in size):
    found = ' x '.join(map(reprlib.repr, size))
    yield _Row(place, photo, problem=f'the size of its image is missing or none: width x height is {found}')
    return
  if not (isinstance(bbox, list) and len(bbox) == 4 and all(map(_is_finite, bbox))):
    yield _Row(place, photo, problem=f'bbox {reprlib.repr(bbox)} is not four numbers')
    return
  width, height = float(size[0]), float(size[1])
  x, y, w, h = map(float, bbox)
  if max(x + w, y + h, w, h) <= 1 + TOLERANCE and max(width, height) > 1:
    yield _Row(
      place, photo, problem=f'bbox {bbox} seems to be normalised; COCO has pixels: [x, y, width, height]'
    )
    return
  box = (y / height, x / width, (y + h) / height, (x + w) / width)
  yield dataclasses.replace(_row(place, photo, box, of_category[0]['name']), size=(width, height))


def _is_finite(value: object) -> bool:
  """Whether a value of JSON is a number that a float can hold."""
  try:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
  except OverflowError:
    return False


def _is_positive(value: object) -> bool:
  return isinstance(value, int | float) and _is_finite(value) and value > 0


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
  scaled: list[str] = []
  found = [
    _photo_boxes(name, photos.path(name), _compared(present[name], photos.path(name), scaled))
    for name in photos.names
  ]
  if scaled:
    logging.warning(
      '%s: %d photos have another size than it gives, in the same proportions, for example %s. Their boxes'
      ' are scaled',
      source,
      len(scaled),
      scaled[0],
    )
  for name in sorted(absent):
    problem = f'{absent[name][0].place}: {name!r} is not among the {len(photos)} photos'
    found.append(_photo_boxes(name, None, [], [problem]))
  return found


def _compared(rows: Sequence[_Row], path: pathlib.Path, scaled: list[str]) -> list[_Row]:
  """Returns the rows of a photo with the problems of those that cannot be of the photo in the file.

  Args:
    rows: the rows.
    path: the photo. If it cannot be read, nothing is compared: whoever decodes it reports that.
    scaled: photos of another size than the rows have are added to it.
  """
  if all(row.problem for row in rows):
    return list(rows)
  try:
    height, width = photo_files.image_size(path)
  except ImageError:
    return list(rows)
  if any(row.size not in (None, (width, height)) for row in rows):
    scaled_here = not all(row.size and _other_shape(row.size, (width, height)) for row in rows)
    scaled += [path.name] * scaled_here
  return [
    row if row.problem else dataclasses.replace(row, problem=_mismatch(row, width, height)) for row in rows
  ]


def _mismatch(row: _Row, width: int, height: int) -> str:
  """Returns why a box cannot be of a photo of that size; '' if it can."""
  if row.size and _other_shape(row.size, (width, height)):
    given = f'{row.size[0]:g} x {row.size[1]:g}'
    if not _other_shape(row.size, (height, width)):
      return (
        f'its image has the size {given} in the file, but the photo is {width} x {height}, upright: width and'
        ' height are swapped, so the box may be of the photo before its EXIF orientation. Export the boxes'
        ' of the upright photo'
      )
    return (
      f'its image has the size {given} in the file, but the photo is {width} x {height}. Export'
      ' the boxes of these photos'
    )
  ymin, xmin, ymax, xmax = row.box
  # Less a tolerance for boxes of one pixel that are rounded.
  if min((ymax - ymin) * height, (xmax - xmin) * width) < 1 - TOLERANCE:
    box = ','.join(f'{value:g}' for value in row.box)
    return (
      f'ymin,xmin,ymax,xmax = {box} covers less than a pixel of the photo, which is {width} x {height}; it'
      ' seems to be normalised twice'
    )
  return ''


def _other_shape(given: tuple[float, float], found: tuple[float, float]) -> bool:
  """Returns whether two sizes have other proportions, beyond the rounding of either to whole pixels."""
  small, large = sorted((given, found), key=max)
  factor = max(large) / max(small)
  return any(abs(a - b / factor) > min(1, 0.1 * a) for a, b in zip(small, large, strict=True))


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
