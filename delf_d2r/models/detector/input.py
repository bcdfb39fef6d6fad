"""Batches that a detector is trained on: augmented photos with boxes.

A batch is a function of the config, the seed and the step alone (training/batches.py); the official input
pipelines draw another augmentation in each run.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from delf_d2r.data.training.detection_records import DetectionRecords
from delf_d2r.models.delf import augmentation
from delf_d2r.models.detector import detector_backbones
from delf_d2r.models.detector.network import Detector, pad, scaled_length
from delf_d2r.models.training.batches import BaseBatches
from delf_d2r.protos import detector_pb2

Config = detector_pb2.DetectorTrainingConfig


@dataclasses.dataclass(frozen=True)
class DecodedExample:
  """One photo uint8 [H, W, 3] and its boxes float32 [R, 4], normalised."""

  image: np.ndarray
  boxes: np.ndarray


class DetectorBatches(BaseBatches[Config, DecodedExample]):
  """Batches of dicts:

  images: float32 [b, S, S, 3], normalised.
  shapes: float32 [b, 2], height and width of the photo in its square.
  boxes: float32 [b, max_boxes, 4] in pixels of the square, zeros where there are no more.
  targets: the targets of the losses of the architecture.
  """

  def __init__(self, config: Config, records: DetectionRecords, detector: Detector):
    """Takes the records to train `detector` on."""
    super().__init__(config, records)
    self._records = records
    self._detector = detector

  def _decode(self, number: int) -> DecodedExample:
    example = self._records.read(number)
    return DecodedExample(example.image(), example.boxes[: self.config.max_boxes])

  def _read_boxed(self, position: int) -> tuple[np.ndarray, np.ndarray]:
    example = self._read(position)
    return example.image, example.boxes

  def _load(self, position: tf.Tensor) -> dict:
    image, boxes = tf.numpy_function(
      self._recording_errors(self._read_boxed), [position], (tf.uint8, tf.float32), stateful=False
    )
    image = tf.cast(tf.ensure_shape(image, (None, None, 3)), tf.float32)
    boxes = tf.ensure_shape(boxes, (None, 4))
    seed = tf.stack([tf.constant(self.config.seed, tf.int64), position])
    place_seed, colour_seed, sample_seed = tf.unstack(tf.random.split(seed, 3))
    options = self.config.augmentation
    side = self.config.model.image_size
    if options.enabled:
      image, boxes = random_placement(image, boxes, place_seed, options, side)
      image = augmentation.photometric(image, colour_seed, options)
    else:
      image, boxes = placement(image, boxes, side)
    shape = tf.cast(tf.shape(image)[:2], tf.float32)
    image = pad(detector_backbones.normalize(self.config.model, image), side)
    padding = tf.stack([[0, self.config.max_boxes - tf.shape(boxes)[0]], [0, 0]])
    return {
      'images': tf.ensure_shape(image, (side, side, 3)),
      'shapes': shape,
      'boxes': tf.ensure_shape(tf.pad(boxes, padding), (self.config.max_boxes, 4)),
      'targets': self._detector.architecture.targets(boxes, sample_seed),
    }


def placement(image: tf.Tensor, boxes: tf.Tensor, side: int) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns a photo scaled to a long side; nothing is random.

  Args:
    image: float32 [H, W, 3].
    boxes: float32 [R, 4], normalised.
    side: pixels.

  Returns:
    float32 [h, w, 3], and its boxes in pixels.
  """
  return _scaled(image, boxes, float(side))


def random_placement(
  image: tf.Tensor,
  boxes: tf.Tensor,
  seed: tf.Tensor,
  options: detector_pb2.DetectorAugmentationConfig,
  side: int,
) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns a photo mirrored, scaled and cut at random so that it fits into a square.

  Args:
    image: float32 [H, W, 3].
    boxes: float32 [R, 4], normalised.
    seed: int [2].
    options: the bounds.
    side: of the square, pixels.

  Returns:
    float32 [h, w, 3] with h, w <= side, and boxes [R', 4] in its pixels: those of which enough is left.
  """
  flip_seed, scale_seed, cut_seed = tf.unstack(tf.random.split(seed, 3))
  if options.flip:
    is_mirrored = tf.random.stateless_uniform((), flip_seed) < 0.5
    image = tf.where(is_mirrored, image[:, ::-1], image)
    ymin, xmin, ymax, xmax = tf.unstack(boxes, axis=1)
    boxes = tf.where(is_mirrored, tf.stack([ymin, 1 - xmax, ymax, 1 - xmin], axis=1), boxes)
  scale = tf.random.stateless_uniform((), scale_seed, options.min_scale, options.max_scale)
  image, boxes = _scaled(image, boxes, side * scale)

  shape = tf.shape(image)[:2]
  kept = tf.minimum(shape, side)
  free = tf.cast(shape - kept + 1, tf.float32)
  start = tf.cast(tf.random.stateless_uniform((2,), cut_seed) * free, tf.int32)
  image = image[start[0] : start[0] + kept[0], start[1] : start[1] + kept[1]]
  whole = boxes - tf.cast(tf.tile(start, (2,)), tf.float32)
  cut = tf.clip_by_value(whole, 0.0, tf.cast(tf.tile(kept, (2,)), tf.float32))
  is_visible = _area(cut) >= tf.maximum(options.min_visible * _area(whole), 1.0)
  return image, tf.boolean_mask(cut, is_visible)


def _scaled(image: tf.Tensor, boxes: tf.Tensor, long_side: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
  shape = tf.shape(image)[:2]
  scale = long_side / tf.cast(tf.reduce_max(shape), tf.float32)
  shape = scaled_length(shape, scale)
  boxes *= tf.cast(tf.tile(shape, (2,)), tf.float32)
  return tf.image.resize(image, shape, antialias=True), boxes


def _area(boxes: tf.Tensor) -> tf.Tensor:
  return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
