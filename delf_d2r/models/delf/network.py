"""The DELF network: local features with attention on a backbone, and optionally DELG's global descriptor."""

import math
import pathlib
import warnings

import h5py
import keras
import tensorflow as tf
from google.protobuf import text_format
from keras import layers

from delf_d2r.errors import UserError
from delf_d2r.models.backbones import folding, zoo
from delf_d2r.models.delf import heads
from delf_d2r.protos import delf_model_pb2

Config = delf_model_pb2.DelfModelConfig
# Fields that may differ between the training of weights and their use.
_TRAINING_FIELDS = (
  'backbone_weights',
  'heads_train_backbone',
  'num_classes',
  'classifier_endpoint',
  'arcface_margin',
  'arcface_scale',
  'arcface_sub_centers',
)
# Among the names of endpoints; none of them has it.
_BORDER = 'border'
_CONFIG_ATTRIBUTE = 'delf_model_config'


def local_endpoints(config: Config) -> list[str]:
  """Returns the backbone's endpoints that local features need."""
  return [name for name in (config.endpoint, config.second_endpoint, config.attention_endpoint) if name]


def _at_cells_of(features, maps):
  """Returns maps [B, h, w, C] interpolated, or averaged where they are finer, to the cells of `features`."""
  return tf.image.resize(maps, tf.shape(features)[1:3], antialias=True)


