"""Charts of average precision: bars that scale with the page, with labels as HTML text."""

import statistics
from collections.abc import Mapping

from delf_d2r.report.markup import Markup, tag
from delf_d2r.report.parts import per_cent
from delf_d2r.report.views import MethodView, QueryView


def protocols_of(scores: list[Mapping[str, float | None]]) -> tuple[str, ...]:
  """Returns the protocols that occur, in the order of their first appearance."""
  return tuple(dict.fromkeys(protocol for values in scores for protocol in values))


def comparison(methods: tuple[MethodView, ...]) -> Markup:
  """Returns a table of mAP by method and protocol with a bar in each cell; the best of a column is bold."""
  if not methods:
    return Markup('')
  protocols = protocols_of([method.mean_average_precision for method in methods])
  values = {
    protocol: [method.mean_average_precision.get(protocol) for method in methods] for protocol in protocols
  }
  best = {
    protocol: max((v for v in column if v is not None), default=None) for protocol, column in values.items()
  }

  def cell(row: int, protocol: str) -> Markup:
    value = values[protocol][row]
    # The rounded values are compared, so that two methods of 96.2 are both the best.
    is_best = value is not None and len(methods) > 1 and per_cent(value) == per_cent(best[protocol])
    return tag('td', tag('strong' if is_best else 'span', per_cent(value)), _bar(value))

  head = tag(
    'tr',
    tag('th', 'Method', scope='col'),
    (tag('th', protocol.capitalize(), scope='col') for protocol in protocols),
  )
  rows = (
    tag('tr', tag('th', method.name, scope='row'), (cell(row, protocol) for protocol in protocols))
    for row, method in enumerate(methods)
  )
  caption = tag('caption', 'Mean average precision, per cent; the best of a column is bold')
  return tag(
    'div',
    tag('table', caption, tag('thead', head), tag('tbody', rows), class_='comparison'),
    class_='scroll',
    tabindex=0,
    role='region',
    aria_label='Comparison of methods',
  )


def _bar(value: float | None) -> Markup:
  width = 0.0 if value is None else 100 * min(max(value, 0.0), 1.0)
  return tag(
    'svg',
    tag('rect', class_='track', width=100, height=1),
    tag('rect', class_='bar', width=f'{width:.1f}', height=1),
    viewBox='0 0 100 1',
    preserveAspectRatio='none',
    aria_hidden='true',
  )


def distribution(queries: tuple[QueryView, ...], anchors: Mapping[int, str]) -> Markup:
  """Returns a bar chart for each protocol: the average precision of every query, best first.

  Args:
    queries: the queries.
    anchors: position in `queries` to the id of the query's section, which the bar is a link to.
  """
  protocols = protocols_of([query.average_precision for query in queries])
  charts = [_protocol_chart(protocol, queries, anchors) for protocol in protocols]
  return tag('div', charts, class_='charts') if charts else Markup('')


def _protocol_chart(protocol: str, queries: tuple[QueryView, ...], anchors: Mapping[int, str]) -> Markup:
  scored = sorted(
    (-value, position)
    for position, query in enumerate(queries)
    if (value := query.average_precision.get(protocol)) is not None
  )
  title = protocol.capitalize()
  if not scored:
    return tag('figure', tag('figcaption', tag('b', title), ' no query has a positive image'))
  values = [-negative for negative, _ in scored]
  summary = (
    f'{len(values)} {"query" if len(values) == 1 else "queries"},'
    f' median {per_cent(statistics.median(values))}, lowest {per_cent(values[-1])}'
  )
  grid = (tag('line', x1=0, x2=len(values), y1=y, y2=y) for y in (0, 50, 100))
  bars = []
  for place, (value, (_, position)) in enumerate(zip(values, scored, strict=True)):
    height = max(100 * value, 1.0)  # A query with AP 0 stays visible.
    # The click area is the whole column. The keyboard reaches queries by the list below.
    bars.append(
      tag(
        'a',
        tag('title', f'{queries[position].name}: {per_cent(value)}'),
        tag('rect', class_='hit', x=place, y=0, width=1, height=100),
        tag('rect', class_='bar', x=f'{place + 0.1:.1f}', y=f'{100 - height:.1f}', width=0.8,
            height=f'{height:.1f}'),
        href=f'#{anchors[position]}',
        tabindex=-1,
      )
    )  # fmt: skip
  plot = tag(
    'svg',
    grid,
    bars,
    viewBox=f'0 0 {len(values)} 100',
    preserveAspectRatio='none',
    role='img',
    aria_label=f'Average precision of each query, {title}: {summary}',
  )
  axis = tag('div', (tag('span', label) for label in ('100', '50', '0')), class_='axis', aria_hidden='true')
  caption = tag('figcaption', tag('b', title), f' {summary}')
  return tag('figure', caption, tag('div', axis, plot, class_='plot'))
