"""Regions of a network's activations as features that are matched by their channel."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from delf_d2r.config.rules.checks import check_part_ranges
from delf_d2r.errors import Problem
from delf_d2r.extractors.reduction import network_files
from delf_d2r.extractors.registry import DescriptorKind, ExtractorRecord
from delf_d2r.protos import extraction_pb2
from delf_d2r.structures import LocalFeatures

if TYPE_CHECKING:
  from delf_d2r.models.backbones.activations import Activations

Extraction = extraction_pb2.ExtractionConfig


class ActivationRegionExtractor:
  """The strongest regions of each channel; the only entry of a descriptor is the number of its channel.

  Simeoni, Avrithis and Chum, CVPR 2019.

  Attributes:
    dimensions: 1.
  """

  dimensions = 1

  def __init__(
    self,
    activations: 'Activations',
    config: extraction_pb2.ActivationRegionsConfig,
    *,
    max_features: int,
    min_attention: float,
  ):
    # SciPy's image functions take half a second to import, and configs are checked without them.
    from delf_d2r.kernels import activation_regions

    self._find = activation_regions.find
    self._activations = activations
    self._threshold = config.threshold
    self._most = config.regions_per_channel
    self._max_features = max_features
    self._min_attention = min_attention

  def __call__(self, image: np.ndarray) -> LocalFeatures:
    """Returns the strongest regions of uint8 [H, W, 3]; scales are the roots of their areas in pixels."""
    field = self._activations.receptive_field
    # Only on multiples of the stride do all cells lie where the receptive field says.
    cells = np.maximum(np.round(np.array(image.shape[:2]) / field.stride), 1)
    size = np.maximum(cells * field.stride, self._activations.min_side).astype(np.int32)
    found = self._find(self._activations(image, size), threshold=self._threshold, most=self._most)
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


def build(config: Extraction) -> ActivationRegionExtractor:
  """Returns the extractor of a config.

  Raises:
    UserError: no such endpoint, or weights that are missing or of another network.
  """
  from delf_d2r.models.backbones.activations import Activations

  options = config.activation_regions
  activations = Activations(options.backbone, options.backbone_weights, options.endpoint)
  return ActivationRegionExtractor(
    activations, options, max_features=config.max_features, min_attention=config.min_attention
  )


def problems(config: Extraction) -> Iterator[Problem]:
  """Yields the problems of `activation_regions`."""
  regions = config.activation_regions
  if not regions.backbone_weights:
    yield Problem(
      'activation_regions.backbone_weights',
      'activation_regions.backbone_weights is empty; give "imagenet" or a file of weights',
    )
  if not 0 < regions.threshold <= 1:
    yield Problem(
      'activation_regions.threshold',
      f'activation_regions.threshold is {regions.threshold:g}; it must be in (0, 1]',
    )
  yield from check_part_ranges(config, {'activation_regions': {'regions_per_channel': (1,)}})


RECORD = ExtractorRecord(
  extractor=Extraction.ACTIVATION_REGIONS,
  build=build,
  model_files=lambda config: network_files(config.activation_regions.backbone_weights),
  problems=problems,
  own_fields=('activation_regions',),
  decisive_fields=('activation_regions',),
  free_fields=(),
  descriptors=DescriptorKind.CHANNEL,
  # Numbers of channels have no length that could be checked.
  unit_origins=lambda dimensions: np.zeros((0, dimensions), np.float32),
  uses_network=True,
  has_feature_maps=False,
)
