"""Tables and names for a terminal."""

import unicodedata
from collections.abc import Sequence

# Categories of characters that move the cursor: control characters, and those that begin a line.
_MOVING = ('Cc', 'Zl', 'Zp')


def aligned(lines: Sequence[Sequence[str]]) -> str:
  """Returns rows of cells, all of one length, as text: the first column set left, all others right."""
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  return '\n'.join(
    '  '.join(
      cell.ljust(width) if column == 0 else cell.rjust(width)
      for column, (cell, width) in enumerate(zip(line, widths, strict=True))
    ).rstrip()
    for line in lines
  )


def one_line(name: str) -> str:
  """Returns a name with control characters escaped: file names may hold line ends and escape sequences."""
  return ''.join(
    letter.encode('unicode_escape').decode() if unicodedata.category(letter) in _MOVING else letter
    for letter in name
  )
