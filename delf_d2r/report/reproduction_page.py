"""The page of a table of the paper: measured numbers beside the reported ones, and missing files."""

import dataclasses
from collections.abc import Mapping

from delf_d2r.report import parts
from delf_d2r.report.figures import PhotoSheet
from delf_d2r.report.markup import Markup, fragment, tag
from delf_d2r.report.views import Cell, TableView


@dataclasses.dataclass(frozen=True)
class ReproductionView:
  """A reproduced table with its notes.

  Attributes:
    title, subtitle: the table and the data set.
    table: a row for each system.
    needs: missing files, and where to get them.
    notes: on the whole table.
    row_notes: by row, why its numbers differ by design, or why it failed.
    pages: by row, the address of its own report.
  """

  title: str
  subtitle: str
  table: TableView
  needs: TableView
  notes: tuple[str, ...]
  row_notes: Mapping[str, str]
  pages: Mapping[str, str]


def render(view: ReproductionView) -> str:
  """Returns one self-contained HTML file without scripts; the same view gives the same text."""
  rows = tuple(_row(cells, view.pages) for cells in view.table.rows)
  row_notes = tuple((_whole(name), note) for name, note in view.row_notes.items())
  body = tag(
    'main',
    parts.heading(view.title, view.subtitle),
    parts.notes(view.notes),
    parts.table(dataclasses.replace(view.table, rows=rows)),
    _section('Notes on rows', TableView(('row', 'note'), row_notes)),
    _section('Missing files', view.needs),
  )
  return parts.page(view.title, body, photos=PhotoSheet())


def _section(title: str, table: TableView) -> Markup | None:
  return fragment(tag('h2', title), parts.table(table)) if table.rows else None


def _row(cells: tuple[Cell, ...], pages: Mapping[str, str]) -> tuple[Cell, ...]:
  """Returns a row with a link to its report, its name and status never broken into lines."""
  name, *measured, status = cells
  row = str(name)
  linked = tag('a', row, href=pages[row]) if row in pages else row
  return (_whole(linked), *measured, _whole(str(status)))


def _whole(cell: str) -> Markup:
  return tag('span', cell, class_='whole')
