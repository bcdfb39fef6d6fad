"""Reads and writes the rows of CSV files with a header."""

import csv
import pathlib
from collections.abc import Iterable, Iterator, Sequence

from delf_d2r.errors import UserError

# A text is quoted if it holds one of these, or begins with one of those. The csv module writes a carriage
# return as it is unless it ends lines, and then reads two rows; some beginnings are formulas in spreadsheets.
_QUOTED = frozenset('",\r\n')
_QUOTED_BEGINNINGS = ('=', '+', '-', '@', '\t')


def format_rows(rows: Iterable[Iterable[object]], *, line_end: str = '\n') -> str:
  """Returns rows as the text of a CSV file, from which the csv module reads equal texts.

  Args:
    rows: texts, numbers and None, which becomes an empty text; the header first.
    line_end: the end of each line.
  """
  return ''.join(','.join(map(_formatted, row)) + line_end for row in rows)


def _formatted(value: object) -> str:
  text = '' if value is None else str(value)
  if not isinstance(value, str) or not (_QUOTED & set(text) or text.startswith(_QUOTED_BEGINNINGS)):
    return text
  escaped = text.replace('"', '""')
  return f'"{escaped}"'


def read_rows(
  path: pathlib.Path, columns: Sequence[str], *, optional: Sequence[str] = ()
) -> Iterator[tuple[str, dict[str, str]]]:
  """Yields (`file:line`, row) for each row of a CSV file with a header.

  The missing values of a short row are None; surplus ones of a long row are the list of the key None.

  Args:
    path: the CSV file.
    columns: the columns that the header must name.
    optional: further columns, for the message.

  Raises:
    UserError: the file is no UTF-8 CSV file, or its header lacks one of `columns`, or repeats one of them or
      of `optional`.
  """
  try:
    with open(path, encoding='utf-8-sig', newline='') as file:
      reader = csv.DictReader(file)
      missing = [column for column in columns if column not in (reader.fieldnames or ())]
      if missing:
        more = f' and optionally {", ".join(optional)}' if optional else ''
        raise UserError(f'{path}:1: the header lacks {", ".join(missing)}; wanted {",".join(columns)}{more}')
      twice = [c for c in (*columns, *optional) if list(reader.fieldnames or ()).count(c) > 1]
      if twice:
        raise UserError(f'{path}:1: the header has {", ".join(twice)} more than once; keep one of each')
      for row in reader:
        yield f'{path}:{reader.line_num}', row
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise _unreadable(path, error) from None


def read_header(path: pathlib.Path) -> list[str]:
  """Returns the first row of a CSV file; raises UserError if the file is no UTF-8 CSV file."""
  try:
    with open(path, encoding='utf-8-sig', newline='') as file:
      return next(csv.reader(file), [])
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise _unreadable(path, error) from None


def read_labels(path: pathlib.Path) -> list[tuple[str, str]]:
  """Returns (path, label) of each row of a CSV file of labelled photos, with the columns `path` and `label`.

  Raises:
    UserError: the file is no UTF-8 CSV file, lacks a column, or a row lacks a value.
  """
  labelled = []
  for place, row in read_rows(path, ('path', 'label')):
    if not row['path'] or not row['label']:
      raise UserError(f'{place}: path or label is missing')
    labelled.append((row['path'], row['label']))
  return labelled


def _unreadable(path: pathlib.Path, error: Exception) -> UserError:
  return UserError(f'{path}: cannot be read as a UTF-8 CSV file ({error})')
