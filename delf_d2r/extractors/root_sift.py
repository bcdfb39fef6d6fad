"""RootSIFT local features, by OpenCV's SIFT."""

import cv2
import numpy as np

from delf_d2r.extractors.keypoints import KeypointDetector, as_features, keypoint_problems
from delf_d2r.extractors.registry import DescriptorKind, ExtractorRecord, unit_vectors
from delf_d2r.protos import extraction_pb2
from delf_d2r.structures import LocalFeatures

Extraction = extraction_pb2.ExtractionConfig

DIMENSIONS = 128


class RootSift:
  """Difference-of-Gaussians keypoints with RootSIFT descriptors.

  SIFT (Lowe, IJCV 2004) described by the square roots of its L1-normalised histogram, which makes the
  Euclidean distance the Hellinger distance (Arandjelovic and Zisserman, CVPR 2012, section 3). The attention
  of a feature is its response, the contrast of the extremum.
  """

  dimensions = DIMENSIONS

  def __init__(self, config: extraction_pb2.RootSiftConfig, *, max_features: int, min_attention: float):
    self._detect = KeypointDetector(config, max_features=max_features, min_attention=min_attention)

  def __call__(self, image: np.ndarray) -> LocalFeatures:
    """Returns the features of one image.

    Args:
      image: uint8 [H, W, 3], RGB.

    Returns:
      At most max_features features, most attention first; locations in pixels of `image`, scales the
      diameter of the keypoint in pixels. D = 128.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    keypoints, descriptors = self._detect.describe(grey)
    if not keypoints:
      return LocalFeatures.empty(DIMENSIONS)
    features = as_features(keypoints, root_normalize(descriptors))
    return features.take(np.linalg.norm(features.descriptors, axis=1) > 0.5)


def root_normalize(descriptors: np.ndarray) -> np.ndarray:
  """Returns the square roots of the shares of float32 [N, D] histograms >= 0; a zero row stays zero."""
  sums = descriptors.sum(axis=1, keepdims=True)
  shares = np.divide(descriptors, sums, out=np.zeros_like(descriptors, np.float32), where=sums > 0)
  return np.sqrt(shares)


def build(config: Extraction) -> RootSift:
  """Returns the extractor of a config."""
  return RootSift(config.root_sift, max_features=config.max_features, min_attention=config.min_attention)


RECORD = ExtractorRecord(
  extractor=Extraction.ROOT_SIFT,
  build=build,
  model_files=lambda config: {},
  problems=keypoint_problems,
  own_fields=('root_sift',),
  decisive_fields=('root_sift',),
  free_fields=(),
  descriptors=DescriptorKind.LOCAL,
  unit_origins=unit_vectors,
  uses_network=False,
  has_feature_maps=False,
)
