"""Photos with boxes drawn on them, each photo embedded once in a page."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from delf_d2r.report.markup import Markup, fragment, tag
from delf_d2r.report.thumbnails import LONG_SIDE, PhotoError, Thumbnail, make_thumbnail

_PLACEHOLDER_SIZE = (160, 120)


class PhotoSheet:
  """The photos of one page.

  `draw` makes figures that refer to a photo by `<use>`; `symbols` holds each photo once and must be in the
  same page. An index image that is a result of many queries thus costs its bytes once, and is visible without
  scripts and in print.
  """

  def __init__(self) -> None:
    self._photos: dict[tuple[Path, int], tuple[str, Thumbnail] | str] = {}

  def draw(
    self,
    path: Path | None,
    *,
    alt: str,
    boxes: Iterable = (),
    best_box: np.ndarray | Sequence[float] | None = None,
    long_side: int = LONG_SIDE,
  ) -> Markup:
    """Returns an `<svg>` of the photo with `boxes` in thin and `best_box` in thick lines.

    Where there is no photo, it is a placeholder.

    Args:
      path: the photo's file, or None.
      alt: text alternative of the photo.
      boxes: [R, 4], `[ymin, xmin, ymax, xmax]` normalised.
      best_box: one more box (4 numbers).
      long_side: of the thumbnail, in pixels.
    """
    photo = self.photo(path, long_side)
    if isinstance(photo, str):
      return _placeholder(alt, photo)
    identifier, thumbnail = photo
    width, height = thumbnail.width, thumbnail.height
    return tag(
      'svg',
      tag('use', href=f'#{identifier}'),
      _outlines(boxes, width, height, 'box'),
      _outlines(() if best_box is None else (best_box,), width, height, 'box best'),
      viewBox=f'0 0 {width} {height}',
      role='img',
      aria_label=alt,
    )

  def symbols(self) -> Markup:
    """Returns the photos themselves, in an `<svg>` of no size."""
    images = (
      tag('image', id=photo[0], width=photo[1].width, height=photo[1].height, href=photo[1].data_uri)
      for photo in self._photos.values()
      if not isinstance(photo, str)
    )
    return tag(
      'svg', tag('defs', images), class_='symbols', width=0, height=0, aria_hidden='true', focusable='false'
    )

  def photo(self, path: Path | None, long_side: int) -> tuple[str, Thumbnail] | str:
    """Returns the id of the photo in `symbols` and its thumbnail; or why there is no thumbnail."""
    if path is None:
      return 'no photo'
    key = (path, long_side)
    if key not in self._photos:
      try:
        self._photos[key] = (f'p{len(self._photos)}', make_thumbnail(path, long_side=long_side))
      except PhotoError as error:
        self._photos[key] = str(error)
    return self._photos[key]


def _outlines(boxes: Iterable, width: int, height: int, css_class: str) -> Markup:
  """Returns all boxes as one path, drawn twice: a dark halo keeps the line visible on any photo."""
  steps = []
  for ymin, xmin, ymax, xmax in boxes:
    x, y = float(xmin) * width, float(ymin) * height
    steps.append(f'M{x:.1f} {y:.1f}H{float(xmax) * width:.1f}V{float(ymax) * height:.1f}H{x:.1f}z')
  if not steps:
    return Markup('')
  path = ''.join(steps)
  return fragment(tag('path', class_=f'{css_class} halo', d=path), tag('path', class_=css_class, d=path))


def _placeholder(alt: str, reason: str) -> Markup:
  width, height = _PLACEHOLDER_SIZE
  return tag(
    'svg',
    tag('rect', width='100%', height='100%'),
    tag('text', reason, x='50%', y='50%'),
    class_='placeholder',
    viewBox=f'0 0 {width} {height}',
    role='img',
    aria_label=f'{alt} ({reason})',
  )
