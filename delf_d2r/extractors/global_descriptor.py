"""One descriptor for a whole image, pooled over an image pyramid.

    v_s = (mean over cells of x^p)^(1/p) at scale s    (Radenovic, Tolias and Chum, TPAMI 2019, section 3.1)
    v = l2((sum over s of l2(v_s)^q)^(1/q)), reduced by PCA and normalised again if so configured

or with v_s of a SavedModel (DELG; docs/reference.md 3.5) and q = 1. Or, for R-MAC, several that have to be
summed: maxima over squares (kernels/regional_maxima.py) of all scales, each of unit length, reduced, and of
unit length again.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from delf_d2r.config.rules import extraction as rules
from delf_d2r.config.rules.checks import check_part_ranges, is_changed, without_effect
from delf_d2r.errors import Problem
from delf_d2r.extractors import network_runtime
from delf_d2r.extractors.reduction import Reduction, network_files
from delf_d2r.extractors.registry import (
  DEFAULT_MODEL,
  DEFAULT_NETWORK,
  DescriptorKind,
  ExtractorRecord,
  unit_vectors,
)
from delf_d2r.kernels import regional_maxima
from delf_d2r.kernels.pca import normalize
from delf_d2r.protos import extraction_pb2
from delf_d2r.structures import LocalFeatures

if TYPE_CHECKING:
  from delf_d2r.models.backbones.activations import Activations

Extraction = extraction_pb2.ExtractionConfig
Config = extraction_pb2.GlobalConfig

DEFAULT_SCALES = (2**-0.5, 1.0, 2**0.5)


class PooledModel(Protocol):
  """The interface of the network that computes v_s: models/backbones/pooled.py, a SavedModel, or its
  converted form.

  Attributes:
    path: of the model, for messages.
    dimensions: D.
  """

  path: str
  dimensions: int

  def __call__(self, image: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Returns the descriptors of uint8 [H, W, 3] at scales float32 [S]: float32 [S, D], not normalised."""


class GlobalExtractor:
  """A global descriptor as the only feature of an image.

  Attributes:
    dimensions: D of the descriptors.
  """

  def __init__(self, model: PooledModel, config: Config, reduction: Reduction | None = None):
    """Wraps a model; UserError if the PCA of `config`, loaded as `reduction` or not, does not fit."""
    self._model = model
    self._scales = _scales(config)
    self._scale_power = config.scale_power
    self._reduce = reduction or _reduction(config)
    self.dimensions = self._reduce.of_model(model.dimensions, model.path)

  def __call__(self, image: np.ndarray) -> LocalFeatures:
    """Returns the descriptor of uint8 [H, W, 3], at its centre, of scale and attention 1."""
    power = self._scale_power
    rows = normalize(self._model(image, self._scales))
    if power == 1:
      total = rows.sum(axis=0, keepdims=True)
    else:
      total = (rows**power).sum(axis=0, keepdims=True) ** (1 / power)
    center = np.array([image.shape[:2]], np.float32) / np.float32(2)
    return LocalFeatures(
      center, np.ones(1, np.float32), np.ones(1, np.float32), self._reduce(normalize(total))
    )


class RegionalExtractor:
  """R-MAC's squares as the features of an image, whose sum is its descriptor.

  Attributes:
    dimensions: D of the descriptors.
  """

  def __init__(self, activations: 'Activations', config: Config, reduction: Reduction | None = None):
    """Takes what is pooled; UserError if the PCA of `config`, loaded as `reduction` or not, does not fit."""
    self._activations = activations
    self._scales = _scales(config)
    self._levels = config.region_levels
    self._reduce = reduction or _reduction(config)
    self.dimensions = self._reduce.of_model(activations.channels, activations.name)

  def __call__(self, image: np.ndarray) -> LocalFeatures:
    """Returns the squares of uint8 [H, W, 3] at their centres, by scale; scales are sides in pixels."""
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


def _reduction(config: Config) -> Reduction:
  return Reduction(config, field='extraction.global_descriptor')


def _scales(config: Config) -> np.ndarray:
  return np.array(list(config.image_scales) or DEFAULT_SCALES, np.float32)


