"""Batches to train on. The content of a batch is a function of the config, the seed and the step alone.

Step s of batch size B takes the positions s B to (s + 1) B - 1 of an endless sequence of photos, in which
each epoch is a permutation of its own. An interrupted training thus continues with the same photos and
augmentations that it would have had.
"""

import dataclasses
import functools
import pathlib
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Protocol, TypeVar

import numpy as np
import tensorflow as tf
from absl import logging

from delf_d2r.errors import ImageError, PhotoUnavailableError, UserError
from delf_d2r.protos.detector_pb2 import DetectorTrainingConfig
from delf_d2r.protos.training_pb2 import TrainDelfConfig

# Photos that cannot be decoded are replaced by their neighbours, at most this many times in a row.
_MOST_NEIGHBOURS = 10

Config = TypeVar('Config', TrainDelfConfig, DetectorTrainingConfig)
Example = TypeVar('Example')


class NumberedPhotos(Protocol):
  """Photos that are read by their numbers; `source` names them in messages."""

  @property
  def source(self) -> str | pathlib.Path: ...

  def __len__(self) -> int: ...


@dataclasses.dataclass(frozen=True)
class EpochSampler:
  """The endless sequence of photos: n of them, in another permutation in each epoch."""

  num_examples: int
  seed: int

  def __call__(self, position: int) -> int:
    """Returns the number of the photo at a position."""
    epoch, place = divmod(position, self.num_examples)
    return int(_permutation(self.num_examples, self.seed, epoch)[place])


# Batches straddle two epochs at most.
@functools.lru_cache(maxsize=4)
def _permutation(num_examples: int, seed: int, epoch: int) -> np.ndarray:
  return np.random.default_rng((seed, epoch)).permutation(num_examples)


class ClassSampler:
  """The endless sequence of photos in groups of one class, classes being drawn more evenly than they occur.

  A class of n photos has groups in proportion to n^(1 - balance), which systematic sampling rounds, so that
  no class is missed by chance. Its photos follow each other in permutations.
  """

  def __init__(self, labels: np.ndarray, seed: int, *, group: int, balance: float):
    """Takes the labels int [n] of n >= 1 photos, the size of groups, and the balance."""
    self._labels, self._seed, self._group = labels, seed, group
    _, numbers, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    self._members = [np.flatnonzero(numbers == number) for number in range(len(sizes))]
    weights = sizes.astype(np.float64) ** (1 - balance)
    self._num_groups = -(-len(labels) // group)
    self._expected = self._num_groups * weights / weights.sum()
    # Batches straddle two epochs at most.
    self._epoch = functools.lru_cache(maxsize=4)(self._draw)

  def __call__(self, position: int) -> int:
    """Returns the number of the photo at a position."""
    epoch, place = divmod(position, self._num_groups * self._group)
    return int(self._epoch(epoch)[place])

  def _draw(self, epoch: int) -> np.ndarray:
    """Returns the numbers of the photos of an epoch."""
    rng = np.random.default_rng((self._seed, epoch))
    order = rng.permutation(len(self._members))
    ends = np.cumsum(self._expected[order])
    ends[-1] = self._num_groups  # Whatever rounding made of the sum.
    borders = np.floor(np.concatenate([[0], ends]) + rng.random()).astype(int)
    groups = []
    for number, count in zip(order, np.diff(borders), strict=True):
      members = self._members[number]
      wanted = count * self._group
      rounds = [rng.permutation(members) for _ in range(-(-wanted // len(members)))]
      if rounds:
        groups.append(np.concatenate(rounds)[:wanted].reshape(-1, self._group))
    return rng.permutation(np.concatenate(groups)).reshape(-1)


class BaseBatches(Generic[Config, Example]):
  """Makes the datasets of a training, for one device or many. Subclasses read and augment a photo.

  An error of the reader reaches the training loop wrapped by TensorFlow; `error` is the original one.

  Attributes:
    config: the config of the training.
    error: the first error of the reader; None if there was none.
  """

  def __init__(self, config: Config, photos: NumberedPhotos):
    """Takes the photos to train on; at least one.

    Raises:
      UserError: there are no photos.
    """
    if not len(photos):
      raise UserError(f'{photos.source}: no photos to train on')
    self.config: Config = config
    self.error: UserError | None = None
    self._num_photos = len(photos)
    self._sampler: Callable[[int], int] = EpochSampler(len(photos), config.seed)
    self._lock = threading.Lock()
    self._undecodable: set[int] = set()

  def dataset(self, first_step: int, *, pipelines: int = 1, pipeline: int = 0, replicas: int = 1):
    """Returns a dataset of the batches of one replica, from a step to the last one.

    Args:
      first_step: where to begin.
      pipelines: number of datasets that share the photos of a step: one for each machine.
      pipeline: the number of this one.
      replicas: batches that a step takes from this dataset.

    Returns:
      tf.data.Dataset of dicts, see the subclasses.
    """
    share = self.config.batch_size // pipelines
    last = self.config.steps * share

    def position(item):
      return (item // share) * self.config.batch_size + pipeline * share + item % share

    threads = self.config.reader_threads or tf.data.AUTOTUNE
    dataset = tf.data.Dataset.range(first_step * share, last).map(position)
    dataset = dataset.map(self._load, num_parallel_calls=threads)
    dataset = dataset.batch(share // replicas, drop_remainder=True)
    return dataset.prefetch(2)

  def batches(self, count: int | None = None) -> Iterator[dict[str, tf.Tensor]]:
    """Yields the first `count` batches, or all, whole and on this device."""
    dataset = self.dataset(0)
    return self.with_reader_errors(dataset if count is None else dataset.take(count))

  def with_reader_errors(self, batches: Iterable) -> Iterator:
    """Yields the batches; an error of the reader is raised as it was, not as TensorFlow wraps it."""
    try:
      yield from batches
    except tf.errors.OpError as error:
      if self.error is None:
        raise
      raise self.error from error

  def _load(self, position: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns the photo at a position of the sequence, augmented, as an entry of a batch."""
    raise NotImplementedError

  def _decode(self, number: int) -> Example:
    """Reads the photo of that number; ImageError if it cannot be decoded."""
    raise NotImplementedError

  def _recording_errors(self, read: Callable) -> Callable:
    """Returns the reader with its error recorded: TensorFlow passes on nothing but a text."""

    def read_recording(position):
      try:
        return read(int(position))
      except UserError as error:
        self.error = self.error or error
        raise

    return read_recording

  def _read(self, position: int) -> Example:
    number = self._sampler(position)
    for neighbour in range(number, number + _MOST_NEIGHBOURS):
      try:
        return self._decode(neighbour % self._num_photos)
      except PhotoUnavailableError:
        raise
      except ImageError as error:
        self._note(neighbour % self._num_photos, error)
        last = error
    raise UserError(f'{_MOST_NEIGHBOURS} photos in a row cannot be decoded; the last: {last}') from last

  def _note(self, number: int, error: ImageError) -> None:
    with self._lock:
      if number not in self._undecodable:
        self._undecodable.add(number)
        logging.warning('skipped, its neighbour takes its place: %s', error)
