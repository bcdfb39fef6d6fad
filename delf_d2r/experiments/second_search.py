"""Second features of a run: those of a secondary search to fuse with, and those to verify with.

other/features/ codebook/ descriptors/ index/, and with queries query_features/ rankings/
verification/features/ query_features/
distractors/other/features/ descriptors/    distractors/verification/features/
with_distractors/other/index/ rankings/
"""

import pathlib
from typing import Any

from absl import logging

from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.photos.dataset import Dataset, Queries
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.engine.fused_search import INDEX, SECONDARY, secondary_config
from delf_d2r.protos import experiment_pb2
from delf_d2r.protos.aggregation_pb2 import AggregationConfig
from delf_d2r.protos.extraction_pb2 import ExtractionConfig
from delf_d2r.protos.regions_pb2 import RegionsConfig
from delf_d2r.stages import aggregate_features, build_index, extract_features, search_index, train_codebook

VERIFICATION = 'verification'
# The folders of a run's distractors and of the searches among them.
DISTRACTORS = 'distractors'
JOINED = 'with_distractors'


def secondary_index(
  config: experiment_pb2.ExperimentConfig,
  dataset: Dataset,
  features: Artefact,
  output: pathlib.Path,
  *,
  extracting: dict[str, Any],
  distractors: ImageList | None = None,
  distractor_features: Artefact | None = None,
  own: Artefact | None = None,
) -> dict[str, Artefact]:
  """Returns the features and the index of the secondary search that `config.fusion` describes.

  Its features are extracted in the boxes of the run's own features, unless they are of whole images.

  Args:
    config: of the run.
    dataset: the index photos.
    features: of the run.
    output: the folder of the run.
    extracting: workers, strict and redo, see extract_features.run.
    distractors: photos that are added to the index.
    distractor_features: the run's features of `distractors`.
    own: features of the secondary search, of `dataset`, to use instead of making them.

  Returns:
    `other_features` and `other_index`.

  Raises:
    UserError: an input is one that a stage cannot work with.
  """
  secondary = secondary_config(config)
  place, redo = output / SECONDARY, extracting['redo']
  extractor = ExtractionConfig.Extractor.Name(secondary.extraction.extractor)
  logging.info('the other search, whose scores join those of the first one (%s): %s', extractor, place)
  own = own or extract_features.run(
    secondary, dataset, place / 'features', boxes=_boxes(secondary, features), **extracting
  )
  codebook = train_codebook.run(secondary, own, place / 'codebook', redo=redo)
  descriptors = aggregate_features.run(secondary, own, codebook, place / 'descriptors', **extracting)
  distractor_descriptors, searched = None, place
  if distractors:
    if distractor_features is None:
      raise ValueError('expected the features of the distractors, found distractor_features=None')
    folder, searched = output / DISTRACTORS / SECONDARY, output / JOINED / SECONDARY
    extracted = extract_features.run(
      secondary,
      Dataset(distractors),
      folder / 'features',
      boxes=_boxes(secondary, distractor_features),
      **extracting,
    )
    distractor_descriptors = aggregate_features.run(
      secondary, extracted, codebook, folder / 'descriptors', **extracting
    )
  index = build_index.run(
    secondary,
    descriptors,
    codebook,
    searched / INDEX,
    distractors=distractor_descriptors,
    workers=extracting['workers'],
    redo=redo,
  )
  return {'other_features': own, 'other_index': index}


def secondary_rankings(
  config: experiment_pb2.ExperimentConfig,
  queries: Queries,
  index: Artefact,
  output: pathlib.Path,
  *,
  extracting: dict[str, Any],
  query_features: Artefact | None = None,
) -> dict[str, Artefact]:
  """Returns the query features and the rankings of the secondary search.

  Args:
    config: of the run.
    queries: the queries.
    index: from `secondary_index`.
    output: the folder of the run.
    extracting: that of `secondary_index`.
    query_features: features of the secondary search, of `queries`, to use instead of making them.

  Returns:
    `other_query_features` and `other_rankings`.

  Raises:
    UserError: an input is one that a stage cannot work with.
  """
  secondary = secondary_config(config)
  query_features = query_features or extract_features.run_queries(
    secondary, queries, output / SECONDARY / 'query_features', **extracting
  )
  rankings = search_index.run(
    secondary, index, query_features, index.path.parent / 'rankings', redo=extracting['redo']
  )
  return {'other_query_features': query_features, 'other_rankings': rankings}


def depends_on_boxes(config: experiment_pb2.ExperimentConfig) -> bool:
  """Returns whether the secondary search of a config uses the boxes of the run."""
  return secondary_config(config).aggregation.regions != AggregationConfig.WHOLE_IMAGE


def _boxes(secondary: experiment_pb2.ExperimentConfig, features: Artefact) -> Artefact | None:
  """Returns the boxes that the run's features were extracted in; None if the other search needs none."""
  found = features.input('boxes')
  has_none = features.config.regions.source == RegionsConfig.NONE
  # A descriptor of each box would cost as much as that of the photo. Where there are none, nothing is saved.
  if found is None or (secondary.aggregation.regions == AggregationConfig.WHOLE_IMAGE and not has_none):
    return None
  return Artefact.open(found.path, 'boxes')


def verification_features(
  config: experiment_pb2.ExperimentConfig,
  dataset: Dataset,
  queries: Queries,
  distractors: ImageList | None,
  output: pathlib.Path,
  *,
  extracting: dict[str, Any],
) -> tuple[Artefact, Artefact, Artefact | None]:
  """Returns the features that `config.verification.extraction` describes.

  They are those of whole images, without boxes. Arguments and errors are those of `secondary_index` and
  `secondary_rankings`.

  Returns:
    The features of the index images, of the queries, and of the distractors (None without distractors).
  """
  own = experiment_pb2.ExperimentConfig(extraction=config.verification.extraction)
  place = output / VERIFICATION
  features = extract_features.run(own, dataset, place / 'features', boxes=None, **extracting)
  query_features = extract_features.run_queries(own, queries, place / 'query_features', **extracting)
  distractor_features = None
  if distractors:
    folder = output / DISTRACTORS / VERIFICATION / 'features'
    distractor_features = extract_features.run(own, Dataset(distractors), folder, boxes=None, **extracting)
  return features, query_features, distractor_features
