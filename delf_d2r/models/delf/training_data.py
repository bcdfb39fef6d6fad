"""Batches that DELF is trained on: augmented photos with labels, or pairs of views."""

import numpy as np
import tensorflow as tf

from delf_d2r.data.training.training_examples import Example, Examples, PhotoFiles
from delf_d2r.errors import UserError
from delf_d2r.models.delf import augmentation, warping
from delf_d2r.models.training.batches import BaseBatches, ClassSampler
from delf_d2r.protos import training_pb2

Config = training_pb2.TrainDelfConfig

# JPEG photos are decoded at a fraction of their size where that leaves this many times the network's side.
_DECODE_FACTOR = 4


class Batches(BaseBatches[Config, Example]):
  """Batches of dicts:

  images: float32 [b, S, S, 3] in [0, 255].
  labels: int64 [b].

  or, for WARPED_PAIRS:

  images, second_images: float32 [b, S, S, 3] in [0, 255].
  homographies: float32 [b, 3, 3] from one to the other.
  positions: int64 [b].
  """

  def __init__(self, config: Config, examples: Examples):
    """Takes the photos to train on; UserError if there are none, or their labels are needed but unknown."""
    super().__init__(config, examples)
    self._examples = examples
    if config.class_balance or config.photos_of_class > 1:
      if not isinstance(examples, PhotoFiles):
        raise UserError(
          f'{examples.source}: class_balance and photos_of_class need to know all labels beforehand, which'
          ' TFRecord shards do not tell. Give a folder for each class or a CSV file, or remove both fields'
        )
      self._sampler = ClassSampler(
        examples.labels, config.seed, group=max(config.photos_of_class, 1), balance=config.class_balance
      )

  def _load(self, position: tf.Tensor) -> dict[str, tf.Tensor]:
    seed = tf.stack([tf.constant(self.config.seed, tf.int64), position])
    size = self.config.image_size
    if self.config.objective == Config.WARPED_PAIRS:
      first, second, homography = tf.numpy_function(
        self._recording_errors(self._read_views), [position], (tf.uint8, tf.uint8, tf.float32)
      )
      views = [tf.cast(tf.ensure_shape(view, (size, size, 3)), tf.float32) for view in (first, second)]
      if self.config.augmentation.enabled:
        seeds = tf.unstack(tf.random.split(seed, 2))
        options = self.config.augmentation
        views = [augmentation.photometric(*pair, options) for pair in zip(views, seeds, strict=True)]
      homography = tf.ensure_shape(homography, (3, 3))
      pair = {'images': views[0], 'second_images': views[1], 'homographies': homography}
      return {**pair, 'positions': position}
    image, label = tf.numpy_function(
      self._recording_errors(self._read_labelled), [position], (tf.uint8, tf.int64)
    )
    image = tf.cast(tf.ensure_shape(image, (None, None, 3)), tf.float32)
    if self.config.augmentation.enabled:
      crop_seed, colour_seed = tf.unstack(tf.random.split(seed, 2))
      image = augmentation.random_crop(image, crop_seed, self.config.augmentation, size)
      image = augmentation.photometric(image, colour_seed, self.config.augmentation)
    else:
      image = augmentation.fit(image, size)
    return {'images': image, 'labels': tf.ensure_shape(label, ())}

  def _read_labelled(self, position: int) -> tuple[np.ndarray, np.int64]:
    example = self._read(position)
    return example.image, np.int64(example.label)

  def _read_views(self, position: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    image = self._read(position).image
    return warping.view_pair(
      image, (self.config.seed, position), self.config.warped_pairs, self.config.image_size
    )

  def _decode(self, number: int) -> Example:
    return self._examples.read(number, min_side=_DECODE_FACTOR * self.config.image_size)


def for_validation(config: Config, examples: Examples) -> Batches:
  """Returns batches of a fixed set of photos without augmentation: at most `validation.max_photos`.

  Raises:
    UserError: there are no photos.
  """
  fixed = _plain(config)
  photos = min(len(examples), config.validation.max_photos or len(examples))
  fixed.steps = max(photos // config.batch_size, 1)
  return Batches(fixed, examples)


def unchanged(config: Config, examples: Examples, count: int) -> Batches:
  """Returns batches of `count` of the photos, drawn at random, or of all for 0, without augmentation.

  A few photos come twice where the number is no multiple of the batch size.

  Raises:
    UserError: there are no photos.
  """
  fixed = _plain(config)
  fixed.steps = -(-min(count or len(examples), len(examples)) // config.batch_size)
  return Batches(fixed, examples)


def _plain(config: Config) -> Config:
  """Returns the config of a pass over photos as they are, each once."""
  fixed = Config()
  fixed.CopyFrom(config)
  fixed.augmentation.enabled = False
  for field in ('class_balance', 'photos_of_class'):
    fixed.ClearField(field)
  return fixed
