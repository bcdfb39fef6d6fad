"""What a run makes beside its own search: another search to fuse with, other features to verify with.

other/features/ codebook/ descriptors/ index/ query_features/ rankings/
verification/features/ query_features/
distractors/other/features/ descriptors/    distractors/verification/features/
with_distractors/other/index/ rankings/
"""

import pathlib

from delf_d2r import config as configs
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.protos import experiment_pb2
from delf_d2r.stages import aggregate_features, build_index, extract_features, search_index, train_codebook

OTHER = 'other'
VERIFICATION = 'verification'
# The folders of a run's distractors and of what is searched with them.
DISTRACTORS = 'distractors'
JOINED = 'with_distractors'


def other_rankings(
  config: experiment_pb2.ExperimentConfig,
  dataset: Dataset,
  features: Artefact,
  output: pathlib.Path,
  *,
  extracting: dict,
  distractors: ImageList | None = None,
  distractor_features: Artefact | None = None,
) -> Artefact:
  """The rankings of the other search that `config.fusion` describes.

  Args:
    config: of the run.
    dataset: photos and queries.
    features: those of the run; its boxes are the other search's, too.
    output: the folder of the run.
    extracting: workers, strict and redo, as extract.run takes them.
    distractors: photos to search among, too.
    distractor_features: those of the run; likewise.
  """
  other = experiment_pb2.ExperimentConfig(search=config.search)
  for part in ('extraction', 'codebook', 'aggregation'):
    getattr(other, part).CopyFrom(getattr(config.fusion, part))
  other = configs.resolve(other)
  place, redo = output / OTHER, extracting['redo']
  own = extract_features.run(other, dataset, place / 'features', boxes=_boxes(features), **extracting)
  codebook = train_codebook.run(other, own, place / 'codebook', redo=redo)
  descriptors = aggregate_features.run(other, own, codebook, place / 'descriptors', **extracting)
  queries = extract_features.run_queries(other, dataset.queries, place / 'query_features', **extracting)
  more, searched = None, place
  if distractors:
    theirs, searched = output / DISTRACTORS / OTHER, output / JOINED / OTHER
    found = extract_features.run(
      other, Dataset(distractors), theirs / 'features', boxes=_boxes(distractor_features), **extracting
    )
    more = aggregate_features.run(other, found, codebook, theirs / 'descriptors', **extracting)
  index = build_index.run(
    other,
    descriptors,
    codebook,
    searched / 'index',
    distractors=more,
    workers=extracting['workers'],
    redo=redo,
  )
  return search_index.run(other, index, queries, searched / 'rankings', redo=redo)


def _boxes(features: Artefact) -> Artefact | None:
  """What features were extracted in."""
  found = features.input('boxes')
  return Artefact.open(found.path, 'boxes') if found else None


def to_verify(
  config: experiment_pb2.ExperimentConfig,
  dataset: Dataset,
  distractors: ImageList | None,
  output: pathlib.Path,
  *,
  extracting: dict,
) -> tuple[Artefact, Artefact, Artefact | None]:
  """The features that `config.verification.extraction` describes: of index images, queries and distractors.

  Boxes play no role. Arguments as of `other_rankings`.
  """
  own = experiment_pb2.ExperimentConfig(extraction=config.verification.extraction)
  place = output / VERIFICATION
  features = extract_features.run(own, dataset, place / 'features', boxes=None, **extracting)
  queries = extract_features.run_queries(own, dataset.queries, place / 'query_features', **extracting)
  more = None
  if distractors:
    theirs = output / DISTRACTORS / VERIFICATION / 'features'
    more = extract_features.run(own, Dataset(distractors), theirs, boxes=None, **extracting)
  return features, queries, more
