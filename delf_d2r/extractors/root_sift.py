"""RootSIFT local features, by OpenCV's SIFT."""

import cv2
import numpy as np

from delf_d2r.protos import extraction_pb2
from delf_d2r.structures import LocalFeatures

DIMENSIONS = 128
UPRIGHT_ANGLE = 0.0


class RootSift:
  """Difference-of-Gaussians keypoints with RootSIFT descriptors.

  SIFT (Lowe, IJCV 2004) described by the square roots of its L1-normalised histogram, which makes the
  Euclidean distance the Hellinger distance (Arandjelovic and Zisserman, CVPR 2012, section 3). The attention
  of a feature is its response, the contrast of the extremum.
  """

  dimensions = DIMENSIONS

  def __init__(self, config: extraction_pb2.RootSiftConfig, *, max_features: int, min_attention: float):
    self._max_features = max_features
    self._min_attention = min_attention
    self._upright = config.upright
    # OpenCV's own limit on features keeps all that tie with the last one, in an order of its own; ours is
    # applied to the keypoints below, before they are described.
    self._sift = cv2.SIFT_create(
      nOctaveLayers=config.octave_layers,
      contrastThreshold=config.contrast_threshold,
      edgeThreshold=config.edge_threshold,
      # Without it OpenCV's first octave, and so every location, is off by a quarter of a pixel.
      enable_precise_upscale=True,
    )

  def __call__(self, image: np.ndarray) -> LocalFeatures:
    """Features of one image.

    Args:
      image: uint8 [H, W, 3], RGB.

    Returns:
      At most max_features features, most attention first; locations in pixels of `image`, scales the
      diameter of the keypoint in pixels. D = 128.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    keypoints = self._strongest(self._sift.detect(grey, None))
    keypoints, descriptors = self._sift.compute(grey, keypoints)
    if not keypoints:
      return LocalFeatures.empty(DIMENSIONS)
    features = LocalFeatures(
      # OpenCV's pixel centres have whole coordinates; ours lie half a pixel inside the image's edge.
      locations=np.array([keypoint.pt[::-1] for keypoint in keypoints], np.float32) + 0.5,
      scales=np.array([keypoint.size for keypoint in keypoints], np.float32),
      attention=np.array([keypoint.response for keypoint in keypoints], np.float32),
      descriptors=root_normalize(descriptors),
    )
    return features.take(np.linalg.norm(features.descriptors, axis=1) > 0.5)

  def _strongest(self, keypoints) -> list[cv2.KeyPoint]:
    """The keypoints to describe; equal responses stand in the order of their geometry."""
    chosen = [keypoint for keypoint in keypoints if keypoint.response >= self._min_attention]
    if self._upright:
      for keypoint in chosen:
        keypoint.angle = UPRIGHT_ANGLE
      # A point with several orientations would be described several times alike.
      chosen = list({(*keypoint.pt, keypoint.size): keypoint for keypoint in chosen}.values())
    chosen.sort(key=lambda k: (-k.response, k.pt[1], k.pt[0], k.size, k.angle))
    return chosen[: self._max_features]


def root_normalize(descriptors: np.ndarray) -> np.ndarray:
  """float32 [N, D] non-negative histograms to the square roots of their shares; a zero row stays zero."""
  sums = descriptors.sum(axis=1, keepdims=True)
  shares = np.divide(descriptors, sums, out=np.zeros_like(descriptors, np.float32), where=sums > 0)
  return np.sqrt(shares)
