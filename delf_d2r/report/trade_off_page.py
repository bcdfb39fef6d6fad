"""The page of a curve over the score threshold of boxes: mAP and index size by the number of boxes."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from delf_d2r.report import parts
from delf_d2r.report.charts import protocols_of
from delf_d2r.report.figures import PhotoSheet
from delf_d2r.report.markup import Markup, tag
from delf_d2r.report.views import TableView

_WIDTH, _HEIGHT = 640, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 20, 44


@dataclasses.dataclass(frozen=True)
class TradeOffPoint:
  """The measurements at one threshold, averaged over the index images.

  Attributes:
    threshold: boxes of lower scores are dropped.
    boxes, postings, index_bytes: for each index image.
    mean_average_precision: mAP by protocol, as a fraction; NaN if no query has positives.
  """

  threshold: float
  boxes: float
  postings: float
  index_bytes: float
  mean_average_precision: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class TradeOffView:
  """The page: the points in ascending order of threshold."""

  title: str
  subtitle: str
  points: tuple[TradeOffPoint, ...]


def render(view: TradeOffView) -> str:
  """Returns one self-contained HTML file without scripts; the same view gives the same text."""
  points = view.points
  boxes = [point.boxes for point in points]
  labels = [f'{point.threshold:g}' for point in points]
  protocols = protocols_of([point.mean_average_precision for point in points])
  charts = [
    _chart(
      f'mAP {protocol}, per cent', boxes, [100 * p.mean_average_precision[protocol] for p in points], labels
    )
    for protocol in protocols
  ]
  charts.append(_chart('Index, kB for each image', boxes, [p.index_bytes / 1000 for p in points], labels))
  table = TableView(
    ('threshold', 'boxes/image', 'postings/image', 'index bytes/image', *(f'mAP {p}' for p in protocols)),
    tuple(
      (
        f'{point.threshold:g}',
        f'{point.boxes:.2f}',
        f'{point.postings:.0f}',
        f'{point.index_bytes:,.0f}',
        *(_per_cent(point.mean_average_precision[protocol]) for protocol in protocols),
      )
      for point in points
    ),
    'mAP in per cent.',
  )
  body = tag(
    'main',
    parts.heading(view.title, view.subtitle),
    tag(
      'p',
      'The horizontal axis is the mean number of boxes of an image. The label of a point is its threshold.',
    ),
    tag('div', charts, class_='curves'),
    parts.table(table),
  )
  return parts.page(view.title, body, photos=PhotoSheet())


def _per_cent(fraction: float) -> str | None:
  return None if math.isnan(fraction) else parts.per_cent(fraction)


def _chart(title: str, across: Sequence[float], up: Sequence[float], labels: Sequence[str]) -> Markup:
  """Returns a line chart of points (across, up) with a label at each; points without a value are omitted."""
  known = [(x, y, label) for x, y, label in zip(across, up, labels, strict=True) if not math.isnan(y)]
  caption = tag('figcaption', tag('b', title), None if known else ' no query has a positive image')
  if not known:
    return tag('figure', caption)
  x_ticks, y_ticks = _ticks([x for x, _, _ in known]), _ticks([y for _, y, _ in known])

  def place(x: float, y: float) -> tuple[float, float]:
    share_x = (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
    share_y = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
    return (
      round(_LEFT + share_x * (_WIDTH - _LEFT - _RIGHT), 1),
      round(_HEIGHT - _BOTTOM - share_y * (_HEIGHT - _TOP - _BOTTOM), 1),
    )

  grid, marks = [], []
  for tick in y_ticks:
    x, y = place(x_ticks[0], tick)
    grid.append(tag('line', x1=x, x2=_WIDTH - _RIGHT, y1=y, y2=y))
    grid.append(tag('text', f'{tick:g}', x=x - 8, y=y + 4, text_anchor='end'))
  for tick in x_ticks:
    x, y = place(tick, y_ticks[0])
    grid.append(tag('text', f'{tick:g}', x=x, y=y + 18, text_anchor='middle'))
  grid.append(tag('text', 'boxes for each image', x=_WIDTH - _RIGHT, y=_HEIGHT - 6, text_anchor='end'))
  spots = [place(x, y) for x, y, _ in known]
  for (x, y), (boxes, value, label) in zip(spots, known, strict=True):
    description = f'threshold {label}: {boxes:.2f} boxes, {value:.2f}'
    marks.append(tag('circle', tag('title', description), class_='bar', cx=x, cy=y, r=4))
    marks.append(tag('text', label, x=x, y=y - 9, text_anchor='middle', class_='label'))
  path = 'M' + ' L'.join(f'{x} {y}' for x, y in sorted(spots))
  return tag(
    'figure',
    caption,
    tag(
      'svg', grid, tag('path', d=path), marks, viewBox=f'0 0 {_WIDTH} {_HEIGHT}', role='img', aria_label=title
    ),
  )


def _ticks(values: Sequence[float]) -> list[float]:
  """Returns three to six round numbers that enclose the values."""
  low, high = min(values), max(values)
  span = (high - low) or max(abs(high), 1.0)
  step = 10.0 ** math.floor(math.log10(span))
  step *= next(factor for factor in (0.25, 0.5, 1, 2) if span / (factor * step) <= 5)
  first, last = math.floor(low / step), math.ceil(high / step)
  return [round(n * step, 10) for n in range(first, max(last, first + 1) + 1)]
