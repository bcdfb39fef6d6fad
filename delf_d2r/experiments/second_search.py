"""Second features of a run: those of a secondary search to fuse with, and those to verify with.

other/features/ codebook/ descriptors/ index/ query_features/ rankings/
verification/features/ query_features/
distractors/other/features/ descriptors/    distractors/verification/features/
with_distractors/other/index/ rankings/
"""

import pathlib
from typing import Any

from delf_d2r import config as configs
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.photos.dataset import Dataset, Queries
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.protos import experiment_pb2
from delf_d2r.stages import aggregate_features, build_index, extract_features, search_index, train_codebook

SECONDARY = 'other'
VERIFICATION = 'verification'
# The folders of a run's distractors and of the searches among them.
DISTRACTORS = 'distractors'
JOINED = 'with_distractors'


def secondary_rankings(
  config: experiment_pb2.ExperimentConfig,
  dataset: Dataset,
  queries: Queries,
  features: Artefact,
  output: pathlib.Path,
  *,
  extracting: dict[str, Any],
  distractors: ImageList | None = None,
  distractor_features: Artefact | None = None,
) -> Artefact:
  """Returns the rankings of the secondary search that `config.fusion` describes.

  Its features are extracted in the boxes of the run's own features.

  Args:
    config: of the run.
    dataset: the index photos.
    queries: the queries.
    features: of the run.
    output: the folder of the run.
    extracting: workers, strict and redo, see extract_features.run.
    distractors: photos that are added to the index.
    distractor_features: the run's features of `distractors`.

  Raises:
    UserError: an input is one that a stage cannot work with.
  """
  secondary = experiment_pb2.ExperimentConfig(search=config.search)
  for part in ('extraction', 'codebook', 'aggregation'):
    getattr(secondary, part).CopyFrom(getattr(config.fusion, part))
  secondary = configs.resolve(secondary)
  place, redo = output / SECONDARY, extracting['redo']
  own = extract_features.run(secondary, dataset, place / 'features', boxes=_boxes(features), **extracting)
  codebook = train_codebook.run(secondary, own, place / 'codebook', redo=redo)
  descriptors = aggregate_features.run(secondary, own, codebook, place / 'descriptors', **extracting)
  query_features = extract_features.run_queries(secondary, queries, place / 'query_features', **extracting)
  distractor_descriptors, searched = None, place
  if distractors:
    if distractor_features is None:
      raise ValueError('expected the features of the distractors, found distractor_features=None')
    folder, searched = output / DISTRACTORS / SECONDARY, output / JOINED / SECONDARY
    extracted = extract_features.run(
      secondary, Dataset(distractors), folder / 'features', boxes=_boxes(distractor_features), **extracting
    )
    distractor_descriptors = aggregate_features.run(
      secondary, extracted, codebook, folder / 'descriptors', **extracting
    )
  index = build_index.run(
    secondary,
    descriptors,
    codebook,
    searched / 'index',
    distractors=distractor_descriptors,
    workers=extracting['workers'],
    redo=redo,
  )
  return search_index.run(secondary, index, query_features, searched / 'rankings', redo=redo)


def _boxes(features: Artefact) -> Artefact | None:
  """Returns the boxes that features were extracted in."""
  found = features.input('boxes')
  return Artefact.open(found.path, 'boxes') if found else None


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

  They are those of whole images, without boxes. Arguments and errors are those of `secondary_rankings`.

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
