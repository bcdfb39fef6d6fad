"""The anchors and regions that both stages of Faster R-CNN learn from, drawn by seeds so that steps repeat.

The official samplers draw from the state of TensorFlow's generators, which no checkpoint holds.
"""

import functools
import threading

import tensorflow as tf

from delf_d2r.models.detector import model_garden


def balanced_sample(
  positive: tf.Tensor, candidates: tf.Tensor, *, count: int, fraction: float, seed: tf.Tensor
) -> tf.Tensor:
  """Returns a random choice among candidates, filled up with negative ones.

  Args:
    positive: bool [N].
    candidates: bool [N]: those that may be chosen.
    count: the number to choose, if there are enough.
    fraction: positive ones are at most this share of `count`.
    seed: int [2].

  Returns:
    bool [N].
  """
  noise = tf.random.stateless_uniform(tf.shape(positive), seed)

  def choose(allowed, number):
    # A rank that begins with what is allowed.
    rank = tf.argsort(tf.argsort(tf.where(allowed, noise, 2.0), stable=True), stable=True)
    return allowed & (rank < number)

  chosen = choose(positive & candidates, int(count * fraction))
  left = count - tf.reduce_sum(tf.cast(chosen, tf.int32))
  return chosen | choose(~positive & candidates, left)


class RegionSampler(threading.local):
  """Takes the place of the official BoxSampler; `seeds` int [B, 2] are set before each call.

  They belong to the thread that sets them: the replicas of a strategy are threads that take turns in a step.
  """

  def __init__(self, count: int):
    self._count = count
    self.seeds = None

  def __call__(self, positive, negative, ignored):
    def sample(arguments):
      photo_positive, photo_candidates, seed = arguments
      # Split, so that the choice is independent of that of the anchors.
      seed = tf.random.split(seed, 1)[0]
      return balanced_sample(photo_positive, photo_candidates, count=self._count, fraction=0.25, seed=seed)

    candidates = (positive | negative) & ~ignored
    chosen = tf.map_fn(sample, (positive, candidates, self.seeds), fn_output_signature=tf.bool)
    return tf.math.top_k(tf.cast(chosen, tf.int32), self._count).indices


@functools.cache
def seeded_anchor_labeler():
  """Returns a subclass of the official RpnAnchorLabeler that chooses anchors by `balanced_sample`."""

  class Labeler(model_garden.load('ops.anchor').RpnAnchorLabeler):
    def __init__(self, seed):
      super().__init__()
      self._seed = seed

    def _get_rpn_samples(self, match_results):
      positive = match_results > -1
      chosen = balanced_sample(positive, match_results > -2, count=256, fraction=0.5, seed=self._seed)
      targets = tf.where(chosen, tf.cast(positive, tf.int32), -1)
      return targets, positive & chosen, ~positive & chosen

  return Labeler
