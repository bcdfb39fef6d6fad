"""The cost of training a codebook, measured on some features: k-means, reading and the quality report."""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable

import numpy as np

from delf_d2r import codebook as codebooks
from delf_d2r.data.artefacts import feature_files
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.kernels.assignment import ExactAssigner
from delf_d2r.planning.costs import Cost
from delf_d2r.protos import codebook_pb2
from delf_d2r.runtime import worker_pool
from delf_d2r.structures import ImageFeatures

_IMAGES = 64
_WORDS = 4096  # Upper limit.
_PER_WORD = 16  # Descriptors.
_ITERATIONS = 3
_COMPARED = 300_000_000  # Pairs of descriptors and words.
_COMPARED_LEAST = 1024  # Descriptors.


@dataclasses.dataclass(frozen=True)
class TrainingRates:
  """Unit costs of the stage train_codebook, without memory.

  Attributes:
    reading: of one image; the features of all images are read, even if few of them are trained on.
    comparing: of one descriptor with one word, in a comparison with all words.
    moving: of one descriptor in one iteration of k-means with the words of the run.
    is_approximate: whether an iteration also compares the words with each other to find neighbours.
  """

  reading: Cost
  comparing: Cost
  moving: Cost
  is_approximate: bool

  def total(self, *, images: float, descriptors: float, words: float, iterations: float) -> Cost:
    """Returns the cost of a whole training.

    The quality report compares every descriptor with every word once.
    """
    compared = descriptors + (iterations * words if self.is_approximate else 0)
    parts = (
      (self.reading, images),
      (self.comparing, compared * words),
      (self.moving, descriptors * iterations),
    )
    return Cost(
      sum(cost.seconds * times for cost, times in parts),
      sum(cost.cpu_seconds * times for cost, times in parts),
      0.0,
    )


def measure_training(options: codebook_pb2.CodebookConfig, features: Artefact) -> TrainingRates:
  """Measures the unit costs with some features.

  Args:
    options: of the codebook to train.
    features: of some images, with at least one descriptor.
  """
  images: list[ImageFeatures] = []
  reading = _timed(
    lambda: images.extend(itertools.islice(feature_files.read(features), _IMAGES)),
    1 / min(features.counts['images'], _IMAGES),
  )
  descriptors = np.concatenate([image.region(0).descriptors for image in images])
  comparing = _comparing(descriptors, options.num_words)
  is_approximate = options.assignment == codebook_pb2.CodebookConfig.APPROXIMATE
  num_words = min(options.num_words, _WORDS, len(descriptors))
  descriptors = descriptors[: _PER_WORD * num_words]

  def train(iterations: int) -> Cost:
    return _timed(
      lambda: codebooks.Codebook.train(
        descriptors,
        num_words=num_words,
        iterations=iterations,
        seed=options.seed,
        assignment='approximate' if is_approximate else 'exact',
      )
    )

  few, many = train(1), train(1 + _ITERATIONS)
  more_words = options.num_words / num_words
  if is_approximate:
    # A descriptor is compared with about sqrt(K) of K words (codebook.py), so the cost grows like sqrt(K).
    more_words = math.sqrt(more_words)

  def each(few: float, many: float, comparing: float) -> float:
    iteration = max(many - few, 0.0) / _ITERATIONS
    words_with_words = comparing * num_words**2 if is_approximate else 0.0
    return more_words * max(iteration - words_with_words, 0.0) / len(descriptors)

  cpu = each(few.cpu_seconds, many.cpu_seconds, comparing.cpu_seconds)
  # The difference of two short times may be less than the CPU time on all cores.
  seconds = max(each(few.seconds, many.seconds, comparing.seconds), cpu / worker_pool.available_cores())
  return TrainingRates(reading, comparing, Cost(seconds, cpu, 0.0), is_approximate)


def _comparing(descriptors: np.ndarray, num_words: int) -> Cost:
  """Returns the cost of comparing one descriptor with one of many words."""
  words = descriptors[:num_words]
  some = descriptors[: max(_COMPARED // len(words), _COMPARED_LEAST)]
  assigner = ExactAssigner(words)
  assigner(some[:_COMPARED_LEAST])  # Starts the threads.
  return _timed(lambda: assigner(some), 1 / (len(some) * len(words)))


def _timed(function: Callable[[], object], share: float = 1.0) -> Cost:
  """Returns a share of the cost of calling the function in this process, without memory."""
  wall, cpu = time.perf_counter(), time.process_time()
  function()
  return Cost(share * (time.perf_counter() - wall), share * (time.process_time() - cpu), 0.0)
