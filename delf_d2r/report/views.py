"""The contents of pages: frozen values that the page modules render.

Symbols: R regions. Boxes are `[ymin, xmin, ymax, xmax]` normalised to [0, 1], in the frame of the upright
photo (EXIF orientation applied). Average precision is a fraction in [0, 1]; the pages show per cent.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from delf_d2r.engine import SearchResult

LABELS = ('right', 'wrong', 'junk', 'query')

Cell = str | int | float | None


@dataclasses.dataclass(frozen=True)
class ResultView:
  """One index image in a query's ranked list.

  Attributes:
    name: the index image's name.
    image_path: its photo, or None if the photo is missing.
    score: similarity to the query.
    label: one of `LABELS`, or None without ground truth; 'query' is the query image itself.
    boxes: float32 [R - 1, 4], the boxes of regions 1 to R - 1, without region 0, the whole image.
    best_region: the region with the best score (0 the whole image, r the box `boxes[r - 1]`); -1 for none.
    rank: position in the ranking, from 1.
    local_score, global_score: the parts of the score after the fusion of two searches; otherwise None.
    inliers: the number of consistent matches; None if the result was not verified or the run does not say.
  """

  name: str
  image_path: Path | None
  score: float
  label: str | None
  boxes: np.ndarray
  best_region: int
  rank: int
  local_score: float | None = None
  global_score: float | None = None
  inliers: int | None = None

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
    """Returns a result of the engine with its photo and label."""
    return cls(
      result.name,
      image_path,
      result.score,
      label,
      result.boxes,
      min(result.best_region, len(result.boxes)),
      result.rank,
      result.local_score,
      result.global_score,
      result.inliers,
    )


@dataclasses.dataclass(frozen=True)
class QueryView:
  """One query image and the top of its ranked list.

  Attributes:
    name: the query image's name.
    image_path: its photo, or None if the photo is missing.
    box: the query's box (4 numbers), or None if the whole photo was searched.
    average_precision: average precision by protocol ('easy', 'medium', 'hard'); None where the protocol has
      no positive image for this query; empty without ground truth.
    results: best first.
    seconds: time of this query, or None if it was not measured.
    score_meanings: what the parts of its scores mean, from `scores.meanings`; empty without fusion.
  """

  name: str
  image_path: Path | None
  box: np.ndarray | None
  average_precision: Mapping[str, float | None]
  results: tuple[ResultView, ...]
  seconds: float | None = None
  score_meanings: Mapping[str, str] = dataclasses.field(default_factory=dict)

  @property
  def is_labelled(self) -> bool:
    """Whether there is ground truth for this query."""
    return bool(self.average_precision) or any(result.label is not None for result in self.results)

  @property
  def has_misranking(self) -> bool:
    """Whether, of the results shown, a wrong one is ranked above a right one, or all are wrong."""
    labels = [result.label for result in self.results if result.label in ('right', 'wrong')]
    if 'right' not in labels:
      return 'wrong' in labels
    return labels != sorted(labels)  # 'right' sorts before 'wrong'.


@dataclasses.dataclass(frozen=True)
class MatchView:
  """A query and a result, and why they match.

  Attributes:
    query_name: the query image's name.
    query_path: its photo, or None if the photo is missing.
    result: the index image.
    document: from `match_views.match_document`.
    note: a note for the reader, or ''.
  """

  query_name: str
  query_path: Path | None
  result: ResultView
  document: Mapping[str, Any]
  note: str = ''


@dataclasses.dataclass(frozen=True)
class MatchGroup:
  """Matches that were chosen for one reason, given by `title` and `explanation`."""

  title: str
  explanation: str
  matches: tuple[MatchView, ...]


@dataclasses.dataclass(frozen=True)
class TableView:
  """A table; columns of numbers are right-aligned.

  Attributes:
    columns: the headings.
    rows: one cell for each heading; floats are shown with four significant digits, None as a dash.
    caption: the meaning and unit of the numbers.
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
  """One line of a comparison: mean average precision in [0, 1] by protocol, None where undefined."""

  name: str
  mean_average_precision: Mapping[str, float | None]


@dataclasses.dataclass(frozen=True)
class ExperimentView:
  """The page of one experiment.

  Attributes:
    title, subtitle: the experiment and the data set.
    tables: the summary.
    queries: all queries of one method, in any order.
    config_text: the resolved config.
    facts: counts, bytes, seconds and versions, in the order in which they are shown.
    notes: notes for the reader, for example on photos that were skipped; a paragraph each.
    methods: mAP of the compared methods, drawn as bars; empty for a single method.
    queries_title: heading of the list of queries; with several methods it names the method.
    match_groups: matches of some queries, which can be opened.
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
  """The page of one search.

  Attributes:
    query: the query and its ranked list.
    title: of the page.
    facts: facts about the index and the search, in the order in which they are shown.
    notes: notes for the reader; a paragraph each.
    config_text: the resolved config, or ''.
    matches: matches of some of the results, which can be opened.
  """

  query: QueryView
  title: str = 'Search'
  facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
  notes: tuple[str, ...] = ()
  config_text: str = ''
  matches: tuple[MatchView, ...] = ()
