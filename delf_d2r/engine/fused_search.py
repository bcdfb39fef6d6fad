"""The other search of a run with fusion: its index, its queries, and one ranking of both searches."""

import dataclasses
import pathlib
import weakref
from collections.abc import MutableMapping

import numpy as np

from delf_d2r import aggregator, fuser
from delf_d2r import config as configs
from delf_d2r.aggregator import Aggregator, SearchOptions
from delf_d2r.data.artefacts import codebook_files
from delf_d2r.data.artefacts.artefact import RUN_CONFIG, Artefact
from delf_d2r.data.artefacts.records import ImageDescriptors
from delf_d2r.engine.live_index import LiveIndex, Snapshot
from delf_d2r.engine.paired_index import PairedIndex, PairedSnapshot
from delf_d2r.engine.photo_reader import PhotoReader
from delf_d2r.errors import ArtefactError
from delf_d2r.fuser import Fuser
from delf_d2r.kernels.background import ExpectedOfImages
from delf_d2r.protos.aggregation_pb2 import AggregationConfig
from delf_d2r.protos.experiment_pb2 import ExperimentConfig
from delf_d2r.protos.fusion_pb2 import FusionConfig
from delf_d2r.structures import AggregatedDescriptor, Boxes, ImageFeatures, Ranking

# The folder of the other search in that of a run, and the index in it.
SECONDARY = 'other'
INDEX = 'index'


def is_fused(config: ExperimentConfig) -> bool:
  """Returns whether the config of a run has another search, whose scores are added."""
  return config.HasField('fusion') and config.fusion.HasField('extraction')


def secondary_config(config: ExperimentConfig) -> ExperimentConfig:
  """Returns the resolved config of the other search that `config.fusion` describes."""
  secondary = ExperimentConfig(search=config.search)
  for part in ('extraction', 'codebook', 'aggregation'):
    getattr(secondary, part).CopyFrom(getattr(config.fusion, part))
  return configs.resolve(secondary)


def open_other(run: pathlib.Path) -> Artefact:
  """Returns the index of the other search of a run.

  Raises:
    ArtefactError: it is missing or not finished.
  """
  place = run / SECONDARY / INDEX
  try:
    return Artefact.open(place, 'index').resolved()
  except ArtefactError as error:
    raise ArtefactError(
      f'{error}. {run / RUN_CONFIG} has a fusion, whose scores need this index. Run the same command again to'
      f' make it, or load {run / INDEX} to search by the first features alone'
    ) from None


@dataclasses.dataclass(frozen=True)
class FusedSearch:
  """How the other index is searched, and how its scores are added. Threads may share it.

  Attributes:
    config: how scores are added.
    aggregation: how photos are aggregated and compared in the other index.
    aggregator: describes queries for the other index.
    search_options: how queries and images are compared there.
    reader: reads photos for the other index.
    fuser: adds the scores.
  """

  config: FusionConfig
  aggregation: AggregationConfig
  aggregator: Aggregator
  search_options: SearchOptions
  reader: PhotoReader
  fuser: Fuser
  _statistics: MutableMapping[PairedSnapshot, ExpectedOfImages | None] = dataclasses.field(
    default_factory=weakref.WeakKeyDictionary, init=False, repr=False, compare=False
  )

  @classmethod
  def of(
    cls,
    first: Artefact,
    other: Artefact,
    config: FusionConfig,
    *,
    first_aggregation: AggregationConfig,
    one_photo: bool,
  ) -> 'FusedSearch':
    """Prepares the other search.

    Args:
      first: the index of the first search.
      other: the index of the other search.
      config: how scores are added.
      first_aggregation: how queries and images are compared in the first search.
      one_photo: the engine will answer at most one photo.

    Raises:
      ArtefactError: a file of the index is missing or damaged.
      UserError: the background model cannot be used with these searches.
    """
    aggregation = AggregationConfig()
    aggregation.CopyFrom(other.config.aggregation)
    if one_photo:
      aggregation.query_assignment = AggregationConfig.EXACT
    centroids = np.ascontiguousarray(codebook_files.load_centroids(other.path))
    recall = codebook_files.load_recall(other.path)
    assign = aggregator.assigner(aggregation.query_assignment, centroids, recall=recall)
    projection = codebook_files.load_projection(other.path)
    return cls(
      config,
      aggregation,
      Aggregator(aggregation, centroids, assign, projection),
      aggregator.search_options(aggregation),
      PhotoReader(other),
      Fuser.of_indexes(config, first, other, aggregation=first_aggregation),
    )

  def paired(self, first: LiveIndex, other: LiveIndex) -> PairedIndex:
    """Returns both indexes as one that changes as a whole.

    Raises:
      ArtefactError: the other index lacks images of the first.
    """
    return PairedIndex(first, other, self.reader.aggregate)

  def index_image(
    self, name: str, pixels: np.ndarray, boxes: Boxes | None
  ) -> tuple[ImageFeatures, ImageDescriptors]:
    """Returns features and descriptors of a photo for the other index; see `PhotoReader.index_image`."""
    if self.aggregation.regions == AggregationConfig.WHOLE_IMAGE:
      boxes = Boxes.empty()
    return self.reader.index_image(name, pixels, boxes)

  def _statistics_of(self, snapshot: PairedSnapshot) -> ExpectedOfImages | None:
    """Returns what the images of a snapshot score with unrelated ones, computed once for each snapshot."""
    # Threads that come at the same time compute the same twice.
    if snapshot not in self._statistics:
      found = self.fuser.of_images(snapshot.indexes[1])
      if found is not None:
        found = ExpectedOfImages(found.means[snapshot.places], found.deviations[snapshot.places])
      self._statistics[snapshot] = found
    return self._statistics[snapshot]

  def rank(
    self,
    snapshot: Snapshot,
    query: AggregatedDescriptor,
    other_query: AggregatedDescriptor,
    options: SearchOptions,
    *,
    top_k: int,
    name: str = '',
  ) -> Ranking:
    """Ranks the images of both indexes by their joint scores.

    Args:
      snapshot: the images, of both indexes.
      query: the query as the first search describes it.
      other_query: the query as the other search describes it.
      options: how queries and images are compared in the first index.
      top_k: length of the ranking; 0 for all images.
      name: of the query.
    """
    assert isinstance(snapshot, PairedSnapshot), 'made by `paired`'
    index, other = snapshot.indexes
    others = other.scores(other_query, **self.search_options).values[snapshot.places]
    found = index.scores(query, **options)
    fused = self.fuser(found.values, others, query, other_query, self._statistics_of(snapshot))
    return fuser.ranked(fused, found.best_regions, top_k=top_k or len(others), name=name)
