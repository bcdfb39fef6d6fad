"""DELF as an extractor of local features: what extractors/regions.py asks for, on any SavedModel."""

import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from delf_d2r.data.artefacts import pca_files
from delf_d2r.errors import UserError
from delf_d2r.kernels.pca import normalize
from delf_d2r.models.delf import export, pyramid
from delf_d2r.models.delf import network as networks
from delf_d2r.models.saved_models import local_features
from delf_d2r.models.saved_models.local_features import LocalFeatureModel, RawFeatures
from delf_d2r.protos import delf_model_pb2, extraction_pb2
from delf_d2r.structures import LocalFeatures


class DelfExtractor:
  """Local features of most attention over all scales, of unit length, reduced by PCA if so configured.

  Attributes:
    dimensions: D of the descriptors.
    stride: pixels between neighbouring features at scale 1.
    note: what to tell the user if images lose all their features to the attention threshold; '' so far.
  """

  def __init__(
    self,
    model: LocalFeatureModel,
    config: extraction_pb2.DelfConfig,
    *,
    max_features: int,
    min_attention: float,
  ):
    self._model = model
    self._scales = np.array(list(config.image_scales) or pyramid.DEFAULT_SCALES, np.float32)
    self._nms_iou = config.nms_iou
    self._max_features = max_features
    self._min_attention = min_attention
    self._affine = None
    if config.HasField('pca'):
      self._affine = affine(config.pca, model.dimensions, model.path, field='extraction.delf.pca')
    self.dimensions = self._affine[0].shape[1] if self._affine else model.dimensions
    self.stride = model.stride
    self.note = ''

  def __call__(self, image: np.ndarray) -> LocalFeatures:
    """Features of uint8 [H, W, 3], locations in its pixels, most attention first.

    The scale of a feature is 1 / the pyramid's scale, that is the relative size of its patch.
    """
    return self._finish(self._model.extract(image, self._scales, max_features=self._candidates))

  def batch(self, images: Sequence[np.ndarray]) -> list[LocalFeatures]:
    """The features of images of one shape, in one pass through the network where the model can do it."""
    if not self._model.has_batches or len(images) == 1:
      return [self(image) for image in images]
    found = self._model.extract_batch(np.stack(images), self._scales, max_features=self._candidates)
    return [self._finish(raw) for raw in found]

  def all_features(self, image: np.ndarray) -> LocalFeatures:
    """Every cell of every scale, most attention first: no limit, no threshold and no suppression."""
    return self._described(self._model.extract(image, self._scales, max_features=pyramid.ALL_FEATURES))

  def best(self, features: LocalFeatures) -> LocalFeatures:
    """The features of a region out of `all_features`, which stand in order of attention."""
    return self._above_threshold(features.take(slice(self._max_features)))

  @property
  def _candidates(self) -> int:
    # Suppression chooses among all; without it the best are known beforehand.
    return self._max_features if self._nms_iou >= 1 else pyramid.ALL_FEATURES

  def _finish(self, raw: RawFeatures) -> LocalFeatures:
    if self._nms_iou < 1 and len(raw.scores):
      chosen = tf.image.non_max_suppression(
        raw.boxes, raw.scores, min(self._max_features, len(raw.scores)), iou_threshold=self._nms_iou
      ).numpy()
      raw = RawFeatures(raw.boxes[chosen], raw.scales[chosen], raw.scores[chosen], raw.features[chosen])
    return self._above_threshold(self._described(raw))

  def _described(self, raw: RawFeatures) -> LocalFeatures:
    """Raw features to descriptors and locations (docs/reference.md 3.3)."""
    descriptors = normalize(raw.features)
    if self._affine:
      matrix, offset = self._affine
      descriptors = normalize(descriptors @ matrix + offset)
    locations = (raw.boxes[:, :2] + raw.boxes[:, 2:]) / 2
    return LocalFeatures(locations, raw.scales, raw.scores, descriptors.reshape(-1, self.dimensions))

  def _above_threshold(self, features: LocalFeatures) -> LocalFeatures:
    # The best are taken first and the threshold is applied here: the result is the same as in the other
    # order, and what the threshold removed can be told.
    kept = features.take(features.attention >= self._min_attention)
    if len(features) and not len(kept):
      self.note = (
        f'extraction.min_attention {self._min_attention:g} removes every feature of some images; the'
        f' {len(features)} best of one have attention from {features.attention.min():.4g} to'
        f' {features.attention.max():.4g}. Attention has a scale of its own in every model: lower'
        ' extraction.min_attention, or set 0 to keep the best max_features'
      )
    return kept


def build(config: extraction_pb2.ExtractionConfig, *, default_model: pathlib.Path) -> DelfExtractor:
  """The extractor that a config asks for; the model is the default one where it names none.

  Raises:
    UserError: its model or PCA is missing, of another kind, or the two do not fit.
  """
  delf = config.delf
  if delf.mixed_precision:
    tf.config.optimizer.set_experimental_options({'auto_mixed_precision': True})
  options = {'max_features': config.max_features, 'min_attention': config.min_attention}
  if delf.HasField('network'):
    module = export.LocalFeatureModule(networks.Delf(delf.network))
    name = delf_model_pb2.DelfModelConfig.Backbone.Name(delf.network.backbone)
    model = LocalFeatureModel(name, 'in memory', module.serving_default, module.extract_batch)
    return DelfExtractor(model, delf, **options)
  if not delf.model_path and not default_model.is_dir():
    raise UserError(
      'extraction.delf.model_path is empty, which means the model that comes with the package, but this'
      ' package has none. Set extraction.delf.model_path to the directory of a SavedModel'
    )
  model = local_features.load(delf.model_path or str(default_model))
  return DelfExtractor(model, delf, **options)


def affine(
  config: extraction_pb2.DelfPcaConfig, dimensions: int, model_path: str, *, field: str
) -> tuple[np.ndarray, np.ndarray]:
  """float32 (A [D, d], b [d]): the PCA of a config as x A + b.

  Args:
    config: where the PCA is, and what of it is kept.
    dimensions: D of the model's descriptors.
    model_path, field: the model and the place of the config, for messages.

  Raises:
    UserError: the PCA is missing or of other dimensions.
  """
  pca = pca_files.load_configured(config)
  if pca.input_dimensions != dimensions:
    raise UserError(
      f'{field} reduces descriptors of {pca.input_dimensions} dimensions, but the model'
      f' {model_path} makes {dimensions}. Give the PCA that belongs to this model'
    )
  return pca.as_affine(whitening=config.whitening)
