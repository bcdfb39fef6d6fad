"""The data of a report: the artefacts of an experiment, and its queries with their rankings."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

import delf_d2r.config as configs
from delf_d2r.data.artefacts import ranking_files
from delf_d2r.data.artefacts.artefact import RUN_CONFIG, Artefact
from delf_d2r.data.ground_truth import resolved
from delf_d2r.data.ground_truth.ground_truth import QueryGroundTruth, ResolvedQuery
from delf_d2r.data.photos import photo_folders
from delf_d2r.data.photos.dataset import Dataset, Queries
from delf_d2r.data.photos.photo_folders import PhotoFolders
from delf_d2r.engine.fused_search import is_fused, open_other
from delf_d2r.protos.experiment_pb2 import ExperimentConfig
from delf_d2r.structures import Ranking

# The rankings and metrics that a run ends with: those of the first part that its config has.
_LAST = {
  'expansion': ('expanded', 'expanded_metrics'),
  'verification': ('reranked', 'reranked_metrics'),
  'fusion': ('fused', 'fused_metrics'),
}


def last_kinds(config: ExperimentConfig) -> tuple[str, str]:
  """Returns the kinds, and folders, of the rankings and metrics that the report of a run shows."""
  return next((kinds for part, kinds in _LAST.items() if config.HasField(part)), ('rankings', 'metrics'))


@dataclasses.dataclass(frozen=True)
class Run:
  """The artefacts of one experiment.

  Attributes:
    name: of the experiment.
    dataset: its photos and queries.
    index: of the photos; with fusion that of the first search.
    rankings, metrics: the last ones that were made; None if there are no queries.
    other_index: the index of the other search of a fusion; None without fusion.
  """

  name: str
  dataset: Dataset
  index: Artefact
  rankings: Artefact | None = None
  metrics: Artefact | None = None
  other_index: Artefact | None = None

  @classmethod
  def open(cls, folder: str | pathlib.Path, dataset: Dataset) -> 'Run':
    """Opens the artefacts of a finished experiment.

    Args:
      folder: an output directory of `run_experiment`.
      dataset: the data set of the experiment.

    Raises:
      ArtefactError: an artefact is missing or damaged.
    """
    folder = pathlib.Path(folder)
    index = Artefact.open(folder / 'index', 'index')
    # A run of an earlier release, or one that was stopped before its report, has no config.
    saved = folder / RUN_CONFIG
    config = configs.load(saved) if saved.is_file() else ExperimentConfig()
    other = open_other(folder) if is_fused(config) else None
    if not dataset.queries:
      return cls(folder.resolve().name, dataset, index, other_index=other)
    rankings, metrics = last_kinds(config)
    return cls(
      folder.resolve().name,
      dataset,
      index,
      Artefact.open(folder / rankings, 'rankings'),
      Artefact.open(folder / metrics, 'metrics'),
      other,
    )

  @property
  def photo_folders(self) -> PhotoFolders:
    """The folders of the indexed photos: those of the data set and, if there are any, of the distractors."""
    distractors = self.index.input(photo_folders.DISTRACTOR_IMAGES)
    return PhotoFolders((self.dataset.images.root, *([distractors.path] if distractors else [])))


class Labels:
  """The labels that the ground truth of a query gives to index images, of `views.LABELS`."""

  def __init__(self, query: ResolvedQuery, own_id: int):
    """Takes a query and the image id of its own photo, -1 if that is not an index image."""
    self._right = np.concatenate([query.easy, query.hard])
    self._junk = query.junk
    self._own_id = own_id

  def __call__(self, image_ids: np.ndarray) -> np.ndarray:
    """Returns the labels str [n] of image ids [n]."""
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
    row: its position in the rankings; None if it has none because its photo could not be read.
    ranking: its ranking; None likewise.
    labels: the labels of index images.
  """

  query: QueryGroundTruth
  path: pathlib.Path
  row: int | None
  ranking: Ranking | None
  labels: Labels


def ranked_queries(run: Run) -> list[RankedQuery]:
  """Returns the queries of a run in the order of its ground truth; an empty list without rankings."""
  queries = run.dataset.queries
  if run.rankings is None or queries is None:
    return []
  stored = ranking_files.load(run.rankings.path)
  truth = resolved.resolved_queries(run.rankings, stored, queries.ground_truth)
  rows = {ranking.query: row for row, ranking in enumerate(stored.rankings)}
  found = []
  for position, query in enumerate(queries.ground_truth.queries):
    row = rows.get(query.name)
    labels = Labels(truth[position], _own_id(queries, position, run.dataset, stored.image_names))
    path = queries.images.path(queries.images.names[position])
    found.append(RankedQuery(query, path, row, None if row is None else stored.rankings[row], labels))
  return found


def _own_id(queries: Queries, position: int, dataset: Dataset, image_names: Sequence[str]) -> int:
  """Returns the image id of the query's own photo; -1 if it is not an index image."""
  name = queries.images.names[position]
  same_folder = queries.images.root.resolve() == dataset.images.root.resolve()
  return image_names.index(name) if same_folder and name in image_names else -1
