"""Boxes `[ymin, xmin, ymax, xmax]`, normalised to [0, 1]."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from delf_d2r.structures import Boxes


def uniform_grid(boxes_per_side: Sequence[int], *, overlap: float) -> Boxes:
  """Returns square grids of equal boxes over the normalised image.

  A level of n boxes a side has n x n boxes of side s = 1 / (n - (n - 1) * overlap), so that the first begins
  at 0, the last ends at 1 and neighbours share `overlap` of their side.

  Args:
    boxes_per_side: n of each level, each at least 1.
    overlap: share of a side, in [0, 1).

  Returns:
    Boxes [sum n^2], level by level, row by row.
  """
  boxes = []
  for n in boxes_per_side:
    side = 1 / (n - (n - 1) * overlap)
    starts = np.linspace(0, 1 - side, n)
    boxes += [(y, x, min(y + side, 1), min(x + side, 1)) for y in starts for x in starts]
  return Boxes.from_coordinates(boxes)


def area(coordinates: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
  """Returns the share of the image that each box [R, 4] covers: float32 [R], 0 for an inverted box."""
  sides = np.maximum(coordinates[:, 2:] - coordinates[:, :2], 0)
  areas: npt.NDArray[np.float32] = sides[:, 0] * sides[:, 1]
  return areas


def intersection_over_union(
  a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
  """Returns the overlap of every box of a [A, 4] with every box of b [B, 4]: float32 [A, B].

  It is 0 where both boxes are empty.
  """
  low = np.maximum(a[:, None, :2], b[None, :, :2])
  high = np.minimum(a[:, None, 2:], b[None, :, 2:])
  shared = np.prod(np.maximum(high - low, 0), axis=2)
  union = area(a)[:, None] + area(b)[None, :] - shared
  overlaps: npt.NDArray[np.float32] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
  return overlaps


def select(
  boxes: Boxes,
  *,
  min_score: float = 0.0,
  min_area: float = 0.0,
  max_area: float = 1.0,
  max_overlap: float = 1.0,
  max_boxes: int = 0,
) -> Boxes:
  """Selects the boxes to extract, clipped to the image, best score first (equal scores keep their order).

  Args:
    boxes: R boxes.
    min_score: drops boxes that score less.
    min_area: drops boxes that cover less of the image. Boxes without any area are always dropped.
    max_area: drops boxes that cover more of the image.
    max_overlap: drops a box whose intersection over union with a kept, better one exceeds this.
    max_boxes: keeps at most so many; 0 = all.
  """
  order = selected(
    boxes,
    min_score=min_score,
    min_area=min_area,
    max_area=max_area,
    max_overlap=max_overlap,
    max_boxes=max_boxes,
  )
  return Boxes(boxes.coordinates.clip(0, 1)[order].reshape(-1, 4), boxes.scores[order])


def selected(
  boxes: Boxes, *, min_score: float, min_area: float, max_area: float, max_overlap: float, max_boxes: int
) -> list[int]:
  """Returns the positions of the boxes that `select` keeps, in its order; it has the same arguments."""
  coordinates = boxes.coordinates.clip(0, 1)
  best_first = np.argsort(-boxes.scores, kind='stable').tolist()
  size = area(coordinates)
  order = [
    i for i in best_first if boxes.scores[i] >= min_score and size[i] > 0 and min_area <= size[i] <= max_area
  ]
  if max_overlap < 1:
    order = _without_near_duplicates(coordinates, order, max_overlap)
  return order[:max_boxes] if max_boxes else order


def _without_near_duplicates(
  coordinates: npt.NDArray[np.float32], order: list[int], max_overlap: float
) -> list[int]:
  kept: list[int] = []
  for i in order:
    overlaps = intersection_over_union(coordinates[[i]], coordinates[kept].reshape(-1, 4))
    if not np.any(overlaps > max_overlap):
      kept.append(i)
  return kept


def random_placement(boxes: Boxes, generator: np.random.Generator) -> Boxes:
  """Returns boxes of the same sizes and scores, each anywhere in the image with equal probability.

  Args:
    boxes: R boxes within the image.
    generator: draws 2 R numbers.
  """
  sides = (boxes.coordinates[:, 2:] - boxes.coordinates[:, :2]).astype(np.float64)
  low = generator.uniform(size=sides.shape) * (1 - sides)
  coordinates = np.concatenate([low, low + sides], axis=1).clip(0, 1)
  return Boxes(coordinates.astype(np.float32), boxes.scores)


def crop_slices(box: Iterable[float], height: int, width: int) -> tuple[slice, slice]:
  """Returns rows and columns of the pixels that a box touches.

  They reach from the floor of its minimum to the ceiling of its maximum.
  This is the rule of the tensorflow/models DELF code (docs/reference.md 4.2), clamped to the image. The
  slices are empty for a box outside.
  """
  ymin, xmin, ymax, xmax = (float(value) for value in box)
  return _pixels(ymin, ymax, height), _pixels(xmin, xmax, width)


def _pixels(low: float, high: float, size: int) -> slice:
  # Boxes are float32: 0.7 of 640 becomes 447.999992, 0.55 of it 352.000008, and neither should add a pixel.
  # The tolerance is the rounding of a float32 in [0.5, 1), in pixels.
  tolerance = size * 2.0**-24
  start = min(max(math.floor(low * size + tolerance), 0), size)
  stop = min(max(math.ceil(high * size - tolerance), 0), size)
  return slice(start, max(start, stop))


def contains(
  box: Sequence[float] | npt.NDArray[np.floating],
  locations: npt.NDArray[np.floating],
  height: int,
  width: int,
) -> npt.NDArray[np.bool_]:
  """Returns which locations [N, 2], `(y, x)` in pixels, lie in the box, edges included: bool [N]."""
  low = np.array(box[:2]) * (height, width)
  high = np.array(box[2:]) * (height, width)
  inside: npt.NDArray[np.bool_] = np.all((locations >= low) & (locations <= high), axis=1)
  return inside
