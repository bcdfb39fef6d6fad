"""Checks of the records of boxes, features and aggregated descriptors, one after the other."""

import array
import hashlib
from collections.abc import Callable, Iterator

import numpy as np

from delf_d2r.data.artefacts import records
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.doctor.findings import Finding, FindingCounter, error, warning
from delf_d2r.extractors import registry
from delf_d2r.protos.aggregation_pb2 import AggregationConfig
from delf_d2r.structures import WHOLE_IMAGE, AggregatedDescriptor, ImageFeatures

# Far above the rounding of half-precision networks and of sums of a thousand float32 squares.
UNIT_TOLERANCE = 1e-2


class Names:
  """A digest of names in order, and the names that occur twice; takes 8 bytes for each name."""

  def __init__(self):
    self._all = hashlib.sha256()
    self._digests = array.array('Q')

  def add(self, name: str) -> None:
    """Adds the next name."""
    encoded = name.encode('utf-8', 'surrogateescape')
    self._all.update(len(encoded).to_bytes(8, 'little') + encoded)
    self._digests.append(_digest(name))

  def __len__(self) -> int:
    return len(self._digests)

  @property
  def digest(self) -> str:
    """A digest that is equal for equal names in equal order."""
    return self._all.hexdigest()[:16]

  def twice(self, again: Callable[[], Iterator[str]]) -> FindingCounter:
    """Counts the names that occur more than once.

    Args:
      again: yields all names a second time.
    """
    digests = np.sort(np.frombuffer(self._digests, np.uint64)) if self._digests else np.zeros(0, np.uint64)
    suspects = set(digests[1:][digests[1:] == digests[:-1]].tolist())
    counter, seen = FindingCounter(), set()
    for name in again() if suspects else ():
      if _digest(name) in suspects:
        if name in seen:
          counter.add(name)
        seen.add(name)
    return counter


def _digest(name: str) -> int:
  encoded = name.encode('utf-8', 'surrogateescape')
  return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), 'little')


