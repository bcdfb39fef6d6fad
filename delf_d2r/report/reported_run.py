"""What a report is made of: the artefacts of an experiment, and its queries with what they found."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from delf_d2r.data.artefacts import ranking_files
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.ground_truth.ground_truth import QueryGroundTruth, ResolvedQuery
from delf_d2r.data.photos import photo_folders
from delf_d2r.data.photos.dataset import Dataset, Queries
from delf_d2r.data.photos.photo_folders import PhotoFolders
from delf_d2r.stages import evaluate_retrieval
from delf_d2r.structures import Ranking


@dataclasses.dataclass(frozen=True)
class Run:
  """The artefacts of one experiment; rankings and metrics are None where there are no queries."""

  name: str
  dataset: Dataset
  index: Artefact
  rankings: Artefact | None = None
  metrics: Artefact | None = None

  @property
  def photo_folders(self) -> PhotoFolders:
    """Where the photos of the index are: those of the data set, and distractors, which the index knows of."""
    distractors = self.index.input(photo_folders.DISTRACTOR_IMAGES)
    return PhotoFolders((self.dataset.images.root, *([distractors.path] if distractors else [])))


class Labels:
  """What the ground truth of a query says of index images: labels of `views.LABELS`."""

  def __init__(self, query: ResolvedQuery, own_id: int):
    """Takes a query and the image id of its own photo, -1 if that is no index image."""
    self._right = np.concatenate([query.easy, query.hard])
    self._junk = query.junk
    self._own_id = own_id

  def __call__(self, image_ids: np.ndarray) -> np.ndarray:
    """The labels str [n] of image ids [n]."""
    labels = np.where(np.isin(image_ids, self._junk), 'junk', 'wrong')
    labels[np.isin(image_ids, self._right)] = 'right'
    labels[image_ids == self._own_id] = 'query'
    return labels


@dataclasses.dataclass(frozen=True)
class RankedQuery:
  """A query of a run.

  Attributes:
    query: its ground truth.
    path: its photo.
    row: its place among the rankings, None if it has none because its photo could not be read.
    ranking: None likewise.
    labels: of index images.
  """

  query: QueryGroundTruth
  path: pathlib.Path
  row: int | None
  ranking: Ranking | None
  labels: Labels


def ranked_queries(run: Run) -> list[RankedQuery]:
  """The queries of a run in the order of its ground truth; none without rankings."""
  if run.rankings is None:
    return []
  queries = run.dataset.queries
  stored = ranking_files.load(run.rankings.path)
  resolved = evaluate_retrieval.resolved_queries(run.rankings, stored, queries.ground_truth)
  rows = {ranking.query: row for row, ranking in enumerate(stored.rankings)}
  found = []
  for position, query in enumerate(queries.ground_truth.queries):
    row = rows.get(query.name)
    labels = Labels(resolved[position], _own_id(queries, position, run.dataset, stored.image_names))
    path = queries.images.path(queries.images.names[position])
    found.append(RankedQuery(query, path, row, None if row is None else stored.rankings[row], labels))
  return found


def _own_id(queries: Queries, position: int, dataset: Dataset, image_names: Sequence[str]) -> int:
  """The image id of the query's own photo, -1 if it is no index image."""
  name = queries.images.names[position]
  same_folder = queries.images.root.resolve() == dataset.images.root.resolve()
  return image_names.index(name) if same_folder and name in image_names else -1
