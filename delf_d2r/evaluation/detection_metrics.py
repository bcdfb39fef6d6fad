"""The quality of detected boxes: the average precision of COCO, and the recall of the best few boxes."""

import contextlib
import io
from collections.abc import Sequence

import numpy as np

from delf_d2r.errors import UserError
from delf_d2r.geometry.boxes import intersection_over_union
from delf_d2r.structures import Boxes

RECALL_AT = (1, 3, 5)


def evaluate(
  truths: Sequence[np.ndarray], found: Sequence[Boxes], *, min_overlap: float = 0.5
) -> dict[str, float]:
  """Returns all metrics of some images.

  Args:
    truths: of each image, the true boxes float32 [R, 4], `[ymin, xmin, ymax, xmax]` normalised.
    found: of the same images, the detected boxes.
    min_overlap: intersection over union from which a detection counts, for the recalls.

  Returns:
    `ap50`: average precision at an intersection over union of 0.5; `ap`: its mean from 0.5 to 0.95;
    `recall@1`, `recall@3`, `recall@5`: see `recall`. NaN where there is no true box.

  Raises:
    UserError: pycocotools is not installed.
  """
  ap50, ap = average_precision(truths, found)
  recalls = {f'recall@{k}': recall(truths, found, k, min_overlap=min_overlap) for k in RECALL_AT}
  return {'ap50': ap50, 'ap': ap, **recalls}


def recall(
  truths: Sequence[np.ndarray], found: Sequence[Boxes], k: int, *, min_overlap: float = 0.5
) -> float:
  """Returns the share of all true boxes that overlap one of the k best boxes of their image well enough.

  Boxes of equal scores keep their order, so that the first boxes of a grid count as its best. Arguments are
  those of `evaluate`.
  """
  hits, count = 0, 0
  for true, boxes in zip(truths, found, strict=True):
    best = np.argsort(-boxes.scores, kind='stable')[:k]
    overlaps = intersection_over_union(true, boxes.coordinates[best])
    hits += int(np.any(overlaps >= min_overlap, axis=1).sum())
    count += len(true)
  return hits / count if count else float('nan')


def average_precision(truths: Sequence[np.ndarray], found: Sequence[Boxes]) -> tuple[float, float]:
  """Returns COCO's average precision at 0.5 and its mean over 0.5, 0.55 ... 0.95.

  Arguments are those of `evaluate`.

  Raises:
    UserError: pycocotools is not installed.
  """
  try:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
  except ImportError:
    raise UserError(
      "average precision is computed by pycocotools, which is missing: pip install 'delf_d2r[detector]'"
    ) from None
  if not sum(map(len, truths)):
    return float('nan'), float('nan')
  if not sum(map(len, found)):
    return 0.0, 0.0
  # pycocotools prints to the standard output.
  with contextlib.redirect_stdout(io.StringIO()):
    truth = COCO()
    truth.dataset = {
      'images': [{'id': image} for image in range(len(truths))],
      'categories': [{'id': 1}],
      'annotations': [
        {'id': number, **annotation, 'iscrowd': 0}
        for number, annotation in enumerate(_annotations(truths), start=1)
      ],
    }
    truth.createIndex()
    scores = np.concatenate([boxes.scores for boxes in found])
    detections = _annotations([boxes.coordinates for boxes in found])
    results = truth.loadRes(
      [{**detection, 'score': float(score)} for detection, score in zip(detections, scores, strict=True)]
    )
    evaluation = COCOeval(truth, results, 'bbox')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
  return float(evaluation.stats[1]), float(evaluation.stats[0])


def _annotations(boxes_of_images: Sequence[np.ndarray]) -> list[dict]:
  """Returns annotations of COCO; boxes stay normalised, since overlaps do not depend on the unit."""
  return [
    {
      'image_id': image,
      'category_id': 1,
      'bbox': [float(xmin), float(ymin), float(xmax - xmin), float(ymax - ymin)],
      'area': float((xmax - xmin) * (ymax - ymin)),
    }
    for image, boxes in enumerate(boxes_of_images)
    for ymin, xmin, ymax, xmax in boxes
  ]
