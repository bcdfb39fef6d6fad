"""The matches of one page: buttons that open them, and the data that the script then shows."""

import json

from delf_d2r.report import scores
from delf_d2r.report.figures import PhotoSheet
from delf_d2r.report.markup import Markup, tag
from delf_d2r.report.views import MatchView

LONG_SIDE = 512

STYLES = ('match_view.css',)
SCRIPTS = ('dom.js', 'match_view.js', 'matches.js')


class MatchSheet:
  """The matches of one page.

  `data` holds the matches that were added. It must be in the same page, as must the symbols of the photos.
  """

  def __init__(self, photos: PhotoSheet):
    """Takes the photos of the page, to which the photos of the matches are added in size `LONG_SIDE`."""
    self._photos = photos
    self._entries: list[dict] = []

  def __len__(self) -> int:
    return len(self._entries)

  def add(self, match: MatchView, heading: str) -> int:
    """Adds a match, to be shown under a heading, and returns its number."""
    result = match.result
    self._entries.append(
      {
        'heading': heading,
        'photos': [self._photo(match.query_path), self._photo(result.image_path)],
        'match': match.document,
        'label': result.label,
        'note': match.note,
        'fused': scores.fused(result),
      }
    )
    return len(self) - 1

  def button(self, number: int) -> Markup:
    """Returns a button that opens a match, hidden until the script that it needs shows it."""
    return tag(
      'button',
      'Why it matched',
      type='button',
      class_='why',
      hidden=True,
      data_match=number,
      aria_label=f'Why it matched: {self._entries[number]["heading"]}',
    )

  def data(self) -> Markup:
    """Returns all matches, in an element that only the script reads."""
    text = json.dumps(self._entries, separators=(',', ':'), allow_nan=False)
    # So that no name can end the element.
    return tag('script', Markup(text.replace('<', '\\u003c')), type='application/json', id='matches')

  def _photo(self, path) -> str | dict[str, str]:
    photo = self._photos.photo(path, LONG_SIDE)
    return {'missing': photo} if isinstance(photo, str) else photo[0]
