"""Artefacts of synthetic contents, for measuring the stages that read them."""

import itertools
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from delf_d2r.aggregator import kernel
from delf_d2r.data.artefacts import artefact_writer, codebook_files, records
from delf_d2r.data.artefacts.artefact import Artefact, Input, Plan
from delf_d2r.data.artefacts.records import ImageDescriptors
from delf_d2r.kernels.aggregation import MASKED_REGIONS
from delf_d2r.planning.synthetic_descriptors import DescriptorGenerator
from delf_d2r.protos import aggregation_pb2, codebook_pb2, experiment_pb2
from delf_d2r.stages import train_codebook
from delf_d2r.structures import ImageFeatures, LocalFeatures

_REGIONAL_SEARCH = aggregation_pb2.AggregationConfig.REGIONAL_SEARCH
_IMAGES_PER_SHARD = 4096
# Distance between the words of an untrained codebook and the descriptors that they are copies of.
_JITTER = 0.3


def images(*, features: int, boxes: int, dimensions: int, seed: int = 0) -> Iterator[ImageFeatures]:
  """Yields images without end: random unit descriptors, first of the whole image, then of each box.

  Args:
    features: number of features of the whole image; a box has a quarter of them.
    boxes: number of boxes of each image.
    dimensions: D.
    seed: of the random numbers.
  """
  rng = np.random.default_rng(seed)
  offsets = np.cumsum([0, features, *([features // 4] * boxes)], dtype=np.int64)
  coordinates = np.tile(np.array([0, 0, 1, 1], np.float32), (1 + boxes, 1))
  total = int(offsets[-1])
  # Drawing takes longer than aggregating, so that images are random slices of one pool.
  pool = rng.standard_normal((16 * total + 1, dimensions), np.float32)
  pool /= np.linalg.norm(pool, axis=1, keepdims=True)
  ones = np.ones(total, np.float32)
  for _ in itertools.count():
    start = int(rng.integers(len(pool) - total))
    rows = np.roll(pool[start : start + total], int(rng.integers(dimensions)), axis=1)
    local = LocalFeatures(np.zeros((total, 2), np.float32), ones, ones, rows)
    yield ImageFeatures('', 480, 640, coordinates, offsets, local)


def _name(number: int) -> str:
  return f'made/{number:09d}.jpg'


def _inputs(path: pathlib.Path) -> tuple[Input, ...]:
  return (Input('images', 'made', path),)


def save_features(
  source: Iterator[ImageFeatures], count: int, config: experiment_pb2.ExperimentConfig, output: pathlib.Path
) -> Artefact:
  """Returns an artefact of features with `count` images of `source`, each under its own name."""
  own = experiment_pb2.ExperimentConfig(extraction=config.extraction, regions=config.regions)
  with artefact_writer.writing(output, Plan('features', own, _inputs(output))) as writer:
    for shard in writer.ledger.missing(count, _IMAGES_PER_SHARD):
      with writer.ledger.write(shard) as file:
        for number in shard.items:
          image = next(source)
          named = ImageFeatures(
            _name(number), image.height, image.width, image.boxes, image.region_offsets, image.features
          )
          file.add(
            records.encode_features(named),
            images=1,
            features=len(image.features),
            whole_features=len(image.region(0)),
            regions=image.num_regions,
          )
    return writer.finish()


def save_codebook(
  known: Sequence[ImageFeatures], config: experiment_pb2.ExperimentConfig, output: pathlib.Path
) -> Artefact:
  """Returns a codebook of K words that are drawn from features, not trained.

  It is as large as a real one, and its words are as close to each other.
  """
  rng = np.random.default_rng(config.codebook.seed)
  descriptors = np.concatenate([image.region(0).descriptors for image in known])
  num_words = config.codebook.num_words
  chosen = rng.choice(len(descriptors), num_words, replace=len(descriptors) < num_words)
  centroids = descriptors[chosen]
  noise = rng.standard_normal(centroids.shape, np.float32)
  centroids = centroids + _JITTER * noise / np.linalg.norm(noise, axis=1, keepdims=True)
  own = experiment_pb2.ExperimentConfig(extraction=config.extraction, codebook=config.codebook)
  with artefact_writer.writing(output, Plan('codebook', own, _inputs(output))) as writer:
    codebook_files.save_centroids(centroids, output)
    if codebook_files.is_projected(config.codebook):
      # A projection costs the same whatever its numbers are.
      options = codebook_pb2.CodebookConfig(bits=config.codebook.bits)
      options.projection.kinds.append(codebook_pb2.ProjectionConfig.ROTATION)
      origins = train_codebook.unit_origins(config.extraction, centroids.shape[1])
      projection = train_codebook.learn_projection(centroids, descriptors, origins, options)
      assert projection is not None
      codebook_files.save_projection(projection, output)
    return writer.finish({'words': num_words, 'descriptors': len(descriptors)})


def save_descriptors(
  count: int,
  config: experiment_pb2.ExperimentConfig,
  output: pathlib.Path,
  *,
  words: int,
  entries: int,
  dimensions: int,
) -> Artefact:
  """Returns an artefact of aggregated descriptors.

  Args:
    count: number of images.
    config: with the parts codebook and aggregation.
    output: the artefact directory.
    words: mean number of visual words of an entry.
    entries: descriptors of an image; without effect unless the config asks for regional search.
    dimensions: D.
  """
  generator = DescriptorGenerator(
    num_words=config.codebook.num_words,
    dimensions=dimensions,
    kernel=kernel(config.aggregation),
    words_per_image=words,
    masked_regions=MASKED_REGIONS if config.aggregation.region_masks else 0,
  )
  per_image = entries if config.aggregation.regions == _REGIONAL_SEARCH else 1
  boxes = np.tile(np.array([0, 0, 1, 1], np.float32), (entries, 1))
  with artefact_writer.writing(output, Plan('descriptors', config, _inputs(output))) as writer:
    for shard in writer.ledger.missing(count, _IMAGES_PER_SHARD):
      with writer.ledger.write(shard) as file:
        for number in shard.items:
          drawn = generator.draw_many(per_image)
          file.add(
            records.encode_descriptors(ImageDescriptors(_name(number), boxes, drawn)),
            images=1,
            descriptors=len(drawn),
            words=sum(map(len, drawn)),
          )
    return writer.finish()
