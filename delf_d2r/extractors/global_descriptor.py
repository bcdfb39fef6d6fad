"""One descriptor for a whole image, pooled over an image pyramid.

    v_s = (mean over cells of x^p)^(1/p) at scale s    (Radenovic, Tolias and Chum, TPAMI 2019, section 3.1)
    v = l2((sum over s of l2(v_s)^q)^(1/q)), reduced by PCA and normalised again if so configured

or with v_s of a SavedModel (DELG; docs/reference.md 3.5) and q = 1. Or, for R-MAC, several that have to be
summed: maxima over squares (kernels/regional_maxima.py) of all scales, each of unit length, reduced, and of
unit length again.
"""

from typing import Protocol

import numpy as np
import tensorflow as tf

from delf_d2r.extractors.delf import affine
from delf_d2r.kernels import regional_maxima
from delf_d2r.kernels.pca import normalize
from delf_d2r.models.backbones.activations import Activations
from delf_d2r.models.delf import heads
from delf_d2r.models.saved_models import global_descriptors
from delf_d2r.protos import extraction_pb2
from delf_d2r.structures import LocalFeatures

Config = extraction_pb2.GlobalConfig
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

  def __init__(self, config: Config):
    """Raises UserError: no such endpoint, or weights that are missing or of another network."""
    activations = _activations(config)
    pool = heads.GeneralizedMean(config.gem_power)
    self.path = activations.name
    self.dimensions = activations.channels

    # One trace for images of all sizes; scales one after the other, which bounds memory by the largest.
    @tf.function(
      input_signature=[tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([None], tf.float32)]
    )
    def run(image, scales):
      def at(scale):
        return pool(activations.at(image, activations.scaled_size(tf.shape(image)[:2], scale))[None])[0]

      descriptor = tf.TensorSpec([self.dimensions], tf.float32)
      return tf.map_fn(at, scales, fn_output_signature=descriptor, parallel_iterations=1)

    self._run = run

  def __call__(self, image: np.ndarray, scales: np.ndarray) -> np.ndarray:
    return self._run(image, scales).numpy()


class _Reduction:
  """Unit vectors to reduced unit vectors, or to themselves without a PCA.

  Attributes:
    dimensions: D of what comes out.
  """

  def __init__(self, config: Config, dimensions: int, path: str):
    """Takes D and name of the model; UserError if the PCA of `config` is missing or of other dimensions."""
    self.dimensions = dimensions
    self._affine = None
    if config.HasField('pca'):
      self._affine = affine(config.pca, dimensions, path, field='extraction.global_descriptor.pca')
      self.dimensions = self._affine[0].shape[1]

  def __call__(self, vectors: np.ndarray) -> np.ndarray:
    if self._affine is None:
      return vectors
    matrix, offset = self._affine
    return normalize(vectors @ matrix + offset)


class GlobalExtractor:
  """A global descriptor as the only feature of an image: what extractors/regions.py asks for.

  Attributes:
    dimensions: D of the descriptors.
  """

  def __init__(self, describe: Describer, config: Config):
    """Raises UserError if the PCA of `config` is missing or of other dimensions."""
    self._describe = describe
    self._scales = _scales(config)
    self._scale_power = config.scale_power
    self._reduce = _Reduction(config, describe.dimensions, describe.path)
    self.dimensions = self._reduce.dimensions

  def __call__(self, image: np.ndarray) -> LocalFeatures:
    """The descriptor of uint8 [H, W, 3], at its centre, of scale and attention 1."""
    power = self._scale_power
    rows = normalize(self._describe(image, self._scales))
    if power == 1:
      total = rows.sum(axis=0, keepdims=True)
    else:
      total = (rows**power).sum(axis=0, keepdims=True) ** (1 / power)
    center = np.array([image.shape[:2]], np.float32) / 2
    return LocalFeatures(
      center, np.ones(1, np.float32), np.ones(1, np.float32), self._reduce(normalize(total))
    )


class RegionalExtractor:
  """R-MAC's squares as the features of an image, whose sum is its descriptor.

  Attributes:
    dimensions: D of the descriptors.
  """

  def __init__(self, config: Config):
    """Raises UserError: no such endpoint, or weights or a PCA that are missing or do not fit."""
    self._activations = _activations(config)
    self._scales = _scales(config)
    self._levels = config.region_levels
    self._reduce = _Reduction(config, self._activations.channels, self._activations.name)
    self.dimensions = self._reduce.dimensions

  def __call__(self, image: np.ndarray) -> LocalFeatures:
    """The squares of uint8 [H, W, 3], scale by scale, at their centres; scales are their sides in pixels."""
    return LocalFeatures.concatenate([self._at(image, scale) for scale in self._scales])

  def _at(self, image: np.ndarray, scale: float) -> LocalFeatures:
    activations = self._activations(image, self._activations.scaled_size(image.shape[:2], scale))
    cells = activations.shape[:2]
    grid = regional_maxima.squares(*cells, levels=self._levels)
    descriptors = self._reduce(normalize(regional_maxima.maxima(activations, grid)))
    cell = np.array(image.shape[:2], np.float32) / cells
    return LocalFeatures(
      ((grid[:, :2] + grid[:, 2:]) / 2 * cell).astype(np.float32),
      ((grid[:, 2] - grid[:, 0]) * np.sqrt(cell.prod())).astype(np.float32),
      np.ones(len(grid), np.float32),
      descriptors,
    )


def build(config: Config) -> GlobalExtractor | RegionalExtractor:
  """The extractor that a config asks for.

  Raises:
    UserError: its model, weights or PCA are missing, of another kind, or do not fit.
  """
  if config.model_path:
    return GlobalExtractor(global_descriptors.load(config.model_path), config)
  if config.pooling == Config.R_MAC:
    return RegionalExtractor(config)
  return GlobalExtractor(PooledBackbone(config), config)


def _activations(config: Config) -> Activations:
  return Activations(config.backbone, config.backbone_weights, config.endpoint)


def _scales(config: Config) -> np.ndarray:
  return np.array(list(config.image_scales) or DEFAULT_SCALES, np.float32)
