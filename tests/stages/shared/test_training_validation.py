"""Retrieval as a measure: leave-one-out mAP."""

import math

import numpy as np
import pytest

from delf_d2r.evaluation.average_precision import average_precision
from delf_d2r.stages.shared.training_validation import leave_one_out, leave_one_out_by_cosines


def described(labels, *, spread, seed=0):
  """Twelve descriptors for each photo, near the twelve of its class or, with a large spread, anywhere."""
  generator = np.random.default_rng(seed)
  classes = generator.normal(size=(max(labels) + 1, 12, 16))
  photos = [classes[max(label, 0)] + spread * generator.normal(size=(12, 16)) for label in labels]
  return [np.float32(x / np.linalg.norm(x, axis=1, keepdims=True)) for x in photos]


LABELS = [0, 0, 0, 1, 1, 1, 2, 2, 2]


def measure(labels, **options):
  return leave_one_out(described(labels, **options), np.array(labels), num_words=24, seed=0)


def test_classes_that_look_alike_are_found():
  assert measure(LABELS, spread=0.05) == 1


def test_noise_finds_as_much_as_chance():
  assert measure(LABELS, spread=50) < 0.6


def test_distractors_never_ask_and_others_without_company_do_not_count():
  assert measure([0, 0, 1], spread=0.05) == 1
  assert math.isnan(measure([0, 1, 2], spread=0.05))
  assert math.isnan(leave_one_out(described([0, 0], spread=0), np.array([-1, -1]), num_words=4, seed=0))


def test_photos_without_features_and_features_without_numbers():
  descriptors = described(LABELS, spread=0.05)
  # Without features all scores are 0, and photos stand in their order: the others of its class last but two.
  descriptors[8] = descriptors[8][:0]
  found = leave_one_out(descriptors, np.array(LABELS), num_words=24, seed=0)
  assert 0.5 < found < 1
  descriptors[1] = descriptors[1] * np.nan
  assert math.isnan(leave_one_out(descriptors, np.array(LABELS), num_words=24, seed=0))


@pytest.mark.parametrize('num_words', [1, 10**6])
def test_number_of_words_is_fitted_to_the_features(num_words):
  found = leave_one_out(described(LABELS, spread=0.05), np.array(LABELS), num_words=num_words, seed=0)
  assert 0.3 < found <= 1


def cosines_oracle(units, labels):
  """Average precision of each query over all others, sorted one by one."""
  found = []
  for i, label in enumerate(labels):
    others = sorted((-float(units[i] @ units[j]), j) for j in range(len(labels)) if j != i)
    ranks = [rank for rank, (_, j) in enumerate(others) if labels[j] == label]
    if label >= 0 and ranks:
      found.append(average_precision(np.array(ranks)))
  return np.mean(found)


def test_cosines_rank_all_others():
  units = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
  units /= np.linalg.norm(units, axis=1, keepdims=True)
  labels = np.array([0, 0, 1, 1, 1, 2, -1, -1, 0])
  assert leave_one_out_by_cosines(units, labels) == pytest.approx(cosines_oracle(units, labels))


def test_cosines_of_classes_apart_of_nobody_and_of_no_numbers():
  units = np.eye(3, dtype=np.float32)[[0, 0, 1, 1, 2]]
  assert leave_one_out_by_cosines(units, np.array([0, 0, 1, 1, 2])) == 1
  assert math.isnan(leave_one_out_by_cosines(units, np.arange(5)))
  assert math.isnan(leave_one_out_by_cosines(units * np.nan, np.array([0, 0, 1, 1, 2])))
