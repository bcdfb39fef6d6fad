"""One descriptor for a whole image, pooled over an image pyramid.

    v_s = (mean over cells of x^p)^(1/p) at scale s    (Radenovic, Tolias and Chum, TPAMI 2019, section 3.1)
    v = l2(sum over s of l2(v_s)), reduced by PCA and normalised again if so configured

or with v_s of a SavedModel (DELG; reference.md 3.5).
"""

from typing import Protocol

import numpy as np
import tensorflow as tf

from delf_d2r.kernels.pca import normalize
from delf_d2r.models import backbones, folding, global_model, heads
from delf_d2r.models.extractor import affine
from delf_d2r.protos import delf_model_pb2, extraction_pb2
from delf_d2r.structures import LocalFeatures

DEFAULT_SCALES = (2**-0.5, 1.0, 2**0.5)


class Describer(Protocol):
  """What makes v_s.

  Attributes:
    path: of the model, for messages.
    dimensions: D.
  """

  path: str
  dimensions: int

  def __call__(self, image: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """The descriptors of uint8 [H, W, 3] at scales float32 [S]: float32 [S, D], not normalised."""


class PooledBackbone:
  """Generalised mean of a backbone's endpoint; see Describer."""

  def __init__(self, config: extraction_pb2.GlobalConfig):
    """Raises UserError: no such endpoint, or weights that are missing or of another network."""
    name, endpoint = delf_model_pb2.DelfModelConfig.Backbone.Name(config.backbone), config.endpoint
    backbone = backbones.build(name, endpoints=(endpoint,), weights=config.backbone_weights)
    network = folding.fold(backbone.model, backbone.outputs)
    pool = heads.GeneralizedMean(config.gem_power)
    stride = backbone.receptive_fields[endpoint].stride
    self.path = name
    self.dimensions = backbone.channels[endpoint]

    # One trace for images of all sizes; scales one after the other, which bounds memory by the largest.
    @tf.function(
      input_signature=[tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([None], tf.float32)]
    )
    def run(image, scales):
      pixels = backbone.normalize(tf.cast(image, tf.float32))[None]
      size = tf.cast(tf.shape(image)[:2], tf.float32)

      def at(scale):
        # Of less than a cell there is nothing to pool.
        wanted = tf.maximum(tf.cast(tf.round(size * scale), tf.int32), stride)
        resized = tf.image.resize(pixels, wanted, antialias=True)
        return pool(network(resized, training=False)[endpoint])[0]

      descriptor = tf.TensorSpec([self.dimensions], tf.float32)
      return tf.map_fn(at, scales, fn_output_signature=descriptor, parallel_iterations=1)

    self._run = run

  def __call__(self, image: np.ndarray, scales: np.ndarray) -> np.ndarray:
    return self._run(image, scales).numpy()


class GlobalExtractor:
  """A global descriptor as the only feature of an image: what extractors/regions.py asks for.

  Attributes:
    dimensions: D of the descriptors.
  """

  def __init__(self, describe: Describer, config: extraction_pb2.GlobalConfig):
    """Raises UserError if the PCA of `config` is missing or of other dimensions."""
    self._describe = describe
    self._scales = np.array(list(config.image_scales) or DEFAULT_SCALES, np.float32)
    self._affine = None
    self.dimensions = describe.dimensions
    if config.HasField('pca'):
      self._affine = affine(
        config.pca, describe.dimensions, describe.path, field='extraction.global_descriptor.pca'
      )
      self.dimensions = self._affine[0].shape[1]

  def __call__(self, image: np.ndarray) -> LocalFeatures:
    """The descriptor of uint8 [H, W, 3], at its centre, of scale and attention 1."""
    descriptor = normalize(normalize(self._describe(image, self._scales)).sum(axis=0, keepdims=True))
    if self._affine:
      matrix, offset = self._affine
      descriptor = normalize(descriptor @ matrix + offset)
    center = np.array([image.shape[:2]], np.float32) / 2
    return LocalFeatures(center, np.ones(1, np.float32), np.ones(1, np.float32), descriptor)


def build(config: extraction_pb2.GlobalConfig) -> GlobalExtractor:
  """The extractor that a config asks for.

  Raises:
    UserError: its model, weights or PCA are missing, of another kind, or do not fit.
  """
  describe = global_model.load(config.model_path) if config.model_path else PooledBackbone(config)
  return GlobalExtractor(describe, config)