class RecordCheck:
  """One pass over the records of an artefact.

  Attributes:
    names: names of the images, in order; complete after `run`.
    dimensions: D; 0 if there are no descriptors.
  """

  def __init__(self, artefact: Artefact):
    self._artefact = artefact
    self._are_queries = artefact.input('queries') is not None
    self._extractor = registry.record(artefact.config.extraction.extractor)
    self._again = f'Delete {artefact.path} and run its stage again'
    self._problems: dict[tuple, FindingCounter] = {}
    self.names = Names()
    self.dimensions = 0

  def run(self) -> Iterator[Finding]:
    """Yields findings.

    Raises:
      ArtefactError: a record cannot be read.
    """
    look = {'boxes': self._boxes, 'features': self._features, 'descriptors': self._descriptors}
    for data in self._artefact.records():
      look[self._artefact.manifest.kind](data)
    for (make, problem, remedy), counter in self._problems.items():
      yield make(self._artefact.path, f'{problem}: {counter}', remedy)
    twice = self.names.twice(lambda: (records.Record(data).name for data in self._artefact.records()))
    if twice:
      yield error(self._artefact.path, f'images that occur twice: {twice}', self._again)
    images = self._artefact.counts.get('images')
    if images is not None and images != len(self.names):
      yield error(
        self._artefact.path, f'the manifest says {images} images, there are {len(self.names)}', self._again
      )

  def _found(self, name: str, problem: str, wrong, *, remedy: str = '', make=error) -> None:
    """Counts an image if `wrong`, a bool or an array of bools, is true anywhere."""
    if np.any(wrong):
      self._problems.setdefault((make, problem, remedy or self._again), FindingCounter()).add(name)

  def _check_dimensions(self, name: str, dimensions: int) -> None:
    self.dimensions = self.dimensions or dimensions
    self._found(name, f'images of other than {self.dimensions} dimensions', dimensions != self.dimensions)

  def _boxes(self, data: bytes) -> None:
    name, boxes = records.decode_boxes(data)
    self.names.add(name)
    self._found(name, 'images with scores that are not finite', ~np.isfinite(boxes.scores))
    self._found(name, 'images with boxes outside [0, 1] or without area', _bad_boxes(boxes.coordinates))

  def _features(self, data: bytes) -> None:
    image = records.decode_features(data)
    name, features = image.name, image.features
    self.names.add(name)
    self._found(
      name,
      'images without features',
      not len(features),
      remedy='No search can find them: lower extraction.min_attention or root_sift.contrast_threshold',
      make=warning,
    )
    if len(features):
      self._check_dimensions(name, features.dimensions)
    numbers = (features.descriptors, features.locations, features.scales, features.attention)
    finite = all(np.isfinite(part).all() for part in numbers)
    self._found(name, 'images with numbers that are not finite', not finite)
    if finite:
      origins = self._extractor.unit_origins(features.dimensions)
      off = len(origins) > 0 and np.all(
        [_not_unit(features.descriptors - origin) for origin in origins], axis=0
      )
      self._found(name, 'images with descriptors that are not of length 1', off)
      self._found(name, 'images with features outside the photo', _outside(image))
    self._found(name, 'images with boxes outside [0, 1] or without area', _bad_boxes(image.boxes))
    # The only region of a query is its box.
    is_whole = len(image.boxes) and (self._are_queries or np.allclose(image.boxes[0], WHOLE_IMAGE))
    self._found(name, 'images whose region 0 is not the whole', not is_whole)

  def _descriptors(self, data: bytes) -> None:
    image = records.decode_descriptors(data)
    self.names.add(image.name)
    self._found(
      image.name,
      'images without visual words',
      not any(map(len, image.descriptors)),
      remedy='No search can find them: they have no features',
      make=warning,
    )
    kernel = self._artefact.config.aggregation.kernel
    for descriptor in image.descriptors:
      self._check_dimensions(image.name, descriptor.dimensions)
      self._descriptor(image.name, descriptor, kernel)

  def _descriptor(self, name: str, descriptor: AggregatedDescriptor, kernel: int) -> None:
    words, values = descriptor.visual_words, descriptor.values
    self._found(name, 'images whose visual words do not ascend', words[1:] <= words[:-1])
    masks, has_masks = descriptor.region_masks, self._artefact.config.aggregation.region_masks
    wanted = 'with' if has_masks else 'without'
    self._found(name, f'images that are not {wanted} region masks', (masks is not None) != has_masks)
    self._found(name, 'images with words of no region', masks is not None and not np.all(masks))
    is_binary = kernel == AggregationConfig.ASMK_STAR
    self._found(
      name,
      f'images of another kernel than {AggregationConfig.Kernel.Name(kernel)}',
      is_binary != descriptor.is_binary,
    )
    if descriptor.is_binary:
      return
    self._found(name, 'images with numbers that are not finite', ~np.isfinite(values))
    if kernel == AggregationConfig.ASMK and np.isfinite(values).all():
      off = _not_unit(values)
      self._found(name, 'images with words whose values are not of length 1', off)


def _not_unit(rows: np.ndarray) -> np.ndarray:
  return np.asarray(np.abs(np.linalg.norm(rows, axis=1) - 1) > UNIT_TOLERANCE)


def _bad_boxes(boxes: np.ndarray) -> np.ndarray:
  # Written so that NaN counts as an error.
  low, high = boxes[:, :2], boxes[:, 2:]
  return np.asarray(~((low >= 0) & (low < high) & (high <= 1)).all(axis=1))


def _outside(image: ImageFeatures) -> np.ndarray:
  # Rounding may put the centre of a patch at the edge slightly outside.
  size = np.array([image.height, image.width]) + 1
  locations = image.features.locations
  return np.asarray(((locations < -1) | (locations > size)).any(axis=1))
