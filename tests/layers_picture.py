"""The house as a matrix: rows import columns. The street is one-way if all of it lies below the diagonal.

  python tests/layers_picture.py

writes docs/layers.svg anew; tests/test_layers.py compares it with the imports.
"""

import collections
import pathlib

import test_layers

from delf_d2r.report.markup import Markup, fragment, tag

PICTURE = test_layers.REPOSITORY / 'docs' / 'layers.svg'

_CELL = 16
_LABELS = 130
_HEAD = 120
_STYLE = (
  'text{font:11px sans-serif;fill:#333}.own{fill:#bbb}.import{fill:#2563a8}'
  '.wrong{fill:#c0392b}line{stroke:#ddd}rect.paper{fill:#fff}'
)


def render() -> str:
  """The SVG of the package as it is now."""
  rooms = sorted(test_layers.LAYERS, key=lambda room: (test_layers.LAYERS[room], room))
  imports = collections.defaultdict(set)
  for room, file in test_layers._sources():
    imports[room].update(test_layers._rooms_imported(file))
  rooms = [room for room in rooms if room in imports]
  size = _CELL * len(rooms)
  width, height = _LABELS + size + 60, _HEAD + size + 10
  parts = [tag('rect', class_='paper', width=width, height=height)]
  for i, room in enumerate(rooms):
    x, y = _LABELS + i * _CELL, _HEAD + i * _CELL
    parts += [
      tag('text', room, x=_LABELS - 6, y=y + 12, text_anchor='end'),
      tag('text', room, transform=f'translate({x + 12},{_HEAD - 6}) rotate(-60)'),
      tag('line', x1=_LABELS, x2=_LABELS + size, y1=y, y2=y),
      tag('line', x1=x, x2=x, y1=_HEAD, y2=_HEAD + size),
    ]
    parts += [
      tag('rect', x=_LABELS + j * _CELL + 2, y=y + 2, width=_CELL - 3, height=_CELL - 3,
          class_='own' if i == j else 'import' if j < i else 'wrong')
      for j, other in enumerate(rooms)
      if i == j or other in imports[room]
    ]  # fmt: skip
  title = tag('title', 'Rows import columns')
  return tag(
    'svg',
    title,
    tag('style', Markup(_STYLE)),
    fragment(parts),
    xmlns='http://www.w3.org/2000/svg',
    viewBox=f'0 0 {width} {height}',
    width=width,
    height=height,
  )


if __name__ == '__main__':
  pathlib.Path(PICTURE).write_text(f'{render()}\n', encoding='utf-8')
