"""A landmark detector: network, weights, and how photos of any size go in and boxes come out."""

import contextlib
import pathlib
import zipfile
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from google.protobuf import text_format

from delf_d2r.config import values
from delf_d2r.data import files
from delf_d2r.errors import UserError
from delf_d2r.models.detector import architectures, detector_backbones, model_garden
from delf_d2r.models.saved_models import log_suppression
from delf_d2r.protos import detector_pb2

Config = detector_pb2.DetectorModelConfig

# Fields that may differ between the config that weights were trained with and the one that reads them.
_FREE_FIELDS = {'backbone_weights', 'min_score', 'nms_iou', 'max_detections', 'norm_momentum'}
_CONFIG_KEY = 'config'


class Detector(tf.Module):
  """A network that finds landmarks.

  Attributes:
    config: the resolved DetectorModelConfig.
    architecture: targets, losses and detections; see detector_architectures.py.
    network: the model of tf_keras.
  """

  def __init__(
    self,
    config: Config,
    losses: detector_pb2.DetectorLossConfig | None = None,
    *,
    mixed_precision: bool = False,
    synchronized: bool = False,
  ):
    """Builds the network, its backbone with the weights that the config names.

    Args:
      config: what to build.
      losses: how losses are weighted in training; None: as by default.
      mixed_precision: compute in bfloat16 where that is safe.
      synchronized: batch normalisation over all replicas.

    Raises:
      UserError: tf-models-official is not installed, or the backbone's weights are not there or of another
        network.
    """
    super().__init__(name='detector')
    self.config = values.resolve(config)
    losses = values.resolve(losses or detector_pb2.DetectorLossConfig())
    with (
      _precision(mixed_precision),
      log_suppression.warnings_only(),
      tf.variable_creator_scope(_readable_alone),
    ):
      self.architecture = architectures.build(self.config, losses, synchronized=synchronized)
    self.network = self.architecture.network
    # Weights are identified by the order of the variables, which freezing would change.
    self._variables = tuple(self.network.variables)
    detector_backbones.load_weights(self.network.backbone, self.config)

  def letterbox(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns photos scaled to fit the network's square, at its top left, normalised.

    Args:
      images: [B, H, W, 3], RGB in [0, 255], any type.

    Returns:
      float32 [B, S, S, 3], and float32 [2]: height and width of the photos in there, in pixels.
    """
    side = self.config.image_size
    shape = tf.shape(images)
    scale = side / tf.maximum(shape[1], shape[2])
    height, width = (scaled_length(shape[axis], scale) for axis in (1, 2))
    scaled = tf.image.resize(images, tf.stack([height, width]), antialias=True)
    # Normalised before it is padded, so that the padding is the mean colour.
    square = pad(detector_backbones.normalize(self.config, scaled), side)
    return square, tf.cast(tf.stack([height, width]), tf.float32)

  def detect(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns the landmarks in photos of one size.

    Args:
      images: uint8 [B, H, W, 3], RGB.

    Returns:
      `boxes` float32 [B, n, 4], normalised to the photo and within it; `scores` float32 [B, n], descending;
      `counts` int32 [B]: the number of the n that were found, each of some area. The others are zero.
    """
    squares, shape = self.letterbox(images)
    batch = tf.shape(images)[0]
    found = self.architecture.detect(squares, tf.tile(shape[None], (batch, 1)))
    boxes = tf.clip_by_value(found['boxes'] / tf.tile(shape, (2,)), 0.0, 1.0)
    is_found = tf.sequence_mask(found['counts'], tf.shape(boxes)[1])
    # A box within the padding has lost its area.
    is_found &= tf.reduce_all(boxes[..., 2:] > boxes[..., :2], axis=-1)
    order = tf.argsort(tf.cast(~is_found, tf.int32), axis=1, stable=True)
    is_found = tf.gather(is_found, order, batch_dims=1)
    boxes = tf.where(is_found[..., None], tf.gather(boxes, order, batch_dims=1), 0.0)
    scores = tf.where(is_found, tf.gather(found['scores'], order, batch_dims=1), 0.0)
    return {'boxes': boxes, 'scores': scores, 'counts': tf.reduce_sum(tf.cast(is_found, tf.int32), axis=1)}

  def save(self, path: str | pathlib.Path) -> None:
    """Writes all weights, and the config that they belong to."""
    weights = {f'{number:04d}': variable.numpy() for number, variable in enumerate(self._variables)}
    config = np.array(text_format.MessageToString(self.config))
    with files.atomic_replace(pathlib.Path(path)) as temporary, open(temporary, 'wb') as file:
      arrays = {_CONFIG_KEY: config, **weights}
      np.savez(file, **arrays)  # type: ignore[arg-type]  # The stub takes ** for its option allow_pickle.

  def load(self, path: str | pathlib.Path) -> None:
    """Reads the weights that `save` wrote for a detector of the same config.

    Raises:
      UserError: no such file, or weights of another detector.
    """
    if not pathlib.Path(path).is_file():
      raise UserError(f'{path}: no such file of weights')
    try:
      with open(path, 'rb') as stream, np.load(stream, allow_pickle=False) as file:
        self._require_same(path, str(file[_CONFIG_KEY]))
        weights = [file[name] for name in sorted(set(file.files) - {_CONFIG_KEY})]
      found = [weight.shape for weight in weights]
      expected = [tuple(variable.shape) for variable in self._variables]
      if found != expected:
        raise ValueError(f'it has {len(found)} tensors, the detector {len(expected)}, or their shapes differ')
    except UserError:
      raise
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, text_format.ParseError) as error:
      raise UserError(
        f'{path}: not the weights of this detector ({error}). Give the config that they were trained with'
      ) from None
    for variable, weight in zip(self._variables, weights, strict=True):
      variable.assign(weight)

  def _require_same(self, path, written: str) -> None:
    before = text_format.Parse(written, Config())
    for field, was, now in values.differences(before, self.config):
      if field not in _FREE_FIELDS:
        raise UserError(
          f'{path}: these weights belong to a detector with {field} {was}, this one has {now}. Give the'
          ' config that they were trained with'
        )


def scaled_length(length: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
  """Returns a length in pixels after scaling, int32, at least 1."""
  return tf.maximum(tf.cast(tf.round(tf.cast(length, scale.dtype) * scale), tf.int32), 1)


def pad(images: tf.Tensor, side: int) -> tf.Tensor:
  """Returns [..., H, W, 3] with zeros at the bottom and on the right: [..., side, side, 3]."""
  return tf.image.pad_to_bounding_box(images, 0, 0, side, side)


def _readable_alone(create, **options):
  """Creates a variable that a replica reads without the others.

  Of ON_READ, moving averages for one, TensorFlow takes the mean of all replicas, and waits for ever for other
  machines where only the first validates and saves.
  """
  if options.get('synchronization') == tf.VariableSynchronization.ON_READ:
    options['synchronization'] = tf.VariableSynchronization.ON_WRITE
    options['aggregation'] = tf.VariableAggregation.NONE
  return create(**options)


@contextlib.contextmanager
def _precision(mixed: bool) -> Iterator[None]:
  policies = model_garden.keras().mixed_precision
  before = policies.global_policy()
  policies.set_global_policy('mixed_bfloat16' if mixed else 'float32')
  try:
    yield
  finally:
    policies.set_global_policy(before)
