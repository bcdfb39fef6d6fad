"""Measures every stage on a small sample of photos, or on synthetic features, with the config of the run."""

import dataclasses
import functools
import itertools
import pathlib
import time
from collections.abc import Iterator, Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from delf_d2r import config as configs
from delf_d2r.aggregator import kernel, value_type
from delf_d2r.config.rules import runs
from delf_d2r.data import csv_rows
from delf_d2r.data.artefacts import codebook_files, feature_files, index_files
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.artefacts.feature_store import FeatureStore
from delf_d2r.data.boxes.csv_file import COLUMNS
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.engine import SearchEngine
from delf_d2r.errors import ConfigError
from delf_d2r.index.segments import SEGMENT_ENTRIES, Layout
from delf_d2r.planning import synthetic_artefacts
from delf_d2r.planning.costs import LinearFit, measure
from delf_d2r.planning.stage_rate import Rate, SilencedStage, bytes_of, rate_of
from delf_d2r.planning.synthetic_descriptors import DescriptorGenerator
from delf_d2r.planning.training_rates import TrainingRates, measure_training
from delf_d2r.protos import codebook_pb2, experiment_pb2, regions_pb2, verification_pb2
from delf_d2r.runtime import worker_pool
from delf_d2r.stages import aggregate_features, build_index, detect_boxes, extract_features
from delf_d2r.structures import ImageFeatures
from delf_d2r.verifier import Verifier, features_to_match

# The sample of aggregation for each process: as many images as give this number of distances between features
# and words, within these limits.
_AGGREGATED = 8192  # images at most
_AGGREGATED_BYTES = 500e6  # of descriptors, at most
_AGGREGATED_LEAST = 32  # images
_AGGREGATED_DISTANCES = 8e8
_BUILT_BYTES = 200e6  # of postings in the larger of two indexes
_BUILT_MOST = 20_000
_QUERIES = 100
_PAIRS = 48
_BOXES_SEED = 0


@dataclasses.dataclass(frozen=True)
class Rates:
  """The rates of all stages.

  Attributes:
    stages: by name, in the order of the data flow.
    features: mean number of features of the whole image.
    words: mean number of visual words of an indexed descriptor.
    entries: indexed descriptors of an image.
    dimensions: D.
    training: rates of training the codebook; None if nothing is trained.
    search: CPU seconds of a query by the number of images.
    verification: CPU seconds of verifying one image; None if the run verifies nothing, or it was not
      measured.
    other: rates of the other search of a run with fusion; None if there is none, or it was not measured.
  """

  stages: dict[str, Rate]
  features: float
  words: float
  entries: int
  dimensions: int
  training: TrainingRates | None
  search: LinearFit
  verification: float | None = None
  other: 'Rates | None' = None


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
  """Runs each stage on inputs of two small sizes, each in a process of its own.

  Args:
    config: of the run.
    work: an empty folder for the artefacts.
    photos: the sample; None: synthetic features, and no rates of detection and extraction.
    features: number of synthetic features of a whole image.
    boxes: number of boxes of each photo, at random places; None: the boxes of the config, or none with
      synthetic features.
    dimensions: D of synthetic features.
    workers: processes of the stages that work in parallel; None: one for each core.

  Raises:
    UserError: an input is one that a stage cannot work with.
  """
  for problem in runs.problems(config):
    raise ConfigError(problem.text)
  workers = workers or worker_pool.available_cores()
  stages: dict[str, Rate] = {}
  if photos is None:
    source = synthetic_artefacts.images(features=features, boxes=boxes or 0, dimensions=dimensions)
  else:
    stages |= _of_photos(config, photos, work, boxes=boxes, workers=workers)
    source = itertools.cycle(list(feature_files.read(Artefact.open(work / 'features_many', 'features'))))
  stages['aggregation'], described = _of_aggregation(config, source, work, workers=workers)
  counts = described.counts
  entries = round(counts['descriptors'] / counts['images'])
  words = counts['words'] / max(counts['descriptors'], 1)
  sample = [next(source) for _ in range(64)]
  dimensions = sample[0].features.dimensions
  stages['index'], search = _of_index(
    config,
    work,
    words=max(round(words), 1),
    entries=entries,
    dimensions=codebook_files.load_bits(work / 'codebook'),
  )
  trains = config.codebook.source == codebook_pb2.CodebookConfig.K_MEANS
  training = (
    measure_training(config.codebook, Artefact.open(work / 'synthetic_few', 'features')) if trains else None
  )
  verification = None
  # Synthetic features have no locations that could match, and separate features for verification are not
  # extracted here.
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


def _of_photos(
  config: experiment_pb2.ExperimentConfig,
  photos: ImageList,
  work: pathlib.Path,
  *,
  boxes: int | None,
  workers: int,
) -> dict[str, Rate]:
  """Returns the rates of `detection`, if there is a detector, and of `extraction`; see `measure_rates`.

  The features are left in `features_few` and `features_many` in `work`.
  """
  detection, extraction = [], []
  finds = config.regions.source == regions_pb2.RegionsConfig.DETECTOR
  # Every fourth photo, since neighbours in a folder resemble each other.
  for size, names in (('few', photos.names[::4]), ('many', photos.names)):
    dataset = Dataset(ImageList(photos.root, names))
    found, features = work / f'boxes_{size}', work / f'features_{size}'
    find = functools.partial(detect_boxes.run, config, dataset, found, workers=workers)
    if finds:
      detection.append((len(names), measure(SilencedStage(find)), bytes_of(found)))
    if boxes is not None:
      regions = _file_of_boxes(names, boxes, work / f'boxes_{size}.csv')
      found = work / f'given_boxes_{size}'
      find = functools.partial(detect_boxes.run, regions, dataset, found, workers=workers)
    artefact = find()
    extracting = functools.partial(
      extract_features.run, config, dataset, features, boxes=artefact, workers=workers
    )
    extraction.append((len(names), measure(SilencedStage(extracting)), bytes_of(features)))
  measured = {'detection': detection, 'extraction': extraction}
  cores = min(workers, worker_pool.available_cores())
  return {
    stage: rate_of(*points, workers=workers, cores=cores) for stage, points in measured.items() if points
  }


