"""Batches to train on. What a batch holds is a function of the config, the seed and the step alone.

Step s of batch size B takes the positions s B to (s + 1) B - 1 of an endless sequence of photos, in which
each epoch is a permutation of its own. An interrupted training thus goes on with the very photos and
augmentations that it would have had.
"""

import dataclasses
import functools
import threading
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import tensorflow as tf
from absl import logging

from delf_d2r.data.training.training_examples import Example, Examples
from delf_d2r.errors import ImageError, UserError
from delf_d2r.models.delf import augmentation, warping
from delf_d2r.protos import training_pb2

Config = training_pb2.TrainDelfConfig

# JPEG photos are decoded at a fraction of their size where that leaves this many times the network's side.
_DECODE_FACTOR = 4
# Photos that cannot be decoded are replaced by their neighbours, so many times in a row at most.
_MOST_NEIGHBOURS = 10


@dataclasses.dataclass(frozen=True)
class Order:
  """The endless sequence of photos: n of them, permuted anew in each epoch."""

  num_examples: int
  seed: int

  def __call__(self, position: int) -> int:
    """The number of the photo at a position."""
    epoch, place = divmod(position, self.num_examples)
    return int(_permutation(self.num_examples, self.seed, epoch)[place])


# Batches straddle two epochs at most.
@functools.lru_cache(maxsize=4)
def _permutation(num_examples: int, seed: int, epoch: int) -> np.ndarray:
  return np.random.default_rng((seed, epoch)).permutation(num_examples)


class Batches:
  """Makes the datasets of a training, for one device or many.

  An error of the reader's reaches the training loop wrapped by TensorFlow; `error` is the original one.
  """

  def __init__(self, config: Config, examples: Examples):
    """Takes the photos to train on; at least one.

    Raises:
      UserError: there are no photos.
    """
    if not len(examples):
      raise UserError(f'{examples.source}: no photos to train on')
    self.config = config
    self.error: UserError | None = None
    self._examples = examples
    self._order = Order(len(examples), config.seed)
    self._lock = threading.Lock()
    self._undecodable: set[int] = set()

  def dataset(self, first_step: int, *, pipelines: int = 1, pipeline: int = 0, replicas: int = 1):
    """A dataset of the batches of one replica, from a step to the last one.

    Args:
      first_step: where to begin.
      pipelines: how many datasets share the photos of a step: one for each machine.
      pipeline: which one this is.
      replicas: batches that a step takes from this dataset.

    Returns:
      tf.data.Dataset of dicts: `images` float32 [b, S, S, 3] in [0, 255] and `labels` int64 [b]; for
      WARPED_PAIRS `images`, `second_images`, `homographies` float32 [b, 3, 3] from one to the other, and
      `positions` int64 [b].
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
    """The first `count` batches, or all, whole and on this device."""
    dataset = self.dataset(0)
    return self.explained(dataset if count is None else dataset.take(count))

  def explained(self, batches: Iterable) -> Iterator:
    """Yields the batches; what stopped the reader is raised as it was, not as TensorFlow wraps it."""
    try:
      yield from batches
    except tf.errors.OpError as error:
      if self.error is None:
        raise
      raise self.error from error

  def _load(self, position: tf.Tensor) -> dict[str, tf.Tensor]:
    seed = tf.stack([tf.constant(self.config.seed, tf.int64), position])
    size = self.config.image_size
    if self.config.objective == Config.WARPED_PAIRS:
      first, second, homography = tf.numpy_function(
        self._guarded(self._read_views), [position], (tf.uint8, tf.uint8, tf.float32)
      )
      views = [tf.cast(tf.ensure_shape(view, (size, size, 3)), tf.float32) for view in (first, second)]
      if self.config.augmentation.enabled:
        seeds = tf.unstack(tf.random.split(seed, 2))
        options = self.config.augmentation
        views = [augmentation.photometric(*pair, options) for pair in zip(views, seeds, strict=True)]
      homography = tf.ensure_shape(homography, (3, 3))
      pair = {'images': views[0], 'second_images': views[1], 'homographies': homography}
      return {**pair, 'positions': position}
    image, label = tf.numpy_function(self._guarded(self._read_labelled), [position], (tf.uint8, tf.int64))
    image = tf.cast(tf.ensure_shape(image, (None, None, 3)), tf.float32)
    if self.config.augmentation.enabled:
      crop_seed, colour_seed = tf.unstack(tf.random.split(seed, 2))
      image = augmentation.random_crop(image, crop_seed, self.config.augmentation, size)
      image = augmentation.photometric(image, colour_seed, self.config.augmentation)
    else:
      image = augmentation.fit(image, size)
    return {'images': image, 'labels': tf.ensure_shape(label, ())}

  def _guarded(self, read: Callable) -> Callable:
    """The reader, with its error kept: TensorFlow hands on nothing but a text."""

    def guarded(position):
      try:
        return read(int(position))
      except UserError as error:
        self.error = self.error or error
        raise

    return guarded

  def _read_labelled(self, position: int) -> tuple[np.ndarray, np.int64]:
    example = self._read(position)
    return example.image, np.int64(example.label)

  def _read_views(self, position: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    image = self._read(position).image
    return warping.view_pair(
      image, (self.config.seed, position), self.config.warped_pairs, self.config.image_size
    )

  def _read(self, position: int) -> Example:
    number = self._order(position)
    for neighbour in range(number, number + _MOST_NEIGHBOURS):
      try:
        return self._decode(neighbour % len(self._examples))
      except ImageError as error:
        self._note(neighbour % len(self._examples), error)
        last = error
    raise UserError(f'{_MOST_NEIGHBOURS} photos in a row cannot be decoded; the last: {last}') from last

  def _decode(self, number: int) -> Example:
    return self._examples.read(number, min_side=_DECODE_FACTOR * self.config.image_size)

  def _note(self, number: int, error: ImageError) -> None:
    with self._lock:
      if number not in self._undecodable:
        self._undecodable.add(number)
        logging.warning('left out, its neighbour takes its place: %s', error)


def for_validation(config: Config, examples: Examples) -> Batches:
  """Always the same photos, without augmentation: at most `validation.max_photos`, in whole batches.

  Raises:
    UserError: there are no photos.
  """
  fixed = Config()
  fixed.CopyFrom(config)
  fixed.augmentation.enabled = False
  photos = min(len(examples), config.validation.max_photos or len(examples))
  fixed.steps = max(photos // config.batch_size, 1)
  return Batches(fixed, examples)
