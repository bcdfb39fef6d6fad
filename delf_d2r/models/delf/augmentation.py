"""Augmentation of photos on their way to the network. Every function is pure: its seed decides.

Images are float32 [H, W, 3], RGB in [0, 255].
"""

import math

import tensorflow as tf

from delf_d2r.protos import detector_pb2, training_pb2


def fit(image: tf.Tensor, size: int) -> tf.Tensor:
  """Returns the central square of a photo at `size` x `size`, as validation sees it: nothing is random."""
  shape = tf.shape(image)
  side = tf.minimum(shape[0], shape[1])
  top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
  return _resize(image[top : top + side, left : left + side], size)


def random_crop(
  image: tf.Tensor, seed: tf.Tensor, config: training_pb2.AugmentationConfig, size: int
) -> tf.Tensor:
  """Returns a random part of a photo at `size` x `size`, mirrored half of the time if the config allows it.

  Args:
    image: float32 [H, W, 3].
    seed: int [2].
    config: the bounds of the part's area and aspect ratio.
    size: pixels.
  """
  crop_seed, flip_seed = _seeds(seed, 2)
  begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
    tf.shape(image),
    tf.zeros((1, 0, 4)),
    crop_seed,
    min_object_covered=0.0,
    aspect_ratio_range=(config.min_aspect_ratio, config.max_aspect_ratio),
    area_range=(config.min_area, 1.0),
    max_attempts=100,
    use_image_if_no_bounding_boxes=True,
  )
  image = _resize(tf.slice(image, begin, extent), size)
  return tf.image.stateless_random_flip_left_right(image, flip_seed) if config.flip else image


def photometric(
  image: tf.Tensor,
  seed: tf.Tensor,
  config: training_pb2.AugmentationConfig | detector_pb2.DetectorAugmentationConfig,
) -> tf.Tensor:
  """Applies random changes of light, colour and sharpness, each as strong as configured."""
  seeds = _seeds(seed, 8)
  image = image / 255
  if config.brightness:
    image = tf.image.stateless_random_brightness(image, config.brightness, seeds[0])
  if config.contrast:
    image = tf.image.stateless_random_contrast(image, 1 - config.contrast, 1 + config.contrast, seeds[1])
  # Saturation and hue are defined for colours in [0, 1] alone.
  image = tf.clip_by_value(image, 0, 1)
  if config.saturation:
    image = tf.image.stateless_random_saturation(
      image, 1 - config.saturation, 1 + config.saturation, seeds[2]
    )
  if config.hue:
    image = tf.image.stateless_random_hue(image, config.hue, seeds[3])
  if config.grey_probability:
    grey = tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(image))
    image = tf.where(tf.random.stateless_uniform((), seeds[4]) < config.grey_probability, grey, image)
  if config.blur:
    image = _blur(image, tf.random.stateless_uniform((), seeds[5], maxval=config.blur), config.blur)
  if config.noise:
    image += tf.random.stateless_normal(tf.shape(image), seeds[6], stddev=config.noise)
  image = tf.clip_by_value(image, 0, 1)
  if config.min_jpeg_quality < 100:
    image = tf.image.stateless_random_jpeg_quality(image, config.min_jpeg_quality, 100, seeds[7])
  return 255 * image


def _blur(image: tf.Tensor, deviation: tf.Tensor, most: float) -> tf.Tensor:
  """Applies Gaussian blur of a deviation up to `most` pixels, along one axis after the other."""
  radius = math.ceil(3 * most)
  offsets = tf.range(-radius, radius + 1, dtype=tf.float32)
  weights = tf.exp(-(offsets**2) / (2 * tf.maximum(deviation, 1e-3) ** 2))
  weights = tf.tile((weights / tf.reduce_sum(weights))[:, None], (1, 3))
  image = tf.pad(image, ((radius, radius), (radius, radius), (0, 0)), 'SYMMETRIC')[None]
  for kernel in (weights[:, None, :, None], weights[None, :, :, None]):
    image = tf.nn.depthwise_conv2d(image, kernel, (1, 1, 1, 1), 'VALID')
  return image[0]


def _resize(image: tf.Tensor, size: int) -> tf.Tensor:
  return tf.ensure_shape(tf.image.resize(image, (size, size), antialias=True), (size, size, 3))


def _seeds(seed: tf.Tensor, count: int) -> list[tf.Tensor]:
  return tf.unstack(tf.random.split(seed, count))