def _file_of_boxes(names: Sequence[str], count: int, path: pathlib.Path) -> experiment_pb2.ExperimentConfig:
  """Writes `count` boxes at random places for each photo; returns the config that reads them."""
  rng = np.random.default_rng(_BOXES_SEED)
  rows: list[tuple[object, ...]] = [COLUMNS]
  for name in names:
    for _ in range(count):
      size = rng.uniform(0.3, 0.7, 2)
      first = rng.uniform(0, 1 - size)
      rows.append((name, *first.round(4), *(first + size).round(4)))
  path.write_text(csv_rows.format_rows(rows), encoding='utf-8', newline='')
  config = configs.default('regions')
  config.regions.source = regions_pb2.RegionsConfig.FILE
  config.regions.file_path = str(path)
  return config


def _of_aggregation(config, source: Iterator[ImageFeatures], work: pathlib.Path, *, workers: int):
  points = []
  sample = [next(source) for _ in range(64)]
  codebook = synthetic_artefacts.save_codebook(sample, config, work / 'codebook')
  per_image = max(float(np.mean([len(image.features) for image in sample])), 1.0)
  wanted = max(_AGGREGATED_DISTANCES / (per_image * config.codebook.num_words), _AGGREGATED_LEAST)
  each = int(min(wanted, _AGGREGATED, _AGGREGATED_BYTES / (4 * per_image * sample[0].features.dimensions)))
  for size, count in (('few', each * workers // 2), ('many', each * workers)):
    features = synthetic_artefacts.save_features(source, count, config, work / f'synthetic_{size}')
    output = work / f'descriptors_{size}'
    run = functools.partial(aggregate_features.run, config, features, codebook, output, workers=workers)
    points.append((count, measure(SilencedStage(run)), bytes_of(output)))
  cores = min(workers, worker_pool.available_cores())
  return rate_of(*points, workers=workers, cores=cores), Artefact.open(output, 'descriptors')


def _of_index(config, work: pathlib.Path, *, words: int, entries: int, dimensions: int):
  options = config.aggregation
  layout = Layout(
    config.codebook.num_words,
    dimensions,
    kernel(options).is_binary,
    options.region_masks,
    value_type(options),
  )
  many = int(min(_BUILT_MOST, _BUILT_BYTES / (words * entries * layout.posting_bytes)))
  points, searches = [], []
  codebook = Artefact.open(work / 'codebook', 'codebook')
  for size, count in (('few', max(many // 4, 2)), ('many', max(many, 3))):
    descriptors = synthetic_artefacts.save_descriptors(
      count, config, work / f'drawn_{size}', words=words, entries=entries, dimensions=dimensions
    )
    output = work / f'index_{size}'
    built = measure(SilencedStage(functools.partial(build_index.run, config, descriptors, codebook, output)))
    # Synthetic descriptors have some words fewer or more than `words`; the images are scaled accordingly.
    images = descriptors.counts['words'] / (words * entries)
    points.append((images, built, bytes_of(output / index_files.INVERTED)))
    searches.append((images, search_seconds(output, config, words=words, dimensions=dimensions)))
  rate = rate_of(*points, memory_bound=SEGMENT_ENTRIES / entries, cores=worker_pool.available_cores())
  return rate, LinearFit.nondecreasing(*searches)


def search_seconds(
  index: pathlib.Path, config: experiment_pb2.ExperimentConfig, *, words: int, dimensions: int
) -> float:
  """Returns the CPU seconds of the median query."""
  engine = SearchEngine.load(index, one_photo=True)
  generator = DescriptorGenerator(
    num_words=config.codebook.num_words,
    dimensions=dimensions,
    kernel=kernel(config.aggregation),
    words_per_image=words,
    seed=1,
  )
  times = []
  for query in generator.draw_many(_QUERIES):
    started = time.thread_time()
    engine.rank(query, top_k=100)
    times.append(time.thread_time() - started)
  return float(np.median(times))


def verification_seconds(options: verification_pb2.VerificationConfig, features: Artefact) -> float:
  """Returns the CPU seconds of verifying one image: reading its features, matching and geometry.

  It is the mean over pairs of the sample's photos, most of which show different objects. The query is a whole
  photo.

  Args:
    options: how to verify.
    features: of at least two photos.
  """
  verifier = Verifier(options, features.config.extraction.extractor)
  store = FeatureStore(features)
  photos = list(itertools.islice(feature_files.read(features), _PAIRS))
  pairs = list(itertools.islice(itertools.permutations(range(len(photos)), 2), _PAIRS))
  with threadpool_limits(1, user_api='blas'):
    verifier(photos[0].region(0), features_to_match(photos[1], options))  # Loads and compiles everything.
    started = time.process_time()
    for query, image in pairs:
      found = store.read(photos[image].name, position=image)
      verifier(photos[query].region(0), features_to_match(found, options))
  return (time.process_time() - started) / len(pairs)
