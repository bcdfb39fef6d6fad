"""Draws the figure of benchmark_million.py: four panels of costs against images, on logarithmic axes."""

import math
from collections.abc import Sequence

from delf_d2r.report.markup import tag

_WIDTH, _HEIGHT = 400, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 40, 40, 44
_STYLE = (
  'text{font:12px sans-serif;fill:#333}.title{font-weight:bold}.paper{fill:#fff}.grid{stroke:#ddd}'
  '.one{stroke:#2563a8;fill:#2563a8}.two{stroke:#c0392b;fill:#c0392b}text.one,text.two{stroke:none}'
  'path.one,path.two{fill:none;stroke-width:2}'
)


def draw(panels: Sequence[tuple[str, dict[str, list[tuple[int, float]]]]]) -> str:
  """Draws an SVG of panels (title, points (images, value) by label), two in a row, at most two lines each."""
  rows = -(-len(panels) // 2)
  body = [
    tag('g', _panel(title, lines), transform=f'translate({number % 2 * _WIDTH} {number // 2 * _HEIGHT})')
    for number, (title, lines) in enumerate(panels)
  ]
  return str(
    tag(
      'svg',
      tag('style', _STYLE),
      tag('rect', class_='paper', width=2 * _WIDTH, height=rows * _HEIGHT),
      body,
      xmlns='http://www.w3.org/2000/svg',
      viewBox=f'0 0 {2 * _WIDTH} {rows * _HEIGHT}',
      width=2 * _WIDTH,
      height=rows * _HEIGHT,
      role='img',
      aria_label='Growth of the index with the number of images',
    )
  )


def _panel(title: str, lines: dict[str, list[tuple[int, float]]]) -> list:
  points = [point for line in lines.values() for point in line]
  x_ticks = _decades([images for images, _ in points])
  y_ticks = _decades([value for _, value in points])

  def place(images: float, value: float) -> tuple[float, float]:
    share_x = (math.log10(images) - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
    share_y = (math.log10(value) - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    return round(_LEFT + share_x * width, 1), round(_HEIGHT - _BOTTOM - share_y * height, 1)

  parts = [tag('text', title, class_='title', x=_LEFT, y=22)]
  for tick in y_ticks:
    x, y = place(10 ** x_ticks[0], 10.0**tick)
    parts.append(tag('line', class_='grid', x1=x, x2=_WIDTH - _RIGHT, y1=y, y2=y))
    parts.append(tag('text', f'{10.0**tick:g}', x=x - 8, y=y + 4, text_anchor='end'))
  for tick in x_ticks:
    x, y = place(10**tick, 10.0 ** y_ticks[0])
    parts.append(tag('text', f'{10**tick:,}', x=x, y=y + 18, text_anchor='middle'))
  for color, (label, line) in zip(('one', 'two'), lines.items(), strict=False):
    spots = [place(*point) for point in line]
    parts.append(tag('path', class_=color, d='M' + ' L'.join(f'{x} {y}' for x, y in spots)))
    # Labels stand above the upper line and below the lower one, the first of them beside the axis.
    rise = 18 if color == 'two' else -8
    for number, ((x, y), (_, value)) in enumerate(zip(spots, line, strict=True)):
      anchor = 'middle' if number else 'start'
      parts.append(tag('circle', class_=color, cx=x, cy=y, r=3))
      parts.append(tag('text', f'{value:.2g}', class_=color, x=x, y=y + rise, text_anchor=anchor))
    if len(lines) > 1:
      offset = 14 * (color == 'two')
      parts.append(tag('text', label, class_=color, x=_LEFT + 8, y=_TOP + 8 + offset))
  return parts


def _decades(values: Sequence[float]) -> list[int]:
  """Powers of ten that enclose the values, at least two."""
  first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
  return list(range(first, max(last, first + 1) + 1))
