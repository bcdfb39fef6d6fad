"""The page of an experiment: summary, charts, and every query with the top of its ranked list."""

from collections.abc import Mapping

from delf_d2r.report import charts, parts
from delf_d2r.report.figures import PhotoSheet
from delf_d2r.report.markup import Markup, fragment, tag
from delf_d2r.report.match_sheet import MatchSheet
from delf_d2r.report.views import ExperimentView, MatchGroup, MatchView, QueryView

# Revisited reports medium and hard; medium has the most positive images and therefore orders the list.
_ORDERING_PROTOCOLS = ('medium', 'hard', 'easy')


def render(view: ExperimentView) -> str:
  """Returns one self-contained HTML file; the same view and photos give the same text.

  Queries are listed worst first: by average precision of medium (else hard, easy, or the first protocol),
  queries without average precision last, ties in the order of the view. Without scripts the page shows
  everything except the matches; a script adds sorting and filtering.
  """
  photos = PhotoSheet()
  matches = MatchSheet(photos)
  protocols = charts.protocols_of([query.average_precision for query in view.queries])
  order = _worst_first(view.queries, protocols)
  anchors = {position: f'q{position + 1}' for position in range(len(view.queries))}
  numbers = {
    (match.query_name, match.result.rank): matches.add(match, _heading(match))
    for group in view.match_groups
    for match in group.matches
  }
  buttons = {pair: matches.button(number) for pair, number in numbers.items()}
  sections = [
    _section(view.queries[position], anchors[position], protocols, photos, buttons) for position in order
  ]
  body = tag(
    'main',
    parts.heading(view.title, view.subtitle),
    parts.notes(view.notes),
    charts.comparison(view.methods),
    (parts.table(table) for table in view.tables),
    parts.facts(view.facts),
    parts.config(view.config_text),
    _matches(view.match_groups, photos, buttons),
    tag('h2', view.queries_title, id='queries'),
    _overview(view, protocols),
    charts.distribution(view.queries, anchors),
    parts.legend(view.queries),
    _toolbar(protocols) if len(view.queries) > 1 else None,
    tag('div', sections, id='query-list'),
  )
  scripts = ('script.js',) if len(view.queries) > 1 else ()
  return parts.page(view.title, body, photos=photos, matches=matches, scripts=scripts)


# The button of a match, by the name of its query and the rank of its result.
_Buttons = Mapping[tuple[str, int], Markup]


def _matches(groups: tuple[MatchGroup, ...], photos: PhotoSheet, buttons: _Buttons) -> Markup | None:
  """Returns the pairs of photos, grouped by the reason for which they were chosen, with buttons."""
  if not groups:
    return None
  count = sum(len(group.matches) for group in groups)
  is_fused = any(match.result.local_score is not None for group in groups for match in group.matches)
  whole = 'similarity of local features' if is_fused else 'score'
  return fragment(
    tag('h2', 'Why they matched', id='why'),
    tag(
      'p',
      f'{count} {"pair" if count == 1 else "pairs"} of a query and a result can be opened: each visual word'
      ' that both photos share is marked on both, coloured by its exact share of the'
      f' {whole}, and lines join'
      ' the inliers of spatial verification.',
    ),
    parts.MATCHES_NEED_SCRIPTS,
    (
      fragment(
        tag('h3', group.title, class_='group'),
        tag('p', group.explanation, class_='subtitle'),
        tag('ul', (_pair(match, photos, buttons) for match in group.matches), class_='pairs'),
      )
      for group in groups
    ),
  )


def _heading(match: MatchView) -> str:
  return f'{match.query_name} → {match.result.rank}. {match.result.name}'


def _pair(match: MatchView, photos: PhotoSheet, buttons: _Buttons) -> Markup:
  result = match.result
  document = match.document
  query_photo = photos.draw(
    match.query_path, alt=f'Query {match.query_name}', best_box=_part(document['query_box'])
  )
  photo = photos.draw(
    result.image_path,
    alt=f'Rank {result.rank}: {result.name}',
    best_box=result.boxes[result.best_region - 1] if result.best_region > 0 else None,
  )
  line = tag('span', tag('b', result.rank), parts.mark(result.label) if result.label else None, class_='line')
  name = tag('span', f'{match.query_name} → {result.name}', class_='name')
  button = buttons[match.query_name, result.rank]
  caption = tag('figcaption', line, name, button)
  pair = tag('figure', tag('div', query_photo, photo, class_='pair'), caption)
  return tag('li', pair, class_=result.label or 'unlabelled')


