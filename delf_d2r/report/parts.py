"""The parts that pages share: the document, tables, facts, notes, and a query with its results."""

import base64
import hashlib
import importlib.resources
import numbers
import re
from collections.abc import Iterable, Mapping, Sequence

from delf_d2r.report import match_sheet, scores
from delf_d2r.report.figures import PhotoSheet
from delf_d2r.report.markup import Markup, tag
from delf_d2r.report.match_sheet import MatchSheet
from delf_d2r.report.views import Cell, QueryView, ResultView, TableView

DASH = '\u2013'
QUERY_LONG_SIDE = 320

# A sign besides the colour, for readers who cannot tell the colours apart.
_SIGNS = {'right': '✓', 'wrong': '✕', 'junk': '○', 'query': '◆'}
_LEGEND = {
  'right': 'shows the object of the query',
  'wrong': 'shows something else',
  'junk': 'not counted',
  'query': 'the query image itself, not counted',
}
MATCHES_NEED_SCRIPTS = tag('noscript', tag('p', 'Matches open in a browser that runs scripts.'))
# The modules are concatenated, imported ones first, so that imports and exports are removed.
_IMPORT = re.compile(r'^import [^;]*;\n', re.MULTILINE)
_EXPORT = re.compile(r'^export ', re.MULTILINE)
_NUMBER_WITH_UNIT = re.compile(r'[-+]?[\d,.]+(e[-+]?\d+)?\s*(%|[A-Za-zµ]{1,5})?')


def page(
  title: str,
  *body: Markup,
  photos: PhotoSheet,
  matches: MatchSheet | None = None,
  scripts: tuple[str, ...] = (),
) -> str:
  """Returns a whole document with its styles, scripts and photos; nothing is fetched from elsewhere.

  The content security policy admits only the style sheet and the script, by their hashes, and images from
  `data:` URIs.

  Args:
    title: of the document.
    *body: the content.
    photos: the photos that `body` and `matches` have drawn.
    matches: the matches whose buttons are in `body`.
    scripts: names of assets, in order.
  """
  has_matches = bool(matches)
  style = styles(('style.css', *(match_sheet.STYLES if has_matches else ())))
  code = script((*scripts, *(match_sheet.SCRIPTS if has_matches else ())))
  policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}; base-uri 'none'; form-action 'none'"
  if code:
    policy += f'; script-src {_hash(code)}'
  document = tag(
    'html',
    '\n',
    tag(
      'head',
      tag('meta', charset='utf-8'),
      tag('meta', http_equiv='Content-Security-Policy', content=policy),
      tag('meta', name='viewport', content='width=device-width, initial-scale=1'),
      tag('meta', name='color-scheme', content='light dark'),
      tag('meta', name='referrer', content='no-referrer'),
      tag('title', title),
      tag('link', rel='icon', href='data:,'),
      tag('style', style),
    ),
    '\n',
    tag(
      'body',
      photos.symbols(),
      '\n',
      *body,
      matches.data() if matches else None,
      tag('script', code) if code else None,
    ),
    '\n',
    lang='en',
  )
  return f'<!DOCTYPE html>\n{document}\n'


def styles(names: Sequence[str]) -> Markup:
  """Returns the style sheets with the given names as one; later ones override earlier ones."""
  return Markup('\n'.join(map(_read_asset, names)))


def script(names: Sequence[str]) -> Markup:
  """Returns the modules with the given names as one script, for pages that fetch nothing; '' for no names.

  The names that they declare at their top level must differ.
  """
  if not names:
    return Markup('')
  modules = [_EXPORT.sub('', _IMPORT.sub('', _read_asset(name))) for name in names]
  return Markup("(() => {\n'use strict';\n" + '\n'.join(modules) + '})();\n')


def _read_asset(name: str) -> str:
  return importlib.resources.files('delf_d2r.report').joinpath('assets', name).read_text('utf-8')


def _hash(source: str) -> str:
  digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode('ascii')
  return f"'sha256-{digest}'"


def heading(title: str, subtitle: str = '') -> Markup:
  """Returns the heading of a page."""
  return tag('header', tag('h1', title), tag('p', subtitle, class_='subtitle') if subtitle else None)


def per_cent(fraction: float | None) -> str:
  """Returns a fraction in per cent with one decimal, as in the tables of papers; a dash for None."""
  return DASH if fraction is None else f'{100 * fraction:.1f}'


def duration(seconds: float) -> str:
  """Returns a duration with a fitting unit."""
  if seconds < 0.9995e-3:
    return f'{seconds * 1e6:.0f} µs'
  if seconds < 0.9995:
    return f'{seconds * 1e3:.3g} ms'
  return f'{seconds:.3g} s' if seconds < 99.95 else f'{seconds:.0f} s'


def table(view: TableView) -> Markup:
  """Returns a table in a frame that scrolls on narrow screens; the first cell of a row is its heading."""
  is_number = [
    bool(view.rows) and all(_is_numeric(row[column]) for row in view.rows)
    for column in range(len(view.columns))
  ]

  def cell(row: tuple[Cell, ...], column: int) -> Markup:
    css_class = 'number' if is_number[column] else None
    if column == 0:
      return tag('th', _cell_text(row[0]), scope='row', class_=css_class)
    return tag('td', _cell_text(row[column]), class_=css_class)

  columns = range(len(view.columns))
  head = tag(
    'tr',
    (
      tag('th', view.columns[column], scope='col', class_='number' if is_number[column] else None)
      for column in columns
    ),
  )
  rows = (tag('tr', (cell(row, column) for column in columns)) for row in view.rows)
  # Focusable, so that the keyboard can scroll it.
  return tag(
    'div',
    tag(
      'table',
      tag('caption', view.caption) if view.caption else None,
      tag('thead', head),
      tag('tbody', rows),
    ),
    class_='scroll',
    tabindex=0,
    role='region',
    aria_label=view.caption or 'Table',
  )