def build(config: Extraction) -> GlobalExtractor | RegionalExtractor:
  """Returns the extractor of a config.

  Raises:
    UserError: its model, weights, endpoint or PCA are missing, of another kind, or do not fit.
  """
  options = config.global_descriptor
  reduction = _reduction(options)
  runtime = network_runtime.chosen(config)
  if runtime != Extraction.TENSORFLOW:
    # Imports no TensorFlow.
    from delf_d2r.models.converted import pyramid

    network = pyramid.load(str(DEFAULT_NETWORK), str(DEFAULT_MODEL), config.precision)
    converted = pyramid.ConvertedGlobalDescriptors(network, runtime, config.precision)
    return GlobalExtractor(converted, options, reduction)
  from delf_d2r.models.backbones.activations import Activations
  from delf_d2r.models.backbones.pooled import PooledBackbone
  from delf_d2r.models.saved_models import global_descriptors

  if options.model_path or options.shipped_model:
    model = global_descriptors.load(options.model_path or str(DEFAULT_MODEL))
    return GlobalExtractor(model, options, reduction)
  activations = Activations(options.backbone, options.backbone_weights, options.endpoint)
  if options.pooling == Config.R_MAC:
    return RegionalExtractor(activations, options, reduction)
  pooled = PooledBackbone(activations, gem_power=options.gem_power)
  return GlobalExtractor(pooled, options, reduction)


def model_files(config: Extraction) -> Mapping[str, Path]:
  """Returns the SavedModel, or the weights of the backbone in its place, and the PCA."""
  options = config.global_descriptor
  shipped = str(DEFAULT_MODEL) if options.shipped_model else ''
  return network_files(options.model_path or shipped or options.backbone_weights, options.pca)


def problems(config: Extraction) -> Iterator[Problem]:
  """Yields the problems of `global_descriptor`."""
  options = config.global_descriptor
  yield from rules.image_scales('global_descriptor', options)
  for field in ('gem_power', 'scale_power'):
    if not getattr(options, field) > 0:
      yield Problem(
        f'global_descriptor.{field}',
        f'global_descriptor.{field} is {getattr(options, field):g}; it must be positive',
      )
  yield from check_part_ranges(config, {'global_descriptor': {'region_levels': (1, 16)}})
  is_regional = options.pooling == Config.R_MAC
  model = 'model_path' if options.model_path else 'shipped_model' if options.shipped_model else ''
  if options.model_path and options.shipped_model:
    yield Problem(
      'global_descriptor.shipped_model',
      f'global_descriptor.shipped_model is true, but model_path names another model, {options.model_path}.'
      ' Remove one of them',
    )
  if is_regional and model:
    yield Problem(
      'global_descriptor.pooling',
      f'global_descriptor.pooling is R_MAC, but the model of {model} pools by itself. Remove one of them',
    )
  for field in ('gem_power', 'scale_power') if is_regional else ('region_levels',):
    if is_changed(options, field):
      wanted = 'GEM' if is_regional else 'R_MAC'
      found = 'R_MAC' if is_regional else 'GEM'
      yield without_effect(f'global_descriptor.{field}', f'pooling: {wanted}', found)
  if model and is_changed(options, 'scale_power'):
    yield Problem(
      'global_descriptor.scale_power',
      f'global_descriptor.scale_power is {options.scale_power:g}, but the descriptors of a model may be'
      ' negative, which have no power. Remove it',
    )
  if not model and not options.backbone_weights:
    yield Problem(
      'global_descriptor.backbone_weights',
      'global_descriptor.backbone_weights is empty; give "imagenet", a file of weights, model_path or'
      ' shipped_model: true',
    )
  if options.HasField('pca'):
    yield from rules.pca('global_descriptor.pca', options.pca)
  if config.min_attention:
    yield without_effect('min_attention', 'extractor: ROOT_SIFT or DELF', 'GLOBAL')


RECORD = ExtractorRecord(
  extractor=Extraction.GLOBAL,
  build=build,
  model_files=model_files,
  problems=problems,
  own_fields=('global_descriptor',),
  decisive_fields=('global_descriptor',),
  free_fields=(),
  descriptors=DescriptorKind.GLOBAL,
  unit_origins=unit_vectors,
  uses_network=True,
  has_feature_maps=False,
)
