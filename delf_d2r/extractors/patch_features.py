"""Patches around keypoints, described by a network."""

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import cv2
import numpy as np

from delf_d2r.config.rules.checks import check_part_ranges
from delf_d2r.errors import Problem
from delf_d2r.extractors.keypoints import KeypointDetector, as_features, keypoint_problems
from delf_d2r.extractors.reduction import network_files
from delf_d2r.extractors.registry import DescriptorKind, ExtractorRecord, unit_vectors
from delf_d2r.kernels.pca import normalize
from delf_d2r.protos import extraction_pb2
from delf_d2r.structures import LocalFeatures

Extraction = extraction_pb2.ExtractionConfig

# Below this standard deviation, of grey values from 0 to 1, a patch has no texture.
_FLAT = 1e-6


class PatchDescriber(Protocol):
  """The interface of a network of patches.

  Attributes:
    patch_size: S, pixels.
    dimensions: D.
  """

  patch_size: int
  dimensions: int

  def __call__(self, patches: np.ndarray) -> np.ndarray:
    """Returns descriptors float32 [N, D], not normalised, of patches float32 [N, S, S]."""


class PatchFeatures:
  """Difference-of-Gaussians keypoints whose patches a network describes: an extractor of local features.

  Attributes:
    dimensions: D of the descriptors.
  """

  def __init__(
    self,
    describe: PatchDescriber,
    config: extraction_pb2.PatchConfig,
    keypoints: extraction_pb2.RootSiftConfig,
    *,
    max_features: int,
    min_attention: float,
  ):
    self._describe = describe
    self._magnification = config.magnification
    self._standardized = config.intensities == extraction_pb2.PatchConfig.STANDARDIZED
    self._detect = KeypointDetector(keypoints, max_features=max_features, min_attention=min_attention)
    self.dimensions = describe.dimensions

  def __call__(self, image: np.ndarray) -> LocalFeatures:
    """Returns the features of uint8 [H, W, 3]: those of RootSift with other descriptors."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    keypoints = self._detect(grey)
    if not keypoints:
      return LocalFeatures.empty(self.dimensions)
    patches = cut(grey, keypoints, magnification=self._magnification, patch_size=self._describe.patch_size)
    patches /= 255
    if self._standardized:
      patches -= patches.mean(axis=(1, 2), keepdims=True)
      patches /= np.maximum(patches.std(axis=(1, 2), keepdims=True), _FLAT)
    return as_features(keypoints, normalize(self._describe(patches)))


def cut(
  grey: np.ndarray, keypoints: Sequence[cv2.KeyPoint], *, magnification: float, patch_size: int
) -> np.ndarray:
  """Returns the patches of keypoints, turned so that their orientation points to the right.

  With the orientation a and the step s = magnification diameter / S, pixel (i, j) of a patch shows the place

      x = x0 + s (cos a (j - (S - 1) / 2) - sin a (i - (S - 1) / 2))
      y = y0 + s (sin a (j - (S - 1) / 2) + cos a (i - (S - 1) / 2))

  (OpenCV's coordinates and angles: y down, a clockwise), interpolated bilinearly in that level of the
  Gaussian pyramid whose pixels are at most s apart and more than s / 2; beyond the image lies its nearest
  pixel.

  Args:
    grey: uint8 [H, W].
    keypoints: N; `size` is their diameter in pixels.
    magnification: side of the square as a multiple of the diameter.
    patch_size: S, pixels.

  Returns:
    float32 [N, S, S], from 0 to 255.
  """
  levels: list[np.ndarray] = [grey.astype(np.float32)]
  patches = np.empty((len(keypoints), patch_size, patch_size), np.float32)
  for patch, keypoint in zip(patches, keypoints, strict=True):
    step = magnification * keypoint.size / patch_size
    level = max(math.floor(math.log2(step)), 0)
    while level >= len(levels) and min(levels[-1].shape) > 1:
      levels.append(cv2.pyrDown(levels[-1]))
    level = min(level, len(levels) - 1)
    # Pixel i of a level is pixel 2 i of the one below.
    across = step / 2**level * math.cos(math.radians(keypoint.angle))
    along = step / 2**level * math.sin(math.radians(keypoint.angle))
    x, y = (value / 2**level for value in keypoint.pt)
    middle = (patch_size - 1) / 2
    to_level = np.array(
      [
        [across, -along, x - middle * (across - along)],
        [along, across, y - middle * (along + across)],
      ]
    )
    cv2.warpAffine(
      levels[level],
      to_level,
      (patch_size, patch_size),
      dst=patch,
      flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
      borderMode=cv2.BORDER_REPLICATE,
    )
  return patches


def build(config: Extraction) -> PatchFeatures:
  """Returns the extractor of a config.

  Raises:
    UserError: its network is missing, of another kind, or needs a package that is not installed.
  """
  from delf_d2r.models.saved_models import patches

  return PatchFeatures(
    patches.load(config.patches.model_path, patch_size=config.patches.patch_size),
    config.patches,
    config.root_sift,
    max_features=config.max_features,
    min_attention=config.min_attention,
  )


def problems(config: Extraction) -> Iterator[Problem]:
  """Yields the problems of `root_sift` and `patches`."""
  yield from keypoint_problems(config)
  patches = config.patches
  if not patches.model_path:
    yield Problem(
      'patches.model_path',
      'patches.model_path is empty; give a file of ONNX or the directory of a SavedModel',
    )
  yield from check_part_ranges(config, {'patches': {'patch_size': (4, 512)}})
  if not 0 < patches.magnification <= 100:
    yield Problem(
      'patches.magnification', f'patches.magnification is {patches.magnification:g}; it must be in (0, 100]'
    )


RECORD = ExtractorRecord(
  extractor=Extraction.PATCHES,
  build=build,
  model_files=lambda config: network_files(config.patches.model_path),
  problems=problems,
  own_fields=('root_sift', 'patches'),
  decisive_fields=('root_sift', 'patches'),
  free_fields=(),
  descriptors=DescriptorKind.LOCAL,
  unit_origins=unit_vectors,
  uses_network=True,
  has_feature_maps=False,
)
