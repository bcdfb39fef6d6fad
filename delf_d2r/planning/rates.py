"""Measures every stage on a small sample of photos, or on made features, with the config of the run."""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Iterator

import numpy as np

from delf_d2r.aggregator import kernel
from delf_d2r.config.rules import runs
from delf_d2r.data.artefacts import index_files
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.errors import ConfigError
from delf_d2r.index.segments import SEGMENT_ENTRIES, Layout
from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.planning import synthetic_artefacts
from delf_d2r.planning.costs import Line, measure
from delf_d2r.planning.photo_rates import of_photos
from delf_d2r.planning.query_rates import search_seconds, verification_seconds
from delf_d2r.planning.stage_rate import Quiet, Rate, bytes_of, rate_of
from delf_d2r.planning.training_rates import TrainingRates, measure_training
from delf_d2r.protos import codebook_pb2, experiment_pb2
from delf_d2r.runtime import worker_pool
from delf_d2r.stages import aggregate_features, build_index, extract_features
from delf_d2r.structures import ImageFeatures

# What is aggregated for each process: as many distances of features to words, within these limits.
_AGGREGATED = 8192  # images at most
_AGGREGATED_BYTES = 500e6  # of descriptors, at most
_AGGREGATED_LEAST = 32  # images
_AGGREGATED_DISTANCES = 8e8
_BUILT_BYTES = 200e6  # of postings in the larger of two indexes
_BUILT_MOST = 20_000


@dataclasses.dataclass(frozen=True)
class Rates:
  """Of all stages.

  Attributes:
    stages: by name, in the order of the data flow.
    features: of the whole of an image, on average.
    words: visual words of an indexed descriptor, on average.
    entries: indexed descriptors of an image.
    dimensions: D.
    training: of the codebook; None where nothing is trained.
    search: seconds of CPU that a query takes by the number of images.
    verification: seconds of CPU for each image that re-ranking looks at; None: there is none, or it was not
      measured.
  """

  stages: dict[str, Rate]
  features: float
  words: float
  entries: int
  dimensions: int
  training: TrainingRates | None
  search: Line
  verification: float | None = None


def measure_rates(
  config: experiment_pb2.ExperimentConfig,
  work: pathlib.Path,
  *,
  photos: ImageList | None = None,
  features: int = 1000,
  boxes: int | None = None,
  dimensions: int = 128,
  workers: int | None = None,
) -> Rates:
  """Runs the stages on small inputs, each in a process of its own, at two sizes.

  Args:
    config: of the run.
    work: an empty folder for what they make.
    photos: the sample; None: made features, and no rates of detection and extraction.
    features, dimensions: of made features.
    boxes: for each photo, at random places; None: those of the config, or with made features none.
    workers: processes of the stages that have some; None: one for each core.

  Raises:
    UserError: whatever a stage cannot work with.
  """
  for problem in runs.problems(config):
    raise ConfigError(problem.text)
  workers = workers or worker_pool.available_cores()
  stages = {}
  if photos is None:
    source = synthetic_artefacts.images(features=features, boxes=boxes or 0, dimensions=dimensions)
  else:
    stages |= of_photos(config, photos, work, boxes=boxes, workers=workers)
    source = itertools.cycle(list(extract_features.read(Artefact.open(work / 'features_many', 'features'))))
  stages['aggregation'], described = _of_aggregation(config, source, work, workers=workers)
  counts = described.counts
  entries = round(counts['descriptors'] / counts['images'])
  words = counts['words'] / max(counts['descriptors'], 1)
  sample = [next(source) for _ in range(64)]
  dimensions = sample[0].features.dimensions
  stages['index'], search = _of_index(
    config, work, words=max(round(words), 1), entries=entries, dimensions=dimensions
  )
  trains = config.codebook.source != codebook_pb2.CodebookConfig.ORIGIN
  training = (
    measure_training(config.codebook, Artefact.open(work / 'made_few', 'features')) if trains else None
  )
  verification = None
  # Made features have no places that could agree, and other features than the run's are not extracted here.
  if photos and config.HasField('verification') and not config.verification.HasField('extraction'):
    verification = verification_seconds(
      config.verification, Artefact.open(work / 'features_many', 'features')
    )
  return Rates(
    stages,
    float(np.mean([len(image.region(0)) for image in sample])),
    words,
    entries,
    dimensions,
    training,
    search,
    verification,
  )


def _of_aggregation(config, source: Iterator[ImageFeatures], work: pathlib.Path, *, workers: int):
  points = []
  sample = [next(source) for _ in range(64)]
  codebook = synthetic_artefacts.save_codebook(sample, config, work / 'codebook')
  per_image = max(float(np.mean([len(image.features) for image in sample])), 1.0)
  wanted = max(_AGGREGATED_DISTANCES / (per_image * config.codebook.num_words), _AGGREGATED_LEAST)
  each = int(min(wanted, _AGGREGATED, _AGGREGATED_BYTES / (4 * per_image * sample[0].features.dimensions)))
  for size, count in (('few', each * workers // 2), ('many', each * workers)):
    features = synthetic_artefacts.save_features(source, count, config, work / f'made_{size}')
    output = work / f'descriptors_{size}'
    run = functools.partial(aggregate_features.run, config, features, codebook, output, workers=workers)
    points.append((count, measure(Quiet(run)), bytes_of(output)))
  cores = min(workers, worker_pool.available_cores())
  return rate_of(*points, workers=workers, cores=cores), Artefact.open(output, 'descriptors')


def _of_index(config, work: pathlib.Path, *, words: int, entries: int, dimensions: int):
  layout = Layout(config.codebook.num_words, dimensions, kernel(config.aggregation) is Kernel.ASMK_STAR)
  many = int(min(_BUILT_MOST, _BUILT_BYTES / (words * entries * layout.posting_bytes)))
  points, searches = [], []
  codebook = Artefact.open(work / 'codebook', 'codebook')
  for size, count in (('few', max(many // 4, 2)), ('many', max(many, 3))):
    descriptors = synthetic_artefacts.save_descriptors(
      count, config, work / f'drawn_{size}', words=words, entries=entries, dimensions=dimensions
    )
    output = work / f'index_{size}'
    built = measure(Quiet(functools.partial(build_index.run, config, descriptors, codebook, output)))
    # Drawn descriptors have some words less or more than was asked for: counted as so many of the run's.
    images = descriptors.counts['words'] / (words * entries)
    points.append((images, built, bytes_of(output / index_files.INVERTED)))
    searches.append((images, search_seconds(output, config, words=words, dimensions=dimensions)))
  rate = rate_of(*points, memory_bound=SEGMENT_ENTRIES / entries, cores=worker_pool.available_cores())
  return rate, Line.rising(*searches)
