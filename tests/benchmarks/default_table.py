"""The result of benchmark_defaults.py: a document, and tables of means, paired differences and costs."""

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from delf_d2r.data import files
from delf_d2r.errors import UserError
from delf_d2r.evaluation.significance import Interval, bootstrap_interval

VERSION = 1
SAMPLES = 10_000
_LEVEL = 0.95
# Mean, low and high, as fractions.
Difference = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class SetScore:
  """The result of a row on a set.

  Attributes:
    average_precisions: of each query with positives, as a fraction.
    index_bytes: of the index, for each photo.
    postings: visual words stored for each photo.
    query_milliseconds: median of a query from its features to its ranking.
  """

  average_precisions: Mapping[str, float]
  index_bytes: float
  postings: float
  query_milliseconds: float


@dataclasses.dataclass(frozen=True)
class RowResult:
  """The results of a row.

  Attributes:
    scores: by set.
    controls: the other rows that it is compared with, by what they are.
    cpu_milliseconds: of a photo; None if not measured.
    model_bytes: of its networks; None if unknown.
  """

  scores: Mapping[str, SetScore]
  controls: Mapping[str, str]
  cpu_milliseconds: float | None = None
  model_bytes: int | None = None


@dataclasses.dataclass(frozen=True)
class Results:
  """The results of all rows.

  Attributes:
    rows: by name.
    base: the row that all are compared with.
    columns: the sets of each column, whose average precisions are averaged by query.
    parts: for a column of its own, a column and the beginning of the names of some of its queries.
    way: the column in which rows are measured on the way from the base to true boxes.
    cost_sets: the sets that bytes and times are taken from, the first that a row has.
    problems: why something is missing.
  """

  rows: Mapping[str, RowResult]
  base: str
  columns: Mapping[str, Sequence[str]]
  parts: Mapping[str, tuple[str, str]]
  way: str
  cost_sets: Sequence[str]
  problems: Sequence[str] = ()

  def values(self, name: str, column: str) -> dict[str, float] | None:
    """Returns the average precision of every query of a column; None if the row lacks some."""
    source, beginning = self.parts.get(column, (column, ''))
    found = self._values(name, source, beginning)
    others = (self._values(other, source, beginning) for other in self.rows)
    most = max((len(other) for other in others if other), default=0)
    return found if found and len(found) == most else None

  def _values(self, name: str, column: str, beginning: str) -> dict[str, float] | None:
    row = self.rows.get(name)
    if row is None or not all(part in row.scores for part in self.columns[column]):
      return None
    parts = [row.scores[part].average_precisions for part in self.columns[column]]
    return {
      query: float(np.mean([part[query] for part in parts]))
      for query in parts[0]
      if query.startswith(beginning)
    }

  @property
  def all_columns(self) -> list[str]:
    """The columns, each followed by its parts."""
    return [
      name
      for column in self.columns
      for name in (column, *(part for part, (whole, _) in self.parts.items() if whole == column))
    ]

  def mean(self, name: str) -> float | None:
    """Returns the mean of the columns without their parts; None if the row lacks one."""
    means = [self.mean_average_precision(name, column) for column in self.columns]
    return float(np.mean(means)) if means and None not in means else None

  def mean_average_precision(self, name: str, column: str) -> float | None:
    values = self.values(name, column)
    return float(np.mean(list(values.values()))) if values else None

  def difference(self, name: str, other: str, column: str) -> Interval | None:
    """Returns the paired difference of two rows in a column, resampled by query; None if one lacks it."""
    pair = self._paired(column, name, other)
    return bootstrap_interval(*pair, seed=0, samples=SAMPLES, level=_LEVEL) if pair else None

  def _paired(self, column: str, *names: str) -> list[np.ndarray] | None:
    """Returns the average precisions of rows, those of the same queries at the same positions."""
    found = [self.values(name, column) for name in names]
    first = found[0]
    if first is None or any(values is None or values.keys() != first.keys() for values in found):
      return None
    return [np.array([values[query] for query in first]) for values in found if values]

  def mean_difference(self, name: str, other: str) -> Difference | None:
    """Returns the difference of the means of all columns; the queries of each column are resampled alone."""
    pairs = [self._paired(column, name, other) for column in self.columns]
    if not pairs or None in pairs:
      return None
    generator = np.random.default_rng(0)
    drawn = [_resampled(pair[0] - pair[1], generator) for pair in pairs if pair]
    mean = np.mean([np.mean(pair[0] - pair[1]) for pair in pairs if pair])
    return (float(mean), *_percentiles(np.mean(drawn, axis=0)))

  def share_of_way(self, name: str, true: str) -> Difference | None:
    """Returns the share of the way from the base to true boxes that a row goes, in the column `way`.

    It is the ratio of two means over queries, which are resampled together.
    """
    found = self._paired(self.way, name, self.base, true) if self.way in self.columns else None
    if found is None:
      return None
    own, base, best = found
    places = np.random.default_rng(0).integers(len(own), size=(SAMPLES, len(own)))
    gained, whole = ((values - base)[places].mean(axis=1) for values in (own, best))
    if not np.mean(best - base) > 0:
      return None
    ratios = np.divide(gained, whole, out=np.full(SAMPLES, np.nan), where=whole > 0)
    return (float(np.mean(own - base) / np.mean(best - base)), *_percentiles(ratios[~np.isnan(ratios)]))

  def cost_score(self, name: str) -> SetScore | None:
    scores = self.rows[name].scores
    return next((scores[part] for part in self.cost_sets if part in scores), None)


