"""Difference-of-Gaussians keypoints (Lowe, IJCV 2004), which several extractors describe."""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from delf_d2r.config.rules.checks import check_part_ranges
from delf_d2r.errors import Problem
from delf_d2r.protos import extraction_pb2
from delf_d2r.structures import LocalFeatures

UPRIGHT_ANGLE = 0.0


class KeypointDetector:
  """OpenCV's detector and the choice among its keypoints.

  Attributes:
    sift: the detector, which can describe keypoints as well.
  """

  def __init__(self, config: extraction_pb2.RootSiftConfig, *, max_features: int, min_attention: float):
    self._max_features = max_features
    self._min_attention = min_attention
    self._upright = config.upright
    self.sift = cv2.SIFT_create(  # type: ignore[attr-defined]  # The stubs of OpenCV lack it.
      # OpenCV keeps all that tie with the last one, in an order of its own: a superset of those chosen below.
      # Where points with several orientations are joined, more are needed.
      nfeatures=0 if self._upright else max_features,
      nOctaveLayers=config.octave_layers,
      contrastThreshold=config.contrast_threshold,
      edgeThreshold=config.edge_threshold,
      # Without it OpenCV's first octave, and so every location, is off by a quarter of a pixel.
      enable_precise_upscale=True,
    )

  def __call__(self, grey: np.ndarray) -> list[cv2.KeyPoint]:
    """Returns the keypoints of uint8 [H, W], strongest first.

    Those of equal response are in the order of y, x, size and angle. There are at most max_features, with a
    response of at least min_attention.
    """
    keypoints = self.sift.detect(grey, None)
    chosen = [keypoint for keypoint in keypoints if keypoint.response >= self._min_attention]
    if self._upright:
      for keypoint in chosen:
        keypoint.angle = UPRIGHT_ANGLE
      # A point with several orientations would be described several times alike.
      chosen = list({(*keypoint.pt, keypoint.size): keypoint for keypoint in chosen}.values())
    chosen.sort(key=_order)
    return chosen[: self._max_features]

  def describe(self, grey: np.ndarray) -> tuple[Sequence[cv2.KeyPoint], np.ndarray]:
    """Returns the keypoints of uint8 [H, W], as `__call__` does, and their SIFT descriptors float32 [N, 128].

    One scale space serves both, which is a quarter faster than two. The result is that of two, to the bit.
    """
    if not self._upright:
      keypoints, descriptors = self.sift.detectAndCompute(grey, None)
      order = [k for k, keypoint in enumerate(keypoints) if keypoint.response >= self._min_attention]
      order.sort(key=lambda k: _order(keypoints[k]))
      order = order[: self._max_features]
      chosen = [keypoints[k] for k in order]
      # Keypoints of coarse octaves alone are described without doubling the image first.
      if any(_octave(keypoint) < 0 for keypoint in chosen):
        return chosen, descriptors[order]
    return self.sift.compute(grey, self(grey))


def _order(keypoint: cv2.KeyPoint) -> tuple[float, ...]:
  """Returns what keypoints are sorted by, strongest first."""
  return -keypoint.response, keypoint.pt[1], keypoint.pt[0], keypoint.size, keypoint.angle


def _octave(keypoint: cv2.KeyPoint) -> int:
  """Returns the octave of OpenCV's scale space, -1 for that of the doubled image: its lowest byte, signed."""
  return (keypoint.octave & 0xFF ^ 0x80) - 0x80


def as_features(keypoints: Sequence[cv2.KeyPoint], descriptors: np.ndarray) -> LocalFeatures:
  """Returns keypoints, at least one, and their descriptors [N, D] as features.

  Scales are diameters in pixels, attention is the response.
  """
  return LocalFeatures(
    # OpenCV's pixel centres have whole coordinates; ours lie half a pixel inside the image's edge.
    locations=np.array([keypoint.pt[::-1] for keypoint in keypoints], np.float32) + 0.5,
    scales=np.array([keypoint.size for keypoint in keypoints], np.float32),
    attention=np.array([keypoint.response for keypoint in keypoints], np.float32),
    descriptors=descriptors,
  )


def keypoint_problems(config: extraction_pb2.ExtractionConfig) -> Iterator[Problem]:
  """Yields the problems of `root_sift`, for any extractor that describes such keypoints."""
  sift = config.root_sift
  for field in ('contrast_threshold', 'edge_threshold'):
    if not getattr(sift, field) > 0:
      yield Problem(
        f'root_sift.{field}', f'root_sift.{field} is {getattr(sift, field):g}; it must be positive'
      )
  yield from check_part_ranges(config, {'root_sift': {'octave_layers': (1, 16)}})