def _part(box: list[float]) -> list[float] | None:
  """Returns the box; None if it is the whole photo."""
  return None if box == [0, 0, 1, 1] else box


def _ordering_protocol(protocols: tuple[str, ...]) -> str | None:
  known = [protocol for protocol in _ORDERING_PROTOCOLS if protocol in protocols]
  return next(iter((*known, *protocols)), None)


def _worst_first(queries: tuple[QueryView, ...], protocols: tuple[str, ...]) -> list[int]:
  protocol = _ordering_protocol(protocols)

  def key(position: int) -> tuple[bool, float]:
    value = queries[position].average_precision.get(protocol) if protocol else None
    return (value is None, value or 0.0)

  return sorted(range(len(queries)), key=key)


def _overview(view: ExperimentView, protocols: tuple[str, ...]) -> Markup:
  count = len(view.queries)
  if not count:
    return tag('p', 'No queries.', class_='empty')
  sentence = f'{count} {"query" if count == 1 else "queries"}'
  protocol = _ordering_protocol(protocols)
  if count > 1:
    sentence += (
      ', in the order of the run' if protocol is None else f', lowest average precision ({protocol}) first'
    )
  sentence += '.'
  if protocol is not None:
    sentence += ' Values in per cent.'
  if not any(query.is_labelled for query in view.queries):
    sentence += ' No ground truth: results are not labelled.'
  return tag('p', sentence)


def _toolbar(protocols: tuple[str, ...]) -> Markup:
  """Returns the controls for sorting and filtering, hidden until the script that they need shows them."""
  ordering = _ordering_protocol(protocols)
  options = [
    tag('option', f'{protocol.capitalize()}: {direction} first', value=f'{sign}{column}',
        selected=protocol == ordering and sign == '+')
    for column, protocol in enumerate(protocols)
    for direction, sign in (('lowest', '+'), ('highest', '-'))
  ]  # fmt: skip
  options += [
    tag('option', 'Order of the run', value='order', selected=ordering is None),
    tag('option', 'Name', value='name'),
  ]
  mistakes = tag(
    'label', tag('input', type='checkbox', id='mistakes'), ' only with a wrong image above a right one'
  )
  return tag(
    'div',
    tag('label', 'Sort ', tag('select', options, id='sort')),
    tag('label', 'Name contains ', tag('input', type='search', id='filter', autocomplete='off')),
    mistakes if protocols else None,
    tag('output', id='count', aria_live='polite'),
    id='toolbar',
    role='group',
    aria_label='Sort and filter queries',
    hidden=True,
  )


def _section(
  query: QueryView, anchor: str, protocols: tuple[str, ...], photos: PhotoSheet, buttons: _Buttons
) -> Markup:
  own_buttons = {rank: button for (name, rank), button in buttons.items() if name == query.name}
  scores = [query.average_precision.get(protocol) for protocol in protocols]
  chips = [
    tag('li', tag('span', protocol.capitalize()), ' ', tag('b', parts.per_cent(value)))
    for protocol, value in zip(protocols, scores, strict=True)
  ]
  if query.seconds is not None:
    chips.append(tag('li', parts.duration(query.seconds)))
  head = tag(
    'header',
    tag('h3', tag('a', query.name, href=f'#{anchor}')),
    tag('ul', chips, class_='chips', aria_label='Average precision and time') if chips else None,
  )
  return tag(
    'section',
    head,
    parts.query_body(query, photos, own_buttons),
    id=anchor,
    class_='query',
    data_name=query.name,
    data_order=anchor[1:],
    data_ap=','.join('' if value is None else f'{value:.6f}' for value in scores),
    data_misranks=query.has_misranking,
  )
