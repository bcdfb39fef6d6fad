"""Validated values of a ground truth, which ground_truth.py reads, writes and resolves."""

import collections
import dataclasses
import math
from collections.abc import Iterable

from delf_d2r.data.photos import name_matching
from delf_d2r.errors import UserError

LABELS = ('easy', 'hard', 'junk')


@dataclasses.dataclass(frozen=True)
class QueryGroundTruth:
  """One query: its image, its box, and the index images that show its object.

  Attributes:
    name: unique among the queries.
    image: path of the query image, relative to the image folder.
    box: `(ymin, xmin, ymax, xmax)` normalised to [0, 1]; None: the whole image.
    easy, hard: index images that show the object.
    junk: index images that are neither positives nor negatives.
    box_pixels: `(xmin, ymin, xmax, ymax)` in pixels, the form of Revisited; None unless it replaces `box`.

  Raises:
    ValueError: a value is malformed, or two of them contradict each other.
  """

  name: str
  image: str
  box: tuple[float, float, float, float] | None = None
  easy: tuple[str, ...] = ()
  hard: tuple[str, ...] = ()
  junk: tuple[str, ...] = ()
  box_pixels: tuple[float, float, float, float] | None = None

  def __post_init__(self) -> None:
    for field in ('name', 'image'):
      _check_name(getattr(self, field), f'query {self.name!r}: {field}')
    where = f'query {self.name!r}'
    if self.box is not None and self.box_pixels is not None:
      raise ValueError(f'{where}: found both box and box_pixels; keep one')
    _check_box(self.box, f'{where}: box', '[ymin, xmin, ymax, xmax]', upper=1.0)
    _check_box(self.box_pixels, f'{where}: box_pixels', '[xmin, ymin, xmax, ymax]', upper=math.inf)
    if self.box_pixels is not None and max(self.box_pixels) <= 1:
      raise ValueError(
        f'{where}: box_pixels: expected [xmin, ymin, xmax, ymax] in pixels, found {list(self.box_pixels)},'
        ' which seems to be normalised to [0, 1]; multiply it by the size of the photo, or give box:'
        ' [ymin, xmin, ymax, xmax] instead'
      )
    label_of: dict[str, str] = {}
    for label in LABELS:
      for image in _checked_names(getattr(self, label), f'{where}: {label}'):
        other = label_of.setdefault(image, label)
        if other != label:
          raise ValueError(f'{where}: {image!r} is both {other} and {label}; keep it in one list')

  def box_for(self, height: int, width: int) -> tuple[float, float, float, float] | None:
    """Returns the box, normalised `(ymin, xmin, ymax, xmax)`, in a photo of that size in pixels.

    Pixel boxes are rounded to whole pixels (docs/reference.md 4.3), then clipped to the photo.

    Returns:
      None for the whole photo.

    Raises:
      UserError: the box covers less than a pixel of the photo, or lies for the most part outside of it.
    """
    photo = f'{self.image!r} ({width} x {height}, width x height)'
    if self.box_pixels is None:
      if self.box and min((self.box[2] - self.box[0]) * height, (self.box[3] - self.box[1]) * width) < 0.999:
        raise UserError(
          f'query {self.name!r}: box [ymin, xmin, ymax, xmax] = {list(self.box)} covers less than a pixel of'
          f' {photo}; is it normalised twice?'
        )
      return self.box
    xmin, ymin, xmax, ymax = (round(value) for value in self.box_pixels)
    clipped = (max(ymin, 0), max(xmin, 0), min(ymax, height), min(xmax, width))
    sides = max(clipped[2] - clipped[0], 0), max(clipped[3] - clipped[1], 0)
    if not 2 * sides[0] * sides[1] > (ymax - ymin) * (xmax - xmin):
      inside = 'more than half of it outside' if sides[0] * sides[1] else 'no pixel inside'
      raise UserError(
        f'query {self.name!r}: box_pixels [xmin, ymin, xmax, ymax] = {list(self.box_pixels)} has {inside} of'
        f' {photo}; is this the photo that was annotated, upright and of that size?'
      )
    return clipped[0] / height, clipped[1] / width, clipped[2] / height, clipped[3] / width


@dataclasses.dataclass(frozen=True)
class GroundTruth:
  """The ground truth of one benchmark.

  Attributes:
    name: name of the benchmark.
    index_images: paths relative to the image folder; empty: all photos of the folder.
    queries: at least one, with unique names.

  Raises:
    ValueError: a value is malformed, or a query names a photo that is not among `index_images`.
  """

  name: str
  index_images: tuple[str, ...]
  queries: tuple[QueryGroundTruth, ...]

  def __post_init__(self) -> None:
    _check_name(self.name, 'name')
    if not self.queries:
      raise ValueError('queries: expected at least one, found none; without any, leave out --ground_truth')
    for name, count in collections.Counter(query.name for query in self.queries).items():
      if count > 1:
        raise ValueError(f'query {name!r} appears {count} times; give each query a name of its own')
    _checked_names(self.index_images, 'index_images')
    known = {name_matching.nfc(image) for image in self.index_images}
    for query in self.queries if known else ():
      for label in LABELS:
        for image in getattr(query, label):
          if name_matching.nfc(image) not in known:
            raise ValueError(
              f'query {query.name!r}: {label} names {image!r}, which is not among the {len(known)}'
              ' index_images; add it there or remove it here'
            )


def _check_name(value: object, where: str) -> None:
  if not isinstance(value, str) or not value:
    raise ValueError(f'{where}: expected a text that is not empty, found {value!r}')
  if any('\ud800' <= letter <= '\udfff' for letter in value):
    raise ValueError(f'{where}: {value!r} has half of a surrogate pair, which UTF-8 cannot encode')


def _checked_names(names: Iterable[str], where: str) -> Iterable[str]:
  if not isinstance(names, tuple):
    raise ValueError(f'{where}: expected names in a tuple, found {type(names).__name__}')
  for name in names:
    _check_name(name, where)
  if len(set(names)) != len(names):
    name, count = collections.Counter(names).most_common(1)[0]
    raise ValueError(f'{where}: {name!r} appears {count} times; keep one')
  return names


def _check_box(box: object, where: str, form: str, *, upper: float) -> None:
  if box is None:
    return
  if not isinstance(box, tuple) or len(box) != 4 or not all(map(_is_finite_number, box)):
    raise ValueError(f'{where}: expected {form}, four finite numbers, found {box!r}')
  low, high = box[:2], box[2:]
  if not all(a < b for a, b in zip(low, high, strict=True)):
    raise ValueError(f'{where}: expected {form} with each minimum below its maximum, found {list(box)}')
  if upper < math.inf and (min(low) < 0 or max(high) > upper):
    raise ValueError(
      f'{where}: expected {form} normalised to [0, 1], found {list(box)}; pixels must be divided by the size'
    )


def _is_finite_number(value: object) -> bool:
  if isinstance(value, float):
    return math.isfinite(value)
  return isinstance(value, int) and not isinstance(value, bool)
