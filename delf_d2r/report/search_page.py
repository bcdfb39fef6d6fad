"""The page of one search: the query photo with its box, and the ranked list."""

from delf_d2r.report import parts
from delf_d2r.report.figures import PhotoSheet
from delf_d2r.report.markup import tag
from delf_d2r.report.match_sheet import MatchSheet
from delf_d2r.report.views import SearchView


def render(view: SearchView) -> str:
  """Returns one self-contained HTML file; the same view and photos give the same text.

  Without scripts the page shows everything except the matches.
  """
  photos = PhotoSheet()
  matches = MatchSheet(photos)
  query = view.query
  count = len(query.results)
  subtitle = f'{query.name}: {count} {"result" if count == 1 else "results"}'
  if query.seconds is not None:
    subtitle += f' in {parts.duration(query.seconds)}'
  precision = ', '.join(
    f'{protocol} {parts.per_cent(value)}' for protocol, value in query.average_precision.items()
  )
  buttons = {
    match.result.rank: matches.button(matches.add(match, f'{match.result.rank}. {match.result.name}'))
    for match in view.matches
  }
  body = tag(
    'main',
    parts.heading(view.title, subtitle),
    parts.notes(view.notes),
    tag('p', f'Average precision, per cent: {precision}.') if precision else None,
    parts.legend((query,)),
    parts.MATCHES_NEED_SCRIPTS if buttons else None,
    tag('section', parts.query_body(query, photos, buttons), class_='query', aria_label='Results'),
    parts.facts(view.facts),
    parts.config(view.config_text),
  )
  return parts.page(f'{view.title}: {query.name}', body, photos=photos, matches=matches)
