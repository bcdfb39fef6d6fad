"""Regions of a network's activations as features that are matched by their channel."""

import numpy as np

from delf_d2r.kernels import activation_regions
from delf_d2r.models.backbones.activations import Activations
from delf_d2r.protos import extraction_pb2
from delf_d2r.structures import LocalFeatures


class ActivationRegionExtractor:
  """What extractors/regions.py asks for; the only entry of a descriptor is the number of its channel.

  Attributes:
    dimensions: 1.
  """

  dimensions = 1

  def __init__(
    self, config: extraction_pb2.ActivationRegionsConfig, *, max_features: int, min_attention: float
  ):
    """Raises UserError: no such endpoint, or weights that are missing or of another network."""
    self._activations = Activations(config.backbone, config.backbone_weights, config.endpoint)
    self._threshold = config.threshold
    self._most = config.regions_per_channel
    self._max_features = max_features
    self._min_attention = min_attention

  def __call__(self, image: np.ndarray) -> LocalFeatures:
    """The strongest regions of uint8 [H, W, 3]; scales are the square roots of their areas in pixels."""
    field = self._activations.receptive_field
    # Only on multiples of the stride do all cells lie where the receptive field says.
    cells = np.maximum(np.round(np.array(image.shape[:2]) / field.stride), 1)
    size = np.maximum(cells * field.stride, self._activations.least_size).astype(np.int32)
    found = activation_regions.find(
      self._activations(image, size), threshold=self._threshold, most=self._most
    )
    to_image = np.array(image.shape[:2]) / size
    locations = ((found.centers - 0.5) * field.stride + field.center) * to_image
    features = LocalFeatures(
      locations.astype(np.float32),
      (np.sqrt(found.areas) * field.stride * np.sqrt(to_image.prod())).astype(np.float32),
      found.strengths,
      found.channels[:, None].astype(np.float32),
    )
    features = features.take(features.attention >= self._min_attention)
    return features.take(np.argsort(-features.attention, kind='stable')[: self._max_features])


def build(config: extraction_pb2.ExtractionConfig) -> ActivationRegionExtractor:
  """The extractor that a config asks for; errors as of the class."""
  return ActivationRegionExtractor(
    config.activation_regions, max_features=config.max_features, min_attention=config.min_attention
  )