class Delf(keras.Model):
  """Computes named endpoints of images.

  `call` returns what the config asks for:
    features: [B, H', W', C], the backbone's endpoint, smoothed if so configured.
    attention: float32 [B, H', W', 1], at least 0.
    descriptors: [B, H', W', D], the local descriptors, not normalised: `reduced`, or the features.
    reduced, expanded: [B, H', W', D] and [B, H', W', C] of the autoencoder.
    descriptor_logits, attention_logits: float32 [B, num_classes] of the two classification losses.
    global_descriptor: float32 [B, G]; global_logits: float32 [B, num_classes].

  Attributes:
    config: DelfModelConfig.
    dimensions: D.
    receptive_field: geometry of the cells of H' x W'.
    input_stride: sides of images must be multiples of it for this geometry to hold.
  """

  def __init__(self, config: Config):
    super().__init__(name='delf')
    self.config = config
    wants_deep = bool(config.num_classes or config.global_dimensions)
    deep = [config.classifier_endpoint] if wants_deep else []
    self.backbone = zoo.build(
      Config.Backbone.Name(config.backbone),
      endpoints=tuple(dict.fromkeys([*local_endpoints(config), *deep])),
      weights=config.backbone_weights,
      output_stride=config.output_stride,
    )
    if self.backbone.min_side > 1:
      raise UserError(
        f'{self.backbone.name} serves global descriptors alone: it cannot see the smallest scales of an image'
        ' pyramid. Choose another backbone for local features'
      )
    # Keras tracks layers that are attributes of a model, not those inside a dataclass.
    self.backbone_model = self.backbone.model
    # A function, so that Keras does not take what freezing makes of the backbone for more weights.
    self._run_backbone = lambda images, training: self.backbone_model(images, training=training)
    self.receptive_field = self.backbone.receptive_fields[config.endpoint]
    self._require_one_stride()
    self.input_stride = max(self.backbone.receptive_fields[name].stride for name in local_endpoints(config))
    channels = self.backbone.channels[config.endpoint]
    if config.second_endpoint:
      channels += self.backbone.channels[config.second_endpoint]
    self.dimensions = config.reduced_dimensions or channels
    if config.reduced_dimensions:
      self.encoder = heads.encoder(config.reduced_dimensions)
      self.decoder = heads.decoder(channels)
    if config.attention == Config.LEARNED:
      self.attention = heads.attention(config.attention_channels)
    if config.num_classes:
      self.descriptor_classifier = layers.Dense(
        config.num_classes, dtype='float32', name='descriptor_classifier'
      )
      self.attention_classifier = layers.Dense(
        config.num_classes, dtype='float32', name='attention_classifier'
      )
    if config.global_dimensions:
      self.gem = heads.GeneralizedMean(config.gem_power, dtype='float32', name='gem')
      self.embedding = layers.Dense(config.global_dimensions, dtype='float32', name='embedding')
      if config.num_classes:
        scale = config.arcface_scale or math.sqrt(config.global_dimensions)
        self.global_classifier = heads.ArcFace(
          config.num_classes,
          margin=config.arcface_margin,
          scale=scale,
          sub_centers=max(config.arcface_sub_centers, 1),
          dtype='float32',
          name='global_classifier',
        )
    # Makes all weights, so that they can be loaded, counted and saved from now on.
    self(tf.zeros((1, 64, 64, 3)))

  def _require_one_stride(self) -> None:
    config, fields = self.config, self.backbone.receptive_fields
    if config.second_endpoint:
      if config.attention == Config.L2_NORM and not config.attention_endpoint:
        raise UserError(
          'second_endpoint makes all features equally long, so their length is no attention. Set'
          ' attention_endpoint, or attention: LEARNED'
        )
      return
    strides = {name: fields[name].stride for name in local_endpoints(config)}
    if len(set(strides.values())) > 1:
      raise UserError(
        f'attention_endpoint must have the stride of endpoint, found {strides}. Attention of one cell must'
        ' belong to one feature'
      )

  def normalize(self, images):
    """Returns RGB in [0, 255], float [B, H, W, 3], as input of this network."""
    return self.backbone.normalize(images)

  def call(self, images, training: bool = False, labels=None) -> dict:
    """Returns the endpoints of normalised float [B, H, W, 3], by name.

    Args:
      images: see `normalize`; H and W multiples of the stride where geometry matters.
      training: batch statistics and all heads; otherwise batch normalisation by moving averages.
      labels: int [B], for ArcFace's margin.
    """
    config = self.config
    maps = self._run_backbone(images, training)
    outputs = self.local(maps, training=training)
    if config.num_classes:
      deep = maps[config.classifier_endpoint]
      outputs['descriptor_logits'] = self.descriptor_classifier(tf.reduce_mean(deep, axis=(1, 2)))
      pooled = heads.attended_mean(outputs['features'], outputs['attention'])
      outputs['attention_logits'] = self.attention_classifier(pooled)
    if config.global_dimensions:
      outputs['global_descriptor'] = self.embedding(self.pooled(maps))
      if config.num_classes:
        outputs['global_logits'] = self.global_classifier(outputs['global_descriptor'], labels)
    return outputs

  def freeze_until(self, endpoint: str) -> None:
    """Keeps the weights of the backbone up to and including an endpoint as they are now.

    From now on these layers run with folded batch normalisation, as they do in inference.

    Raises:
      UserError: there is no such endpoint, or the network ends before it.
    """
    border = zoo.until(self.backbone, endpoint)
    frozen = folding.layers_until(border)
    for layer in frozen:
      layer.trainable = False
    layers_frozen = {id(layer) for layer in frozen}
    outputs = self.backbone.outputs
    below = {name: t for name, t in outputs.items() if id(t._keras_history.operation) in layers_frozen}
    above = {name: tensor for name, tensor in outputs.items() if name not in below}
    lower = folding.fold(self.backbone_model, {**below, _BORDER: border})
    upper = keras.Model(border, above) if above else None

    def run(images, training):
      maps = {name: tf.stop_gradient(value) for name, value in lower(images, training=False).items()}
      start = maps.pop(_BORDER)
      return {**maps, **(upper(start, training=training) if upper else {})}

    self._run_backbone = run

  def pooled(self, maps):
    """Returns the input of the global head, float32 [B, C], from the backbone's [B, H', W', C] by name."""
    pooled = self.gem(maps[self.config.classifier_endpoint])
    return tf.math.l2_normalize(pooled, axis=1) if self.config.global_input_normalized else pooled

  def pooled_images(self, images):
    """Returns `pooled` of normalised float [B, H, W, 3]."""
    return self.pooled(self._run_backbone(images, False))

  def local(self, maps, *, training: bool, attend=None) -> dict:
    """Returns the endpoints of `call` for local features, from the backbone's [B, H', W', C] by name.

    `attend` takes the place of the learned attention, [B, H', W', C] to [B, H', W', 1].
    """
    config = self.config
    features = maps[config.endpoint]
    if config.second_endpoint:
      both = features, _at_cells_of(features, maps[config.second_endpoint])
      features = tf.concat([tf.math.l2_normalize(part, axis=-1) for part in both], axis=-1)
    if not config.heads_train_backbone:
      features = tf.stop_gradient(features)
    if config.smoothing > 1:
      features = tf.nn.avg_pool2d(features, config.smoothing, 1, 'SAME')
    outputs = {'features': features, 'descriptors': features}
    attended = features
    if config.reduced_dimensions:
      outputs['reduced'] = outputs['descriptors'] = self.encoder(features)
      attended = outputs['expanded'] = self.decoder(outputs['reduced'])
    if config.attention == Config.LEARNED:
      outputs['attention'] = attend(attended) if attend else self.attention(attended, training=training)
    else:
      attended = features
      if config.attention_endpoint:
        attended = maps[config.attention_endpoint]
      lengths = tf.norm(tf.cast(attended, tf.float32), axis=-1, keepdims=True)
      outputs['attention'] = _at_cells_of(features, lengths) if config.second_endpoint else lengths
    return outputs

  def load(self, path: str | pathlib.Path) -> None:
    """Reads the weights that `save` wrote for a model of the same config; it may have had other classes.

    Raises:
      UserError: no such file, or weights of a model of another config.
    """
    if not pathlib.Path(path).is_file():
      raise UserError(f'{path}: no such file of weights')
    try:
      with h5py.File(path) as file:
        written = str(file.attrs.get(_CONFIG_ATTRIBUTE, ''))
      self._require_same(path, written)
      # Keras only warns of layers that it leaves unchanged.
      with warnings.catch_warnings(action='error', category=UserWarning):
        self.load_weights(path)
    except (ValueError, OSError, KeyError, UserWarning) as error:
      if isinstance(error, UserError):
        raise
      raise UserError(
        f'{path}: not the weights of this model ({error}). Give the config that they were trained with'
      ) from None

  def save(self, path: str | pathlib.Path) -> None:
    """Writes all weights, and the config that they belong to; the file's name ends in `.weights.h5`."""
    self.save_weights(path)
    with h5py.File(path, 'a') as file:
      file.attrs[_CONFIG_ATTRIBUTE] = text_format.MessageToString(self.config)

  def _require_same(self, path, written: str) -> None:
    # Keras fills the layers that exist here and ignores the rest of the file.
    if not written:
      return
    before = text_format.Parse(written, Config())
    for field in Config.DESCRIPTOR.fields:
      was, now = getattr(before, field.name), getattr(self.config, field.name)
      if field.name not in _TRAINING_FIELDS and was != now:
        raise UserError(
          f'{path}: these weights belong to a model with {field.name} {was}, this one has {now}. Give the'
          ' config that they were trained with'
        )
