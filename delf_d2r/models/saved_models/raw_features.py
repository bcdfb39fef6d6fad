"""What models of local features return, whatever runs them; imports no TensorFlow."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class RawFeatures:
  """The outputs of a model of local features for one image, in its pixels; most attention first.

  Attributes:
    boxes: float32 [N, 4], `[ymin, xmin, ymax, xmax]`; a feature lies at the centre of its box.
    scales: float32 [N], 1 / the scale of the pyramid.
    scores: float32 [N], attention.
    features: float32 [N, D], not normalised.
  """

  boxes: np.ndarray
  scales: np.ndarray
  scores: np.ndarray
  features: np.ndarray

  @classmethod
  def from_outputs(cls, outputs: dict) -> 'RawFeatures':
    """Returns the features of a model's outputs by their names."""
    boxes, scales, scores, features = (
      np.asarray(outputs[name], np.float32) for name in ('boxes', 'scales', 'scores', 'features')
    )
    return cls(
      boxes.reshape(-1, 4), scales.reshape(-1), scores.reshape(-1), features.reshape(-1, features.shape[-1])
    )

  def without_overlaps(self, *, max_iou: float, max_features: int) -> 'RawFeatures':
    """Returns at most max_features, whose boxes overlap none of more attention by more than max_iou."""
    if not len(self.scores):
      return self
    # Imported here: what follows a runtime without TensorFlow seldom suppresses.
    import tensorflow as tf

    chosen = tf.image.non_max_suppression(
      self.boxes, self.scores, min(max_features, len(self.scores)), iou_threshold=max_iou
    ).numpy()
    return RawFeatures(self.boxes[chosen], self.scales[chosen], self.scores[chosen], self.features[chosen])
