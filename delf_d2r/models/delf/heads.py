"""The heads of the network: attention, reduction, and those that training and DELG need.

DELF: Noh et al., ICCV 2017. DELG: Cao, Araujo and Sim, ECCV 2020.
"""

import math

import keras
import numpy as np
import tensorflow as tf
from keras import layers

# Weight decay of the attention head in tensorflow/models; trainers add `model.losses` to the loss.
_DECAY = 1e-4


def attention(channels: int) -> keras.Sequential:
  """Returns the layers from [B, H, W, C] to the positive attention [B, H, W, 1] (ICCV 2017, section 4.2)."""
  decay = keras.regularizers.L2(_DECAY)
  return keras.Sequential(
    [
      layers.Conv2D(channels, 1, kernel_regularizer=decay, name='hidden_conv'),
      layers.BatchNormalization(name='hidden_bn'),
      layers.ReLU(name='hidden_relu'),
      layers.Conv2D(1, 1, kernel_regularizer=decay, name='score_conv'),
      # Attention decides an order among a thousand features: half precision would make ties.
      layers.Activation('softplus', dtype='float32', name='softplus'),
    ],
    name='attention',
  )


def encoder(dimensions: int) -> layers.Layer:
  """Returns the autoencoder's reduction, [B, H, W, C] to [B, H, W, dimensions] (ECCV 2020, section 3.3)."""
  return layers.Conv2D(dimensions, 1, name='encoder')


def decoder(channels: int) -> layers.Layer:
  """Returns the layer from [B, H, W, D] back to [B, H, W, channels], non-negative like the features."""
  return layers.Conv2D(channels, 1, activation='relu', name='decoder')


def attended_mean(features, weights):
  """Returns the mean over cells of unit features [B, H, W, C] times attention [B, H, W, 1]: [B, C]."""
  return tf.reduce_mean(
    tf.math.l2_normalize(features, axis=-1) * tf.cast(weights, features.dtype), axis=(1, 2)
  )


class GeneralizedMean(layers.Layer):
  """Pools [B, H, W, C] to [B, C]: (mean over cells of x^p)^(1/p) of x clipped to be positive (GeM).

  p = 1 is the average, p = inf the maximum.
  """

  def __init__(self, power: float, **options):
    super().__init__(**options)
    self.power = power

  def call(self, features):
    # x^3 overflows half precision from 40 on.
    positive = tf.maximum(tf.cast(features, tf.float32), 1e-6)
    if math.isinf(self.power):
      return tf.reduce_max(positive, axis=(1, 2))
    return tf.reduce_mean(positive**self.power, axis=(1, 2)) ** (1 / self.power)


class ArcFace(layers.Layer):
  """Computes cosines of embeddings with class centres, times a scale (Deng et al., CVPR 2019).

  In training the angle to the right class counts as larger by a margin, unless it then exceeded pi. A class
  may have several centres, of which the nearest counts (Deng et al., ECCV 2020).
  """

  def __init__(self, num_classes: int, *, margin: float, scale: float, sub_centers: int = 1, **options):
    super().__init__(**options)
    self.num_classes, self.margin, self.scale, self.sub_centers = num_classes, margin, scale, sub_centers

  def build(self, shape):
    # Those of one class lie side by side.
    self.centers = self.add_weight(
      shape=(shape[-1], self.num_classes * self.sub_centers), initializer='glorot_uniform', name='centers'
    )

  def call(self, embeddings, labels=None):
    """Returns logits [B, num_classes] of float [B, G] and, in training, int [B] labels."""
    cosines = tf.math.l2_normalize(embeddings, axis=1) @ tf.math.l2_normalize(self.centers, axis=0)
    if self.sub_centers > 1:
      cosines = tf.reduce_max(tf.reshape(cosines, (-1, self.num_classes, self.sub_centers)), axis=2)
    if labels is not None:
      # Just inside [-1, 1]: the derivative of the arc cosine is infinite at its ends.
      angles = tf.math.acos(tf.clip_by_value(cosines, -1 + 1e-6, 1 - 1e-6))
      with_margin = tf.where(angles <= np.pi - self.margin, tf.cos(angles + self.margin), cosines)
      cosines = tf.where(tf.one_hot(labels, self.num_classes, True, False), with_margin, cosines)
    return cosines * self.scale
