"""Losses and learning rates against their formulas."""

import math

import numpy as np
import pytest
from support import tiny_delf_training

tf = pytest.importorskip('tensorflow')
keras = pytest.importorskip('keras')

from delf_d2r.models.delf import losses  # noqa: E402
from delf_d2r.models.training import schedules  # noqa: E402


def softmax(x):
  e = np.exp(x - x.max(axis=-1, keepdims=True))
  return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize('smoothing', [0.0, 0.3])
def test_classification_is_cross_entropy(smoothing):
  logits = np.array([[1.0, 2.0, -1.0], [0.0, 0.0, 9.0]], np.float32)
  labels = np.array([1, 0])
  targets = (1 - smoothing) * np.eye(3)[labels] + smoothing / 3
  expected = -(targets * np.log(softmax(logits))).sum(axis=1)
  found = losses.classification(tf.constant(logits), tf.constant(labels), smoothing=smoothing)
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_classification_survives_huge_logits():
  found = losses.classification(tf.constant([[1e4, -1e4]]), tf.constant([1]))
  np.testing.assert_allclose(found, [2e4])


def test_reconstruction_is_a_mean_per_photo():
  a = np.random.default_rng(0).normal(size=(3, 2, 4, 5)).astype(np.float32)
  b = np.zeros_like(a)
  np.testing.assert_allclose(losses.reconstruction(a, b), (a**2).reshape(3, -1).mean(axis=1), rtol=1e-6)


def test_relative_reconstruction_does_not_depend_on_the_scale():
  a, b = np.random.default_rng(0).normal(size=(2, 3, 2, 4, 5)).astype(np.float32)
  expected = ((a - b) ** 2).reshape(3, -1).mean(axis=1) / (a**2).reshape(3, -1).mean(axis=1)
  np.testing.assert_allclose(losses.reconstruction(a, b, relative=True), expected, rtol=1e-5)
  np.testing.assert_allclose(losses.reconstruction(9 * a, 9 * b, relative=True), expected, rtol=1e-5)


def test_weight_decay_counts_trained_kernels_once():
  own = keras.layers.Dense(2, kernel_regularizer=keras.regularizers.L2(0.1), name='own')
  model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.BatchNormalization(), own])
  expected = 0.5 * np.square(model.layers[0].kernel.numpy()).sum()
  np.testing.assert_allclose(losses.weight_decay(model), expected, rtol=1e-6)
  model.layers[0].trainable = False
  assert losses.weight_decay(model) == 0


def oracle_contrastive(first, second, points, images, valid, temperature, min_distance):
  """The sum over negatives written out pair by pair."""
  count = len(first)
  loss, right = np.zeros(count), np.zeros(count, bool)
  for p in range(count):
    if not valid[p]:
      continue
    others = [
      q
      for q in range(count)
      if valid[q]
      and q != p
      and not (images[p] == images[q] and np.linalg.norm(points[p] - points[q]) < min_distance)
    ]
    for own, other in ((first, second), (second, first)):
      logits = np.array([own[p] @ other[p], *(own[p] @ other[q] for q in others)]) / temperature
      loss[p] -= np.log(softmax(logits)[0]) / 2
    right[p] = all(first[p] @ second[p] >= first[p] @ second[q] for q in others)
  return loss, right


def test_contrastive_pairs_against_a_loop():
  generator = np.random.default_rng(1)
  first, second = (generator.normal(size=(12, 4)) for _ in range(2))
  first, second = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (first, second))
  points = generator.uniform(0, 40, (12, 2))
  images = np.repeat([0, 1], 6)
  valid = generator.random(12) > 0.25
  arrays = [np.float32(first), np.float32(second), np.float32(points), images, valid]
  found = losses.contrastive_pairs(*map(tf.constant, arrays), temperature=0.2, min_distance=15)
  expected = oracle_contrastive(first, second, points, images, valid, 0.2, 15)
  np.testing.assert_allclose(found[0], expected[0], atol=1e-5)
  np.testing.assert_array_equal(found[1], expected[1])


def test_contrastive_pairs_without_any_valid_pair_is_zero():
  unit = tf.math.l2_normalize(tf.ones((2, 3)), axis=1)
  found, right = losses.contrastive_pairs(
    unit,
    unit,
    tf.zeros((2, 2)),
    tf.constant([0, 0]),
    tf.constant([False, False]),
    temperature=0.1,
    min_distance=1,
  )
  assert found.numpy().tolist() == [0, 0]
  assert not right.numpy().any()


def test_precision_is_least_at_the_inverse_of_the_error():
  attention = tf.constant(np.linspace(0.05, 5, 1000), tf.float32)
  assert float(attention[np.argmin(losses.precision(attention, 0.5))]) == pytest.approx(2, abs=0.01)


# Learning rates


def rates(*changes, steps=(0, 1, 2, 50, 100)):
  options = tiny_delf_training.load(
    f'optimizer {{ learning_rate: 1 final_learning_rate: 0.2 {" ".join(changes)} }}'
  )
  return [schedules.learning_rate(options.training.optimizer, step, 100) for step in steps]


def test_linear_decay():
  np.testing.assert_allclose(rates(), [1, 0.992, 0.984, 0.6, 0.2], rtol=1e-6)


def test_warm_up_rises_to_the_full_rate():
  np.testing.assert_allclose(
    rates('warmup_steps: 4', steps=(0, 1, 2, 3, 4)), [0.25, 0.5, 0.75, 1, 1], rtol=1e-6
  )


def test_cosine_and_constant():
  expected = 0.2 + 0.8 * (1 + math.cos(math.pi / 4)) / 2
  np.testing.assert_allclose(rates('schedule: COSINE', steps=(0, 25, 100)), [1, expected, 0.2], rtol=1e-6)
  assert rates('schedule: CONSTANT') == [1] * 5
