"""DELF as an extractor: local features of most attention out of an image pyramid, from any SavedModel."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from delf_d2r.config.rules import extraction as rules
from delf_d2r.config.rules.checks import check_part_ranges
from delf_d2r.errors import Problem, UserError
from delf_d2r.extractors import network_runtime
from delf_d2r.extractors.reduction import Reduction, network_files
from delf_d2r.extractors.registry import (
  DEFAULT_MODEL,
  DEFAULT_NETWORK,
  DescriptorKind,
  ExtractorRecord,
  unit_vectors,
)
from delf_d2r.kernels.pca import normalize
from delf_d2r.protos import delf_model_pb2, extraction_pb2
from delf_d2r.structures import LocalFeatures

if TYPE_CHECKING:
  from delf_d2r.models.converted.pyramid import ConvertedLocalFeatures
  from delf_d2r.models.saved_models.local_features import LocalFeatureModel
  from delf_d2r.models.saved_models.raw_features import RawFeatures

Extraction = extraction_pb2.ExtractionConfig
DelfModel = delf_model_pb2.DelfModelConfig

DEFAULT_SCALES = tuple(2 ** (k / 2) for k in range(-4, 3))
# The largest int32, which is what models take.
_ALL_FEATURES = 2**31 - 1


class DelfExtractor:
  """Local features of most attention over all scales, of unit length, reduced by PCA if so configured.

  It is a registry.PyramidExtractor.

  Attributes:
    dimensions: D of the descriptors.
    stride: pixels between neighbouring features at scale 1.
    min_cells_across_box: see PyramidExtractor.
    note: what to tell the user if images lose all their features to the attention threshold; '' if none did.
  """

  def __init__(
    self,
    model: 'LocalFeatureModel | ConvertedLocalFeatures',
    config: extraction_pb2.DelfConfig,
    *,
    max_features: int,
    min_attention: float,
    reduction: Reduction | None = None,
  ):
    """Wraps a model.

    Args:
      model: the model.
      config: its scales, suppression and PCA.
      max_features, min_attention: the features that are kept.
      reduction: the PCA of `config`, if it is loaded already.

    Raises:
      UserError: the PCA of `config` is missing or of other dimensions.
    """
    self._model = model
    self._scales = np.array(list(config.image_scales) or DEFAULT_SCALES, np.float32)
    self._nms_iou = config.nms_iou
    self._max_features = max_features
    self._min_attention = min_attention
    self._reduce = reduction or Reduction(config, field='extraction.delf')
    self.dimensions = self._reduce.of_model(model.dimensions, model.path)
    self.stride = model.stride
    self.min_cells_across_box = config.min_cells_across_box
    self.note = ''

  def __call__(self, image: np.ndarray) -> LocalFeatures:
    """Returns the features of uint8 [H, W, 3], locations in its pixels, most attention first.

    The scale of a feature is 1 / the pyramid's scale, that is the relative size of its patch.
    """
    return self._finish(self._model.extract(image, self._scales, max_features=self._candidates))

  def batch(self, images: Sequence[np.ndarray]) -> list[LocalFeatures]:
    """Returns the features of images of one shape, from one pass where the model takes batches."""
    if not self._model.has_batches or len(images) == 1:
      return [self(image) for image in images]
    found = self._model.extract_batch(np.stack(images), self._scales, max_features=self._candidates)
    return [self._finish(raw) for raw in found]

  def all_features(self, image: np.ndarray) -> LocalFeatures:
    """Returns every cell of every scale, most attention first: no limit, no threshold and no suppression."""
    return self._described(self._model.extract(image, self._scales, max_features=_ALL_FEATURES))

  def best(self, features: LocalFeatures) -> LocalFeatures:
    """Returns the features that a region keeps of its share of `all_features`, most attention first."""
    return self._above_threshold(features.take(slice(self._max_features)))

  @property
  def _candidates(self) -> int:
    # Suppression chooses among all; without it the best are known beforehand.
    return self._max_features if self._nms_iou >= 1 else _ALL_FEATURES

  def _finish(self, raw: 'RawFeatures') -> LocalFeatures:
    if self._nms_iou < 1:
      raw = raw.without_overlaps(max_iou=self._nms_iou, max_features=self._max_features)
    return self._above_threshold(self._described(raw))

  def _described(self, raw: 'RawFeatures') -> LocalFeatures:
    """Returns descriptors and locations of raw features (docs/reference.md 3.3)."""
    descriptors = self._reduce(normalize(raw.features))
    locations = (raw.boxes[:, :2] + raw.boxes[:, 2:]) / 2
    return LocalFeatures(locations, raw.scales, raw.scores, descriptors.reshape(-1, self.dimensions))

  def _above_threshold(self, features: LocalFeatures) -> LocalFeatures:
    # The best are taken first and the threshold is applied here: the result is the same as in the other
    # order, and the note can say what the threshold removed.
    kept = features.take(features.attention >= self._min_attention)
    if len(features) and not len(kept):
      self.note = (
        f'extraction.min_attention {self._min_attention:g} removes every feature of some images; the'
        f' {len(features)} best of one have attention from {features.attention.min():.4g} to'
        f' {features.attention.max():.4g}. Attention has a scale of its own in every model: lower'
        ' extraction.min_attention, or set 0 to keep the best max_features'
      )
    return kept


def build(config: Extraction) -> DelfExtractor:
  """Returns the extractor of a config, with the packaged model where it names none.

  Raises:
    UserError: its model or PCA is missing, of another kind, or the two do not fit.
  """
  delf = config.delf
  if not delf.HasField('network') and not delf.model_path and not DEFAULT_MODEL.is_dir():
    raise UserError(
      'extraction.delf.model_path is empty, which means the model that comes with the package, but this'
      ' package has none. Set extraction.delf.model_path to the directory of a SavedModel'
    )
  reduction = Reduction(delf, field='extraction.delf')
  return DelfExtractor(
    _model(config),
    delf,
    max_features=config.max_features,
    min_attention=config.min_attention,
    reduction=reduction,
  )


def _model(config: Extraction) -> 'LocalFeatureModel | ConvertedLocalFeatures':
  delf, runtime = config.delf, network_runtime.chosen(config)
  if runtime != Extraction.TENSORFLOW:
    # Imports no TensorFlow.
    from delf_d2r.models.converted import pyramid

    network = pyramid.load(str(DEFAULT_NETWORK), str(DEFAULT_MODEL), config.precision)
    return pyramid.ConvertedLocalFeatures(network, runtime, config.precision)
  from delf_d2r.models.saved_models import local_features

  if delf.mixed_precision:
    local_features.enable_mixed_precision()
  if delf.HasField('network'):
    return local_features.of_network(delf.network)
  return local_features.load(delf.model_path or str(DEFAULT_MODEL))


def model_files(config: Extraction) -> Mapping[str, Path]:
  """Returns the SavedModel, or the weights of the network in its place, and the PCA."""
  delf = config.delf
  if delf.HasField('network'):
    return network_files(delf.network.backbone_weights, delf.pca)
  return network_files(delf.model_path or str(DEFAULT_MODEL), delf.pca)


def problems(config: Extraction) -> Iterator[Problem]:
  """Yields the problems of `delf`."""
  delf = config.delf
  yield from rules.image_scales('delf', delf)
  if not 0 < delf.nms_iou <= 1:
    yield Problem('delf.nms_iou', f'delf.nms_iou is {delf.nms_iou:g}; it must be in (0, 1]')
  if delf.nms_iou < 1 and config.region_features == Extraction.SHARED_FEATURE_MAP:
    yield Problem(
      'delf.nms_iou',
      f'delf.nms_iou {delf.nms_iou:g} has no effect with region_features: SHARED_FEATURE_MAP. Set it to 1, or'
      ' region_features: CROP',
    )
  yield from check_part_ranges(config, {'delf': {'min_cells_across_box': (0,)}})
  if delf.HasField('pca'):
    yield from rules.pca('delf.pca', delf.pca)
  if delf.HasField('network'):
    yield from _network_problems(delf)


def _network_problems(delf: extraction_pb2.DelfConfig) -> Iterator[Problem]:
  """Yields the problems of a network that is used without any training of its own."""
  network = delf.network
  if delf.model_path:
    yield Problem('delf.model_path', 'delf has both model_path and network; give one of them')
  if not network.backbone_weights:
    yield Problem(
      'delf.network.backbone_weights',
      'delf.network.backbone_weights is empty; give "imagenet" or a file of weights',
    )
  if network.smoothing < 1 or network.smoothing % 2 == 0:
    yield Problem(
      'delf.network.smoothing',
      f'delf.network.smoothing is {network.smoothing}; it must be odd and at least 1',
    )
  attention = DelfModel.Attention.Name(network.attention)
  trained = [
    f'{field} {value}'
    for field, value, free in (
      ('attention', attention, 'L2_NORM'),
      ('reduced_dimensions', network.reduced_dimensions, 0),
      ('global_dimensions', network.global_dimensions, 0),
      ('num_classes', network.num_classes, 0),
    )
    if value != free
  ]
  if trained:
    yield Problem(
      'delf.network',
      f'delf.network has parts that need training ({", ".join(trained)}). Set attention: L2_NORM and'
      ' reduced_dimensions: 0, or make a model of it with export_delf and give model_path',
    )


RECORD = ExtractorRecord(
  extractor=Extraction.DELF,
  build=build,
  model_files=model_files,
  problems=problems,
  own_fields=('delf',),
  decisive_fields=('delf.model_path', 'delf.network', 'delf.pca'),
  # They choose among features; precision moves them by less than other hardware does.
  free_fields=('delf.image_scales', 'delf.nms_iou', 'delf.mixed_precision', 'delf.min_cells_across_box'),
  descriptors=DescriptorKind.LOCAL,
  unit_origins=unit_vectors,
  uses_network=True,
  has_feature_maps=True,
)
