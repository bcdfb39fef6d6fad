"""The page of runs that are compared query by query: intervals, gains and losses, links to the reports."""

import dataclasses
import html
import re
from collections.abc import Mapping, Sequence

from delf_d2r.evaluation.paired_comparison import PairedComparison
from delf_d2r.report import parts
from delf_d2r.report.figures import PhotoSheet
from delf_d2r.report.markup import Markup, tag
from delf_d2r.report.views import Cell, TableView

# Number of largest gains and of largest losses that are shown; all queries are listed by name below.
_EXTREMES = 10
# Ends of a chart's axis, in per cent.
_RANGES = (5, 10, 20, 50, 100)

_SECTION = re.compile(r'<section id="(q\d+)" class="query" data-name="([^"]*)"')


@dataclasses.dataclass(frozen=True)
class RunView:
  """One run.

  Attributes:
    name: of the run.
    comparisons: by protocol, the run compared with the baseline; empty for the baseline itself.
    links: address of a query in the report of the run; without the queries that the report does not show.
  """

  name: str
  comparisons: Mapping[str, PairedComparison]
  links: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class PairedView:
  """The page: a baseline and the runs that are compared with it."""

  title: str
  subtitle: str
  baseline: RunView
  runs: tuple[RunView, ...]


def query_anchors(page: str) -> dict[str, str]:
  """Returns the id of the section of each query in a page of experiment_page.py."""
  return {html.unescape(name): anchor for anchor, name in _SECTION.findall(page)}


def render(view: PairedView) -> str:
  """Returns one self-contained HTML file without scripts; the same view gives the same text."""
  body = tag(
    'main',
    parts.heading(view.title, view.subtitle),
    tag(
      'p',
      f'Each query is compared with itself: its average precision minus that under {view.baseline.name}, so'
      ' that the spread between easy and hard queries does not count. The interval is that of the mean'
      ' difference, from a bootstrap over queries, for each run by itself. A difference whose interval'
      ' excludes 0 is marked with *.',
    ),
    parts.table(_summary(view)),
    (_run(run, view.baseline) for run in view.runs),
  )
  return parts.page(view.title, body, photos=PhotoSheet())


def _summary(view: PairedView) -> TableView:
  rows: list[tuple[Cell, ...]] = [
    (
      run.name,
      protocol,
      len(found.queries),
      _mean(found.baseline),
      _mean(found.other),
      *interval_texts(found),
      len(found.won),
      len(found.lost),
      len(found.tied),
    )
    for run in view.runs
    for protocol, found in run.comparisons.items()
  ]
  columns = ('run', 'protocol', 'queries', 'mAP baseline', 'mAP', 'difference', 'interval')
  return TableView((*columns, 'won', 'lost', 'tied'), tuple(rows), 'Per cent; compared with the baseline.')


def interval_texts(found: PairedComparison) -> tuple[str, str]:
  """Returns the mean difference, with a * if it is significant, and its interval, both in per cent."""
  if not found.queries:
    return parts.DASH, parts.DASH
  interval = found.interval
  star = '*' if found.is_significant else ''
  return signed(interval.mean) + star, f'[{signed(interval.low)}, {signed(interval.high)}]'


def signed(fraction: float) -> str:
  """Returns a difference in per cent with its sign; a difference that rounds to zero is +0.0, never -0.0."""
  return f'{round(100 * fraction, 1) + 0.0:+.1f}'


def _mean(values) -> str:
  return parts.per_cent(float(values.mean()) if len(values) else None)


def _run(run: RunView, baseline: RunView) -> Markup:
  protocols = [(protocol, found) for protocol, found in run.comparisons.items() if found.queries]
  charts = tag('div', (_chart(protocol, found, run) for protocol, found in protocols), class_='charts')
  return tag('section', tag('h2', run.name), charts, (_lists(*pair, run, baseline) for pair in protocols))


def _chart(protocol: str, found: PairedComparison, run: RunView) -> Markup:
  """Returns a chart of the difference of every query, largest gain first, with links to the run's report."""
  order = [*found.won, *found.tied, *reversed(found.lost)]
  largest = 100 * max(map(abs, found.differences.tolist()))
  end = next((value for value in _RANGES if value >= largest), 100)
  bars = []
  for place, position in enumerate(order):
    query, percent = found.queries[position], 100 * float(found.differences[position])
    drawn = [
      tag('title', f'{query}: {percent:+.1f}'),
      tag('rect', class_='hit', x=place, y=-end, width=1, height=2 * end),
      tag('rect', class_='bar', x=f'{place + 0.1:.1f}', y=f'{min(-percent, 0):.2f}', width=0.8,
          height=f'{abs(percent):.2f}'),
    ]  # fmt: skip
    # The keyboard reaches queries by the lists below.
    href = run.links.get(query)
    bars.append(tag('a', drawn, href=href, tabindex=-1) if href else tag('g', drawn))
  count = len(order)
  summary = f'{len(found.won)} won, {len(found.lost)} lost, {len(found.tied)} tied'
  plot = tag(
    'svg',
    (tag('line', x1=0, x2=count, y1=y, y2=y) for y in (-end, 0, end)),
    bars,
    viewBox=f'0 {-end} {count} {2 * end}',
    preserveAspectRatio='none',
    role='img',
    aria_label=f'Difference of each query, {protocol}: {summary}',
  )
  labels = (tag('span', label) for label in (f'+{end}', '0', f'-{end}'))
  caption = tag('figcaption', tag('b', protocol.capitalize()), f' {summary}')
  return tag(
    'figure', caption, tag('div', tag('div', labels, class_='axis', aria_hidden='true'), plot, class_='plot')
  )


def _lists(protocol: str, found: PairedComparison, run: RunView, baseline: RunView) -> Markup:
  """Returns the largest gains and losses with links to both reports, and the names of all queries."""
  title = protocol.capitalize()
  extremes = (
    _extremes(f'{title}: largest {what}', found, positions[:_EXTREMES], run, baseline)
    for what, positions in (('gains', found.won), ('losses', found.lost))
    if positions
  )
  names = (
    tag('p', tag('b', f'{what} ({len(positions)}): '), _names(found, positions, run))
    for what, positions in (('Won', found.won), ('Lost', found.lost), ('Tied', found.tied))
  )
  return tag('div', extremes, tag('details', tag('summary', f'{title}: all queries by name'), names))


def _extremes(
  caption: str, found: PairedComparison, positions: Sequence[int], run: RunView, baseline: RunView
) -> Markup:
  rows = []
  for position in positions:
    query = found.queries[position]
    links = [
      tag('a', name, href=side.links[query])
      for name, side in (('baseline', baseline), ('run', run))
      if query in side.links
    ]
    aps = (parts.per_cent(float(values[position])) for values in (found.baseline, found.other))
    shown = Markup(' \u00b7 '.join(links)) if links else None
    rows.append((query, *aps, signed(found.differences[position]), shown))
  return parts.table(TableView(('query', 'AP baseline', 'AP', 'difference', 'reports'), tuple(rows), caption))


def _names(found: PairedComparison, positions: Sequence[int], run: RunView) -> Markup | str:
  if not positions:
    return 'none'
  names = (found.queries[position] for position in positions)
  linked = (
    tag('a', name, href=run.links.get(name)) if name in run.links else tag('span', name) for name in names
  )
  return Markup(', '.join(linked))
