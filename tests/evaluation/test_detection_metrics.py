"""Metrics of detections, compared with values by hand and with a second implementation."""

import importlib.util
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose

from delf_d2r.errors import UserError
from delf_d2r.evaluation import detection_metrics
from delf_d2r.evaluation.detection_metrics import average_precision, evaluate, recall
from delf_d2r.geometry.boxes import intersection_over_union
from delf_d2r.structures import Boxes

A, B, C = [0.0, 0.0, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9], [0.0, 0.6, 0.3, 1.0]
needs_coco = pytest.mark.skipif(
  not importlib.util.find_spec('pycocotools'),
  reason="pycocotools is not installed: pip install 'delf_d2r[detector]'",
)


def boxes(*rows, scores=()):
  coordinates = np.array(rows, np.float32).reshape(-1, 4)
  return Boxes(coordinates, np.array(scores or np.linspace(0.9, 0.1, len(rows)), np.float32))


def truth(*rows):
  return np.array(rows, np.float32).reshape(-1, 4)


@needs_coco
def test_perfect_and_useless_detectors():
  truths = [truth(A, B), truth(), truth(C)]
  perfect = evaluate(truths, [boxes(A, B), boxes(), boxes(C)])
  assert_allclose(list(perfect.values()), [1, 1, 2 / 3, 1, 1], rtol=1e-6)
  assert set(evaluate(truths, [boxes(C), boxes(A), boxes(B)]).values()) == {0}
  assert set(evaluate(truths, [boxes()] * 3).values()) == {0}


@needs_coco
@pytest.mark.parametrize('images', [[], [truth()], [truth(), truth()]])
def test_without_true_boxes_there_is_nothing_to_measure(images):
  assert all(np.isnan(value) for value in evaluate(images, [boxes(A)] * len(images)).values())


def test_recall_counts_the_best_boxes_alone():
  found = [boxes(C, A, B, scores=(0.9, 0.5, 0.4))]
  assert [recall([truth(A, B)], found, k) for k in (1, 2, 3)] == [0, 0.5, 1]
  # One box may cover two true ones; equal scores keep their order.
  assert recall([truth(A, A)], [boxes(A, C, scores=(0.5, 0.5))], 1) == 1
  half = [0.0, 0.0, 0.4, 0.19]
  assert recall([truth(A)], [boxes(half)], 1) == 0
  assert recall([truth(A)], [boxes(half)], 1, min_overlap=0.4) == 1


def by_definition(truths, found, min_overlap):
  """Average precision at 101 recalls, each true box matched once, best score first."""
  order = sorted(
    ((score, image, box) for image, f in enumerate(found) for box, score in enumerate(f.scores)), reverse=True
  )
  taken, hits = set(), []
  for _, image, box in order:
    overlaps = intersection_over_union(found[image].coordinates[[box]], truths[image])[0].copy()
    overlaps[[t for i, t in taken if i == image]] = -1
    best = int(np.argmax(overlaps)) if len(overlaps) else 0
    hits.append(bool(len(overlaps)) and overlaps[best] >= min_overlap)
    if hits[-1]:
      taken.add((image, best))
  total = sum(map(len, truths))
  precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
  recalls = np.cumsum(hits) / total
  points = [
    precision[recalls >= level - 1e-9].max(initial=0) if len(hits) else 0 for level in np.linspace(0, 1, 101)
  ]
  return float(np.mean(points))


@needs_coco
@pytest.mark.parametrize('seed', range(4))
def test_average_precision_is_what_it_is_defined_as(seed):
  generator = np.random.default_rng(seed)
  truths, found = [], []
  for _ in range(6):
    low = generator.uniform(0, 0.5, (generator.integers(0, 4), 2))
    true = np.hstack([low, low + generator.uniform(0.1, 0.5, low.shape)]).astype(np.float32)
    noise = generator.normal(0, 0.03, true.shape).astype(np.float32)
    extra = truth([0.1, 0.1, 0.3, 0.35])
    candidates = np.concatenate([true + noise, extra])
    truths.append(true)
    # Distinct scores, since the order of equal ones is undefined.
    found.append(Boxes(candidates, generator.uniform(0, 1, len(candidates)).astype(np.float32)))
  ap50, ap = average_precision(truths, found)
  assert_allclose(ap50, by_definition(truths, found, 0.5), atol=1e-6)
  levels = np.linspace(0.5, 0.95, 10)
  assert_allclose(ap, np.mean([by_definition(truths, found, level) for level in levels]), atol=1e-6)


def test_missing_pycocotools_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, 'pycocotools.coco', None)
  with pytest.raises(UserError, match=r'delf_d2r\[detector\]'):
    detection_metrics.average_precision([truth(A)], [boxes(A)])