def _resampled(values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
  """Returns float [SAMPLES], means of values drawn with replacement."""
  parts = [
    values[generator.integers(len(values), size=(SAMPLES // 10, len(values)))].mean(axis=1) for _ in range(10)
  ]
  return np.concatenate(parts)


def _percentiles(values: np.ndarray) -> tuple[float, float]:
  low, high = np.quantile(values, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
  return float(low), float(high)


def to_markdown(results: Results) -> str:
  """Returns the tables: means and costs, differences from the base, and differences from the controls."""
  columns = results.all_columns
  means = []
  for name in results.rows:
    row, costs = results.rows[name], results.cost_score(name)
    means.append(
      (
        name,
        *(_percent(results.mean_average_precision(name, column)) for column in columns),
        _percent(results.mean(name)),
        _number(row.cpu_milliseconds),
        _number(costs and costs.index_bytes / 1e3, '.1f'),
        _number(costs and costs.postings),
        _number(row.model_bytes and row.model_bytes / 2**20, '.1f'),
        _number(costs and costs.query_milliseconds, '.2f'),
      )
    )
  header = ('CPU ms a photo', 'index kB a photo', 'postings a photo', 'models MiB', 'query ms')
  parts = [
    '## mAP (Medium, %) and costs',
    _table(('row', *columns, 'mean', *header), means),
    f'## Gain over {results.base}, points of mAP [95 % interval]',
    _table(
      ('row', *columns, 'mean'),
      [
        (name, *_differences(results, name, results.base, columns))
        for name in results.rows
        if name != results.base
      ],
    ),
    '## Gain over the controls of each row',
    _table(
      ('row', 'over', 'which is', *columns, 'mean'),
      [
        (name, what, other, *_differences(results, name, other, columns))
        for name, row in results.rows.items()
        for what, other in row.controls.items()
        if other in results.rows
      ],
    ),
  ]
  ways = [
    (name, row.controls['true boxes'], _way(results.share_of_way(name, row.controls['true boxes'])))
    for name, row in results.rows.items()
    if row.controls.get('true boxes') in results.rows
  ]
  if ways and results.way in results.columns:
    parts += [
      f'## Share of the way from {results.base} to true boxes on {results.way}, %',
      _table(('row', 'true boxes', 'share'), ways),
    ]
  parts += [f'- {problem}' for problem in results.problems]
  return '\n\n'.join(parts) + '\n'


def _differences(results: Results, name: str, other: str, columns: Iterable[str]) -> list[str]:
  found = (results.difference(name, other, column) for column in columns)
  cells = [_interval((item.mean, item.low, item.high) if item else None) for item in found]
  return [*cells, _interval(results.mean_difference(name, other))]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  lines = (header, ('---',) * len(header), *rows)
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _percent(value: float | None) -> str:
  return '' if value is None else f'{100 * value:.1f}'


def _number(value: float | None, form: str = '.0f') -> str:
  return '' if value is None else format(value, form)


def _interval(found: Difference | None) -> str:
  return '{:+.1f} [{:+.1f}, {:+.1f}]'.format(*(100 * value for value in found)) if found else ''


def _way(found: Difference | None) -> str:
  return '{:.0f} [{:.0f}, {:.0f}]'.format(*(100 * value for value in found)) if found else ''


def to_document(results: Results) -> dict:
  """Returns everything for JSON: the rows with their average precisions, and what is computed from them."""
  differences = []
  for name, row in results.rows.items():
    others = {f'the base {results.base}': results.base, **row.controls}
    for what, other in others.items():
      if other == name or other not in results.rows:
        continue
      intervals: dict[str, Difference | None] = {'mean': results.mean_difference(name, other)}
      for column in results.all_columns:
        item = results.difference(name, other, column)
        intervals[column] = (item.mean, item.low, item.high) if item else None
      found = {column: interval for column, interval in intervals.items() if interval}
      differences.append({'row': name, 'over': what, 'other': other, 'mean_low_high': found})
  return {
    'version': VERSION,
    'base': results.base,
    'columns': {column: list(parts) for column, parts in results.columns.items()},
    'rows': {
      name: {
        'mean_average_precision': {
          column: results.mean_average_precision(name, column) for column in results.all_columns
        },
        'mean': results.mean(name),
        **dataclasses.asdict(row),
      }
      for name, row in results.rows.items()
    },
    'differences': differences,
    'problems': list(results.problems),
  }


def write(results: Results, folder: pathlib.Path, name: str) -> pathlib.Path:
  """Writes `NAME.md` and `NAME.json`; returns the former."""
  files.write_atomically(folder / f'{name}.json', json.dumps(to_document(results), indent=1) + '\n')
  files.write_atomically(folder / f'{name}.md', to_markdown(results))
  return folder / f'{name}.md'


def read_rows(path: pathlib.Path) -> dict[str, RowResult]:
  """Returns the rows of a JSON file of `write`; raises UserError if it is none."""
  try:
    document = files.parse_json(path.read_text(encoding='utf-8'))
    return {
      name: RowResult(
        {part: SetScore(**score) for part, score in row['scores'].items()},
        row['controls'],
        row['cpu_milliseconds'],
        row['model_bytes'],
      )
      for name, row in document['rows'].items()
    }
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(
      f'{path}: no result of benchmark_defaults.py ({error}). Give the .json that it wrote'
    ) from None
