"""Retrieval as the measure of a network in training: whether every photo finds those of its class."""

from collections.abc import Callable, Sequence

import numpy as np

from delf_d2r.codebook import Codebook
from delf_d2r.data.training.training_examples import Examples
from delf_d2r.errors import UserError
from delf_d2r.evaluation.average_precision import average_precision
from delf_d2r.extractors.resize import resize
from delf_d2r.index.inverted_index import InvertedIndex
from delf_d2r.kernels.aggregation import Kernel, aggregate
from delf_d2r.kernels.assignment import ExactAssigner
from delf_d2r.protos import training_pb2

# A word of fewer descriptors would mean little.
_DESCRIPTORS_PER_WORD = 4
_ITERATIONS = 10


class RetrievalValidation:
  """Leave-one-out mean average precision of labelled photos with ASMK*."""

  def __init__(self, config: training_pb2.ValidationConfig, examples: Examples, *, seed: int):
    """Takes the photos and reads their labels.

    Raises:
      UserError: no two of the photos that are used belong to one class.
    """
    self._config = config
    self._seed = seed
    total = len(examples)
    count = min(config.max_photos or total, total)
    numbers = np.unique(np.linspace(0, total - 1, count).astype(int)).tolist() if count else []
    photos = [examples.read(number, min_side=2 * config.image_size) for number in numbers]
    # Kept at their final size, since every validation needs them.
    self._images = [resize(photo.image, max_size=config.image_size, min_size=0) for photo in photos]
    self._labels = np.array([photo.label for photo in photos], np.int64)
    labels, counts = np.unique(self._labels, return_counts=True)
    if not np.any(counts[labels >= 0] > 1):
      raise UserError(
        f'{examples.source}: no two of its {len(photos)} photos for validation have the same label; give'
        ' photos with labels, several for each class, or another validation.metric'
      )

  def __call__(self, describe: Callable[[np.ndarray], np.ndarray]) -> float:
    """Returns the mAP in [0, 1] of a function from uint8 [H, W, 3] to float32 [N, D]."""
    descriptors = [describe(image) for image in self._images]
    return leave_one_out(descriptors, self._labels, num_words=self._config.num_words, seed=self._seed)

  def by_cosines(self, describe: Callable[[np.ndarray], np.ndarray]) -> float:
    """Returns the mAP in [0, 1] of a function from uint8 [H, W, 3] to a unit vector float32 [G]."""
    return leave_one_out_by_cosines(np.stack([describe(image) for image in self._images]), self._labels)


def leave_one_out_by_cosines(units: np.ndarray, labels: np.ndarray) -> float:
  """Returns the mean average precision when each photo is a query for the others of its class.

  Args:
    units: unit vectors float32 [M, G]; equally near photos are ranked by their number.
    labels: int [M]; photos with a negative label are distractors.

  Returns:
    mAP in [0, 1] over the photos whose class has others; NaN if there are none, or a value is not finite.
  """
  if not np.isfinite(units).all():
    return float('nan')
  precisions = []
  for number, label in enumerate(labels):
    if label >= 0:
      ranked = np.argsort(-(units @ units[number]), kind='stable')
      is_positive = labels[ranked[ranked != number]] == label
      if is_positive.any():
        precisions.append(average_precision(np.flatnonzero(is_positive)))
  return float(np.mean(precisions)) if precisions else float('nan')


def leave_one_out(
  descriptors: Sequence[np.ndarray], labels: np.ndarray, *, num_words: int, seed: int
) -> float:
  """Returns the mean average precision when each photo is a query for the others of its class.

  The codebook is trained on the same descriptors.

  Args:
    descriptors: of M photos, float32 [N_i, D].
    labels: int [M]; photos with a negative label are distractors.
    num_words: K; fewer where there are few descriptors.
    seed: of the codebook.

  Returns:
    mAP in [0, 1] over the photos whose class has others; NaN if there are none.
  """
  everything = np.concatenate(descriptors)
  num_words = max(1, min(num_words, len(everything) // _DESCRIPTORS_PER_WORD))
  if len(everything) < num_words or not np.isfinite(everything).all():
    return float('nan')
  codebook = Codebook.train(everything, num_words=num_words, iterations=_ITERATIONS, seed=seed)
  centroids = codebook.centroids
  assign = ExactAssigner(centroids)
  photos = [aggregate(item, assign(item), centroids, kernel=Kernel.ASMK_STAR) for item in descriptors]
  index = InvertedIndex.build(
    photos, list(map(str, range(len(photos)))), num_words=num_words, kernel=Kernel.ASMK_STAR
  )
  precisions = []
  for number, label in enumerate(labels):
    others = np.setdiff1d(np.flatnonzero(labels == label), [number])
    if label >= 0 and len(others):
      ranked = index.search(photos[number], top_k=None).image_ids
      ranked = ranked[ranked != number]
      precisions.append(average_precision(np.flatnonzero(np.isin(ranked, others))))
  return float(np.mean(precisions)) if precisions else float('nan')
