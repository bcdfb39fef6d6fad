"""The records of boxes, features and aggregated descriptors, one after the other."""

import array
import hashlib
from collections.abc import Callable, Iterator

import numpy as np

from delf_d2r.data.artefacts import records
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.doctor.findings import Finding, FindingCounter, error, warning
from delf_d2r.extractors import joined
from delf_d2r.protos.aggregation_pb2 import AggregationConfig
from delf_d2r.protos.extraction_pb2 import ExtractionConfig
from delf_d2r.structures import WHOLE_IMAGE, AggregatedDescriptor, ImageFeatures

# Half-precision networks, and sums of a thousand float32 squares, stay well within.
UNIT_TOLERANCE = 1e-2


class Names:
  """Names in order, as a digest; and which occur twice, at 8 bytes a name."""

  def __init__(self):
    self._all = hashlib.sha256()
    self._digests = array.array('Q')

  def add(self, name: str) -> None:
    """Takes the next name."""
    encoded = name.encode('utf-8', 'surrogateescape')
    self._all.update(len(encoded).to_bytes(8, 'little') + encoded)
    self._digests.append(_digest(name))

  def __len__(self) -> int:
    return len(self._digests)

  @property
  def digest(self) -> str:
    """Equal for equal names in equal order."""
    return self._all.hexdigest()[:16]

  def twice(self, again: Callable[[], Iterator[str]]) -> FindingCounter:
    """The names that occur more than once; `again` yields all of them once more."""
    digests = np.sort(np.frombuffer(self._digests, np.uint64)) if self._digests else np.zeros(0, np.uint64)
    suspects = set(digests[1:][digests[1:] == digests[:-1]].tolist())
    tally, seen = FindingCounter(), set()
    for name in again() if suspects else ():
      if _digest(name) in suspects:
        if name in seen:
          tally.add(name)
        seen.add(name)
    return tally


def _digest(name: str) -> int:
  encoded = name.encode('utf-8', 'surrogateescape')
  return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), 'little')


class RecordCheck:
  """One pass over the records of an artefact.

  Attributes:
    names: of the images, in order.
    dimensions: D where descriptors have one; 0 where there are none.
  """

  def __init__(self, artefact: Artefact):
    self._artefact = artefact
    self._are_queries = artefact.input('queries') is not None
    self._is_joined = artefact.config.extraction.extractor == ExtractionConfig.ROOT_SIFT_AND_DELF
    self._again = f'Delete {artefact.path} and run its stage again'
    self._problems: dict[tuple, FindingCounter] = {}
    self.names = Names()
    self.dimensions = 0

  def run(self) -> Iterator[Finding]:
    """Yields what is wrong; ArtefactError where a record cannot be read."""
    look = {'boxes': self._boxes, 'features': self._features, 'descriptors': self._descriptors}
    for data in self._artefact.records():
      look[self._artefact.manifest.kind](data)
    for (make, problem, remedy), tally in self._problems.items():
      yield make(self._artefact.path, f'{problem}: {tally}', remedy)
    twice = self.names.twice(lambda: (records.Record(data).name for data in self._artefact.records()))
    if twice:
      yield error(self._artefact.path, f'images that are there twice: {twice}', self._again)
    images = self._artefact.counts.get('images')
    if images is not None and images != len(self.names):
      yield error(
        self._artefact.path, f'the manifest says {images} images, there are {len(self.names)}', self._again
      )

  def _found(self, name: str, problem: str, wrong, *, remedy: str = '', make=error) -> None:
    """Counts an image for which `wrong`, a truth or an array of them, holds anywhere."""
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
      remedy='No search finds them: lower extraction.min_attention or root_sift.contrast_threshold',
      make=warning,
    )
    if len(features):
      self._check_dimensions(name, features.dimensions)
    numbers = (features.descriptors, features.locations, features.scales, features.attention)
    finite = all(np.isfinite(part).all() for part in numbers)
    self._found(name, 'images with numbers that are not finite', not finite)
    if finite:
      off = _not_unit(features.descriptors)
      if self._is_joined:
        off &= _not_unit(features.descriptors - joined.offset(features.dimensions))
      self._found(name, 'images with descriptors that are not of length 1', off)
      self._found(name, 'images with features outside the photo', _outside(image))
    self._found(name, 'images with boxes outside [0, 1] or without area', _bad_boxes(image.boxes))
    # A query's one region is its box.
    is_whole = len(image.boxes) and (self._are_queries or np.allclose(image.boxes[0], WHOLE_IMAGE))
    self._found(name, 'images whose region 0 is not the whole', not is_whole)

  def _descriptors(self, data: bytes) -> None:
    image = records.decode_descriptors(data)
    self.names.add(image.name)
    self._found(
      image.name,
      'images without visual words',
      not any(map(len, image.descriptors)),
      remedy='No search finds them: they have no features',
      make=warning,
    )
    kernel = self._artefact.config.aggregation.kernel
    for descriptor in image.descriptors:
      self._check_dimensions(image.name, descriptor.dimensions)
      self._descriptor(image.name, descriptor, kernel)

  def _descriptor(self, name: str, descriptor: AggregatedDescriptor, kernel: int) -> None:
    words, values = descriptor.visual_words, descriptor.values
    self._found(name, 'images whose visual words do not ascend', words[1:] <= words[:-1])
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
  return np.abs(np.linalg.norm(rows, axis=1) - 1) > UNIT_TOLERANCE


def _bad_boxes(boxes: np.ndarray) -> np.ndarray:
  # Written so that NaN is bad.
  low, high = boxes[:, :2], boxes[:, 2:]
  return ~((low >= 0) & (low < high) & (high <= 1)).all(axis=1)


def _outside(image: ImageFeatures) -> np.ndarray:
  # A patch at the edge may have its centre a rounding beyond it.
  size = np.array([image.height, image.width]) + 1
  locations = image.features.locations
  return ((locations < -1) | (locations > size)).any(axis=1)
