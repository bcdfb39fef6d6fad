"""A reproduced table in the form of the paper: text, CSV, JSON and a page."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Sequence

from delf_d2r import text_table
from delf_d2r.data import csv_rows, files
from delf_d2r.data.ground_truth.benchmarks import REVISITED, Benchmark
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.experiments import comparison, paper_tables
from delf_d2r.experiments.paper_tables import Need
from delf_d2r.protos import table_pb2
from delf_d2r.report import make_report, reproduction_page
from delf_d2r.report.reproduction_page import ReproductionView
from delf_d2r.report.views import TableView

_SHORT = {'roxford5k': 'ROxf', 'rparis6k': 'RPar'}
_DASH = '-'
_PROTOCOLS = (('M', 'medium'), ('H', 'hard'))


@dataclasses.dataclass(frozen=True)
class RowResult:
  """The result of one row: measured, missing something, or failed.

  Attributes:
    row: of the table.
    missing: things that it needs and that are missing.
    error: why it failed.
    alone, among: measurements without distractors and among them.
    boxes: mean number of boxes for each index image.
    page: its report, relative to the folder of the table.
  """

  row: table_pb2.TableRow
  missing: tuple[str, ...] = ()
  error: str = ''
  alone: comparison.Row | None = None
  among: comparison.Row | None = None
  boxes: float | None = None
  page: pathlib.Path | None = None

  @property
  def status(self) -> str:
    if self.error:
      return 'failed'
    return 'needs files' if self.missing else 'measured'

  @property
  def summary(self) -> str:
    """The status in a few words, with mAP in per cent."""
    if self.missing:
      return f'needs {", ".join(self.missing)}'
    values = {letter: _mean_average_precision(self.alone, name) for letter, name in _PROTOCOLS}
    return self.status + ''.join(f', {k} {v:.1f}' for k, v in values.items() if v is not None)

  @property
  def note(self) -> str:
    """Why the number differs from the reported one by design, and why the row failed; '' if neither."""
    failed = f'Failed: {self.error}' if self.error else ''
    return ' '.join(part for part in (self.row.note, failed) if part)


@dataclasses.dataclass(frozen=True)
class Reproduction:
  """A table with the results so far.

  Attributes:
    table: the table to reproduce.
    benchmark, dataset: the data set.
    results: of the rows, in their order.
    num_distractors: number of distractors in the columns +1M.
    rows_to_come: number of rows that have not run yet.
  """

  table: table_pb2.TableConfig
  benchmark: Benchmark
  dataset: Dataset
  results: tuple[RowResult, ...]
  num_distractors: int = 0
  rows_to_come: int = 0

  @property
  def reported_dataset(self) -> str:
    """The data set whose reported numbers are shown; that of Oxford where the paper has none of this one."""
    return self.benchmark.name if self.benchmark.is_revisited else REVISITED[0]

  @property
  def needs(self) -> list[Need]:
    """Everything that rows need and that is missing."""
    return paper_tables.needs(self.table, {result.row.name: result.missing for result in self.results})


def reported(row: table_pb2.TableRow, dataset: str, field: str) -> float | None:
  """Returns the mAP in per cent that the paper reports.

  Args:
    row: of the table.
    dataset: name of the data set.
    field: of ReportedResult.

  Returns:
    The number; None if the table does not have it.
  """
  for result in row.reported:
    if result.dataset == dataset and result.HasField(field):
      return round(getattr(result, field), 2)
  return None


def as_text(found: Reproduction) -> str:
  """Returns the table for a terminal, then its notes and the missing files."""
  columns, rows = _table(found)
  notes = [f'{result.row.name}: {result.note}' for result in found.results if result.note]
  heading = f'{found.table.title} on {_subtitle(found)}'
  parts = [heading, text_table.aligned([columns, *rows]), '\n'.join(_notes(found)), '\n'.join(notes)]
  return '\n\n'.join(part for part in (*parts, paper_tables.needs_text(found.needs)) if part) + '\n'


def places(table: table_pb2.TableConfig, output: pathlib.Path) -> dict[str, pathlib.Path]:
  """Returns the files of a table in a folder by their extension."""
  stem = table.title.lower().replace(' ', '_')
  return {extension: output / f'{stem}{extension}' for extension in ('.txt', '.csv', '.json')}


def write(found: Reproduction, output: pathlib.Path) -> pathlib.Path:
  """Writes the table in all its forms into a folder, and returns its page.

  Raises:
    UserError: a file cannot be written.
  """
  text, table, document = places(found.table, output).values()
  with files.user_errors('cannot write', output):
    output.mkdir(parents=True, exist_ok=True)
    files.write_output(text, as_text(found))
    records = _records(found)
    files.write_output(table, _csv(records))
    files.write_output(document, json.dumps(records, indent=1, ensure_ascii=False) + '\n')
  columns, rows = _table(found)
  view = ReproductionView(
    title=found.table.title,
    subtitle=_subtitle(found),
    table=TableView(
      columns,
      tuple(rows),
      'mAP in per cent, protocols Medium and Hard of Revisited; boxes and kB of the index for each image.',
    ),
    needs=TableView(
      ('missing', 'where', 'for'),
      tuple((need.what, need.where, ', '.join(need.rows)) for need in found.needs),
      'Files belong below the folder that the command runs in.',
    ),
    notes=tuple(_notes(found)),
    row_notes={result.row.name: result.note for result in found.results if result.note},
    pages={
      result.row.name: f'../{result.page.as_posix()}' for result in found.results if result.page is not None
    },
  )
  return make_report.write(reproduction_page.render(view), output / 'report')


def _subtitle(found: Reproduction) -> str:
  name, queries = found.benchmark.name, found.dataset.queries
  own_name = queries.ground_truth.name if queries else name
  shown = name if name == own_name else f'{name} ({own_name})'
  return f'{shown}: {len(found.dataset.images):,} images, {len(queries or ())} queries'


def _notes(found: Reproduction) -> list[str]:
  notes = []
  if found.rows_to_come:
    rows = '1 row is' if found.rows_to_come == 1 else f'{found.rows_to_come} rows are'
    notes.append(f'Unfinished: {rows} still to come.')
  notes.append(f'Reported numbers: {found.table.source}.')
  if not found.benchmark.is_revisited:
    notes.append(f'They are those of {found.reported_dataset}: compare the order of rows, not the numbers.')
  if found.num_distractors:
    notes.append(f'Columns +1M: ours among {found.num_distractors:,} distractors.')
  other = found.benchmark.codebook
  notes.append(f'Codebooks are trained on {other.images if other else "the index images themselves"}.')
  return notes


def _table(found: Reproduction) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
  """Returns the columns that have a number in some row, and the rows."""
  paper = f'paper {_SHORT[found.reported_dataset]}'
  columns = ['row']
  for letter, _ in _PROTOCOLS:
    columns += [letter, f'{paper} {letter}', f'{letter}+1M', f'{paper} {letter}+1M']
  columns += ['boxes', 'kB/image', 'index MB', 'status']
  rows = [_cells(found, result) for result in found.results]
  used = [c for c in range(len(columns)) if any(row[c] != _DASH for row in rows)]
  return tuple(columns[c] for c in used), [tuple(row[c] for c in used) for row in rows]


def _cells(found: Reproduction, result: RowResult) -> tuple[str, ...]:
  cells = [result.row.name]
  for _, protocol in _PROTOCOLS:
    for measured, field in ((result.alone, protocol), (result.among, f'{protocol}_among_distractors')):
      value = _mean_average_precision(measured, protocol)
      paper = reported(result.row, found.reported_dataset, field)
      cells += [_DASH if number is None else f'{number:.1f}' for number in (value, paper)]
  index = result.alone.index_bytes if result.alone else None
  size = None if index is None else index * len(found.dataset.images)
  cells += [
    _DASH if number is None else f'{number / unit:,.{decimals}f}'
    for number, unit, decimals in ((result.boxes, 1, 1), (index, 1e3, 1), (size, 1e6, 1))
  ]
  return (*cells, result.status)


def _mean_average_precision(measured: comparison.Row | None, protocol: str) -> float | None:
  """Returns mAP in per cent; None if it was not measured or no query has positives."""
  value = math.nan if measured is None else measured.mean_average_precision[protocol]
  return None if math.isnan(value) else 100 * value


def _records(found: Reproduction) -> list[dict[str, object]]:
  records = []
  for result in found.results:
    record: dict[str, object] = {'row': result.row.name, 'status': result.status}
    for suffix, measured in (('', result.alone), ('_among_distractors', result.among)):
      for protocol in ('easy', 'medium', 'hard'):
        record[f'{protocol}{suffix}'] = _mean_average_precision(measured, protocol)
    for dataset in REVISITED:
      for field in ('medium', 'hard', 'medium_among_distractors', 'hard_among_distractors'):
        record[f'reported_{dataset}_{field}'] = reported(result.row, dataset, field)
    record |= {
      'boxes_per_image': result.boxes,
      'index_bytes_per_image': result.alone.index_bytes if result.alone else None,
      'postings_per_image': result.alone.postings if result.alone else None,
      'search_ms': result.alone.search_ms if result.alone else None,
      'note': result.note,
      'missing': '; '.join(result.missing),
    }
    records.append(record)
  return records


def _csv(records: Sequence[dict[str, object]]) -> str:
  return csv_rows.format_rows([records[0], *(record.values() for record in records)])