def _is_numeric(value: Cell) -> bool:
  if not isinstance(value, str):
    return True
  return value in ('', '-', DASH) or _NUMBER_WITH_UNIT.fullmatch(value) is not None


def _cell_text(value: Cell) -> str:
  if value is None:
    return DASH
  if isinstance(value, str):
    return value
  return f'{value:,}' if isinstance(value, numbers.Integral) else f'{value:#.4g}'.removesuffix('.')


def facts(values: Mapping[str, str]) -> Markup:
  """Returns names and values as a list; nothing if there are none."""
  if not values:
    return Markup('')
  pairs = (tag('div', tag('dt', name), tag('dd', value)) for name, value in values.items())
  return tag('dl', pairs, class_='facts')


def notes(paragraphs: tuple[str, ...]) -> Markup:
  """Returns notes for the reader; nothing if there are none."""
  if not paragraphs:
    return Markup('')
  return tag('aside', (tag('p', paragraph) for paragraph in paragraphs), class_='notes', aria_label='Notes')


def config(config_text: str) -> Markup:
  """Returns the resolved config, collapsed."""
  if not config_text:
    return Markup('')
  return tag('details', tag('summary', 'Config'), tag('pre', tag('code', config_text)))


def legend(queries: tuple[QueryView, ...]) -> Markup:
  """Returns the legend of the labels and box styles that occur in `queries`."""
  results = [result for query in queries for result in query.results]
  used = {result.label for result in results}
  items = [
    tag('li', mark(label), ' ', tag('span', meaning)) for label, meaning in _LEGEND.items() if label in used
  ]
  yellow = []
  if any(query.box is not None for query in queries):
    yellow.append('that was searched')
  if any(result.best_region > 0 for result in results):
    yellow.append('that matches best')
  if yellow:
    meaning = f'box {", or ".join(yellow)}'
    items.append(tag('li', tag('span', class_='swatch best'), ' ', tag('span', meaning)))
  if any(len(result.boxes) > (result.best_region > 0) for result in results):
    meaning = 'other boxes' if yellow else 'boxes'
    items.append(tag('li', tag('span', class_='swatch'), ' ', tag('span', meaning)))
  if any(result.inliers is not None for result in results):
    items.append(_term('inliers', scores.INLIERS))
  if queries and any(result.local_score is not None for result in results):
    items += [_term(*item) for item in queries[0].score_meanings.items()]
  return tag('ul', items, class_='legend', aria_label='Legend') if items else Markup('')


def _term(term: str, meaning: str) -> Markup:
  return tag('li', tag('b', term), ' ', tag('span', meaning))


def query_body(query: QueryView, photos: PhotoSheet, buttons: Mapping[int, Markup] | None = None) -> Markup:
  """Returns a query photo with its box, and its results beside it, with `buttons` by rank."""
  photo = photos.draw(
    query.image_path, alt=f'Query {query.name}', best_box=query.box, long_side=QUERY_LONG_SIDE
  )
  caption = tag('figcaption', 'Query' if query.box is None else 'Query: the box was searched')
  if query.results:
    places = scores.decimals(query.results)
    items = (_result(result, places, photos, (buttons or {}).get(result.rank)) for result in query.results)
    shown = tag('ol', items, class_='results')
  else:
    shown = tag('p', 'No results.', class_='empty')
  return tag('div', tag('figure', photo, caption, class_='query-photo'), shown, class_='query-body')


def _result(result: ResultView, places: int, photos: PhotoSheet, button: Markup | None) -> Markup:
  best = result.best_region
  others = [box for r, box in enumerate(result.boxes, start=1) if r != best]
  label = f', {result.label}' if result.label else ''
  photo = photos.draw(
    result.image_path,
    alt=f'Rank {result.rank}{label}: {result.name}',
    boxes=others,
    best_box=result.boxes[best - 1] if best > 0 else None,
  )
  line = tag(
    'span',
    tag('b', result.rank),
    mark(result.label) if result.label else None,
    tag('span', scores.number(result.score, places), class_='score'),
    class_='line',
  )
  notes = []
  if result.inliers is not None:
    notes.append(f'{result.inliers} {"inlier" if result.inliers == 1 else "inliers"}')
  if best >= 0 and len(result.boxes):
    notes.append('best: whole image' if best == 0 else f'best: box {best} of {len(result.boxes)}')
  details = [tag('span', note, class_='region') for note in notes]
  name = tag('span', result.name, class_='name', title=result.name)
  both = scores.both_parts(result.local_score, result.global_score, places)
  # A part is not broken between its name and its number.
  summands = tag('span', _separated(tag('span', part, class_='whole') for part in both), class_='region')
  figure = tag('figure', photo, tag('figcaption', line, summands if both else None, name, details, button))
  return tag('li', figure, class_=result.label or 'unlabelled')


def _separated(pieces: Iterable[Markup]) -> Markup:
  return Markup(', '.join(pieces))


def mark(label: str) -> Markup:
  """Returns a label of `LABELS` with its sign."""
  return tag('span', tag('i', _SIGNS[label], aria_hidden='true'), f' {label}', class_=f'mark {label}')
