"""What the pages show: frozen values, filled by a stage and rendered by the page modules.

Symbols: R regions. Boxes are `[ymin, xmin, ymax, xmax]` normalised to [0, 1], in the frame of the upright
photo (EXIF orientation applied). Average precision is a fraction in [0, 1]; the pages show per cent.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from delf_d2r.engine.answer import SearchResult

LABELS = ('right', 'wrong', 'junk', 'query')

Cell = str | int | float | None


@dataclasses.dataclass(frozen=True)
class ResultView:
  """One index image in a query's ranked list.

  Attributes:
    name: the index image's name.
    image_path: its photo, or None where the photo is not at hand.
    score: similarity to the query.
    label: one of `LABELS`, or None without ground truth; 'query' is the query image itself.
    boxes: float32 [R - 1, 4], the boxes of regions 1 to R - 1; region 0, the whole image, is left out.
    best_region: the region with the best score (0 the whole image, r the box `boxes[r - 1]`); -1 for none.
    rank: position in the ranking, from 1.
  """

  name: str
  image_path: Path | None
  score: float
  label: str | None
  boxes: np.ndarray
  best_region: int
  rank: int

  def __post_init__(self):
    if self.label is not None and self.label not in LABELS:
      raise ValueError(f'{self.name}: expected a label of {LABELS} or None, found {self.label!r}')
    if np.ndim(self.boxes) != 2 or np.shape(self.boxes)[1] != 4:
      raise ValueError(f'{self.name}: expected boxes of shape (R, 4), found {np.shape(self.boxes)}')
    if not -1 <= self.best_region <= len(self.boxes):
      raise ValueError(
        f'{self.name}: best_region must lie between -1 and the number of boxes ({len(self.boxes)}),'
        f' found {self.best_region}'
      )

  @classmethod
  def of(cls, result: SearchResult, image_path: Path | None, label: str | None) -> 'ResultView':
    """What the engine found, with its photo and label."""
    return cls(
      result.name,
      image_path,
      result.score,
      label,
      result.boxes,
      min(result.best_region, len(result.boxes)),
      result.rank,
    )


@dataclasses.dataclass(frozen=True)
class QueryView:
  """One query image and the head of its ranked list.

  Attributes:
    name: the query image's name.
    image_path: its photo, or None where the photo is not at hand.
    box: the query's box (4 numbers), or None when the whole photo was searched.
    average_precision: protocol ('easy', 'medium', 'hard') to average precision; None where the protocol has
      no positive image for this query; empty without ground truth.
    results: best first.
    seconds: time of this query, or None when not measured.
  """

  name: str
  image_path: Path | None
  box: np.ndarray | None
  average_precision: Mapping[str, float | None]
  results: tuple[ResultView, ...]
  seconds: float | None = None

  @property
  def is_labelled(self) -> bool:
    """True when ground truth is known for this query."""
    return bool(self.average_precision) or any(result.label is not None for result in self.results)

  @property
  def has_misranking(self) -> bool:
    """True when, of the results shown, a wrong one stands above a right one, or all are wrong."""
    labels = [result.label for result in self.results if result.label in ('right', 'wrong')]
    if 'right' not in labels:
      return 'wrong' in labels
    return labels != sorted(labels)  # 'right' sorts before 'wrong'


@dataclasses.dataclass(frozen=True)
class MatchView:
  """A query and a result, and why they match.

  Attributes:
    query_name: the query image's name.
    query_path: its photo, or None where the photo is not at hand.
    result: the index image.
    document: from `match_document`.
    note: what a reader must know of it.
  """

  query_name: str
  query_path: Path | None
  result: ResultView
  document: Mapping[str, Any]
  note: str = ''


@dataclasses.dataclass(frozen=True)
class MatchGroup:
  """Matches that were chosen for one reason, which `title` and `explanation` tell."""

  title: str
  explanation: str
  matches: tuple[MatchView, ...]


@dataclasses.dataclass(frozen=True)
class TableView:
  """A table; columns of numbers are set right.

  Attributes:
    columns: the headings.
    rows: one cell for each heading; floats are shown with four significant digits, None as a dash.
    caption: what the numbers are and their unit.
  """

  columns: tuple[str, ...]
  rows: tuple[tuple[Cell, ...], ...]
  caption: str = ''

  def __post_init__(self):
    for row in self.rows:
      if len(row) != len(self.columns):
        raise ValueError(f'expected {len(self.columns)} cells ({self.columns}), found {len(row)} ({row})')


@dataclasses.dataclass(frozen=True)
class MethodView:
  """One line of a comparison: protocol to mean average precision in [0, 1], None where undefined."""

  name: str
  mean_average_precision: Mapping[str, float | None]


@dataclasses.dataclass(frozen=True)
class ExperimentView:
  """The page of one experiment.

  Attributes:
    title, subtitle: what was run, and on what.
    tables: the summary.
    queries: all queries of one method, in any order.
    config_text: the resolved config.
    facts: counts, bytes, seconds, versions; in the order to show.
    notes: what the reader must know, for example photos that were skipped; a paragraph each.
    methods: mAP of the compared methods, drawn as bars; empty for a single method.
    queries_title: heading of the list of queries; with several methods, say which one.
    match_groups: matches of some queries, to be opened.
  """

  title: str
  subtitle: str
  tables: tuple[TableView, ...] = ()
  queries: tuple[QueryView, ...] = ()
  config_text: str = ''
  facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
  notes: tuple[str, ...] = ()
  methods: tuple[MethodView, ...] = ()
  queries_title: str = 'Queries'
  match_groups: tuple[MatchGroup, ...] = ()


@dataclasses.dataclass(frozen=True)
class SearchView:
  """The page of one search: the ranked list of one query, what is known of the index, and the matches of some
  of its results."""

  query: QueryView
  title: str = 'Search'
  facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
  notes: tuple[str, ...] = ()
  config_text: str = ''
  matches: tuple[MatchView, ...] = ()
