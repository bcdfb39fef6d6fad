"""The files of an index artefact beside its manifest.

inverted/                       the inverted index (delf_d2r.index)
codebook.npy                    the codebook, with which photos are aggregated
boxes.npy, box_offsets.npy      float32 [sum R, 4] and int64 [M + 1]: the regions of every image
parts/                          finished segments, while the index is being built
"""

import dataclasses
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from delf_d2r.data import files
from delf_d2r.errors import ArtefactError

INVERTED = 'inverted'
PARTS = 'parts'
BOXES = 'boxes.npy'
BOX_OFFSETS = 'box_offsets.npy'


@dataclasses.dataclass(frozen=True)
class ImageBoxes:
  """The regions of all index images.

  Attributes:
    coordinates: float32 [sum R, 4], normalised `(ymin, xmin, ymax, xmax)`.
    offsets: int64 [M + 1]; image m has the rows `offsets[m]:offsets[m + 1]`.
  """

  coordinates: np.ndarray
  offsets: np.ndarray

  def of(self, image_id: int) -> np.ndarray:
    """Returns the regions of one image, float32 [R, 4], the whole image first; IndexError if it is absent."""
    if not 0 <= image_id < len(self.offsets) - 1:
      raise IndexError(f'expected an image id from 0 to below {len(self.offsets) - 1}, found {image_id}')
    start, end = self.offsets[image_id : image_id + 2]
    return np.array(self.coordinates[start:end])

  def take(self, image_ids: Sequence[int]) -> 'ImageBoxes':
    """Returns the regions of some images, in the order of `image_ids`."""
    return ImageBoxes.of_images([self.of(image_id) for image_id in image_ids])

  def __add__(self, other: 'ImageBoxes') -> 'ImageBoxes':
    """Returns the regions of these images, followed by those of the others."""
    return ImageBoxes(
      np.concatenate([self.coordinates, other.coordinates]),
      np.concatenate([self.offsets, self.offsets[-1] + other.offsets[1:]]),
    )

  @classmethod
  def of_images(cls, boxes: Iterable[np.ndarray]) -> 'ImageBoxes':
    """Joins the regions, float32 [R, 4], of each image."""
    boxes = list(boxes)
    return cls(
      np.concatenate([np.zeros((0, 4), np.float32), *boxes]),
      np.cumsum([0, *map(len, boxes)], dtype=np.int64),
    )


def save_boxes(boxes: Iterable[np.ndarray], directory: pathlib.Path) -> None:
  """Writes the regions, float32 [R, 4], of every image, in order of image id."""
  save_all_boxes(ImageBoxes.of_images(boxes), directory)


def save_all_boxes(boxes: ImageBoxes, directory: pathlib.Path) -> None:
  """Writes regions that are joined already; see `save_boxes`."""
  for name, array in ((BOXES, boxes.coordinates), (BOX_OFFSETS, boxes.offsets)):
    files.save_array(directory / name, array)


def load_boxes(directory: pathlib.Path) -> ImageBoxes:
  """Opens the files of `save_boxes` by memory map.

  Raises:
    ArtefactError: a file is missing or damaged.
  """
  coordinates, offsets = (files.load_array(directory / name) for name in (BOXES, BOX_OFFSETS))
  fits = coordinates.ndim == 2 and coordinates.shape[1] == 4 and offsets.ndim == 1 and len(offsets)
  if not fits or offsets[0] != 0 or offsets[-1] != len(coordinates) or np.any(np.diff(offsets) < 0):
    raise ArtefactError(
      f'{directory}: {BOXES} and {BOX_OFFSETS} do not fit each other. Delete {directory} and build it again'
    )
  return ImageBoxes(coordinates, offsets)
