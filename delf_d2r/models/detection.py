"""A detector as a source of boxes: uint8 [H, W, 3] to Boxes, on any SavedModel."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from delf_d2r.models.saved_models import detections
from delf_d2r.models.saved_models.detections import DetectionModel, Detections
from delf_d2r.structures import Boxes


class BoxDetector:
  """Boxes of the wanted classes.

  Attributes:
    note: what to tell the user if the class filter removes every box of some images; '' so far.
  """

  def __init__(self, model: DetectionModel, *, classes: Sequence[int] = ()):
    """Wraps a model; `classes` are the ids to keep, none for all."""
    self._model = model
    self._classes = np.array(sorted(classes), np.int64)
    self.note = ''

  def __call__(self, image: np.ndarray) -> Boxes:
    """The boxes of uint8 [H, W, 3]: as the model has them, neither clipped nor sorted."""
    return self.batch([image])[0]

  def batch(self, images: Sequence[np.ndarray]) -> list[Boxes]:
    """The boxes of each image; neighbours of one size go through the network together if it can do it."""
    found: list[Detections] = []
    for group in self._groups(images):
      found += self._model.detect(np.stack(group))
    return list(map(self._wanted, found))

  def _groups(self, images: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    if not self._model.takes_batches:
      yield from ([image] for image in images)
      return
    for _, group in itertools.groupby(images, key=np.shape):
      yield list(group)

  def _wanted(self, found: Detections) -> Boxes:
    if not len(self._classes):
      return Boxes(found.boxes, found.scores)
    kept = np.isin(found.classes, self._classes)
    if len(kept) and not np.any(kept):
      self.note = (
        f'regions.detector.classes {self._classes.tolist()} removes every box of some photos; those of one'
        f' have the classes {np.unique(found.classes).tolist()}. Remove regions.detector.classes to keep all'
      )
    return Boxes(found.boxes[kept], found.scores[kept])


def load(path: str, *, classes: Sequence[int] = ()) -> BoxDetector:
  """The detector of a SavedModel directory or a handle of TensorFlow Hub; `classes` as of BoxDetector.

  Raises:
    UserError: nothing is there, or it is no detector.
  """
  return BoxDetector(detections.load(path), classes=classes)
