"""The page of a table of the paper: our numbers beside the reported ones, and what the rest needs."""

import dataclasses
from collections.abc import Mapping

from delf_d2r.report import parts
from delf_d2r.report.figures import PhotoSheet
from delf_d2r.report.markup import tag
from delf_d2r.report.views import TableView


@dataclasses.dataclass(frozen=True)
class ReproductionView:
  """A table and what a reader must know of it.

  Attributes:
    title, subtitle: which table, and on what it was run.
    table: a row for each system.
    notes: what holds for the whole table.
    remarks: by row, where numbers differ by design, what is missing or what failed.
    pages: by row, the address of its own report.
  """

  title: str
  subtitle: str
  table: TableView
  notes: tuple[str, ...]
  remarks: Mapping[str, str]
  pages: Mapping[str, str]


def render(view: ReproductionView) -> str:
  """One self-contained HTML file, without scripts; the same view gives the same text."""
  rows = tuple(
    (tag('a', name, href=view.pages[name]) if name in view.pages else name, *cells)
    for name, *cells in view.table.rows
  )
  body = tag(
    'main',
    parts.heading(view.title, view.subtitle),
    parts.notes(view.notes),
    parts.table(dataclasses.replace(view.table, rows=rows)),
    parts.facts(view.remarks),
  )
  return parts.page(view.title, body, photos=PhotoSheet())
