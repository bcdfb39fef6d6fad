"""Draws the layers as a matrix: rows import columns, so every import lies below the diagonal.

  python tests/support/layers_picture.py

writes docs/layers.svg; `make docs` runs it.
"""

import collections
import pathlib
import sys

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS)]

import test_layers  # noqa: E402

from delf_d2r.report.markup import Markup, fragment, tag  # noqa: E402

PICTURE = test_layers.REPOSITORY / 'docs' / 'layers.svg'

_CELL = 16
_LABELS = 130
_HEAD = 120
_STYLE = (
  'text{font:11px sans-serif;fill:#333}.own{fill:#bbb}.import{fill:#2563a8}'
  '.wrong{fill:#c0392b}line{stroke:#ddd}rect.paper{fill:#fff}'
)


def render() -> str:
  """Returns the SVG of the layers as the imports are now."""
  imports = collections.defaultdict(set)
  for package, file in test_layers.sources():
    imports[package].update(test_layers.packages_imported(file))
  packages = [package for package in test_layers.LAYERS if package in imports]
  size = _CELL * len(packages)
  width, height = _LABELS + size + 60, _HEAD + size + 10
  parts = [tag('rect', class_='paper', width=width, height=height)]
  for i, package in enumerate(packages):
    x, y = _LABELS + i * _CELL, _HEAD + i * _CELL
    parts += [
      tag('text', package, x=_LABELS - 6, y=y + 12, text_anchor='end'),
      tag('text', package, transform=f'translate({x + 12},{_HEAD - 6}) rotate(-60)'),
      tag('line', x1=_LABELS, x2=_LABELS + size, y1=y, y2=y),
      tag('line', x1=x, x2=x, y1=_HEAD, y2=_HEAD + size),
    ]
    parts += [
      tag('rect', x=_LABELS + j * _CELL + 2, y=y + 2, width=_CELL - 3, height=_CELL - 3,
          class_='own' if i == j else 'import' if j < i else 'wrong')
      for j, other in enumerate(packages)
      if i == j or other in imports[package]
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
