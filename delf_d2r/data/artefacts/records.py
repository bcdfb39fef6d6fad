"""Records: the values of structures.py as bytes of tf.train.Example.

A record holds a UTF-8 `name`, integers, and arrays. An array `x` is three features: `x` (raw little-endian
bytes, row-major), `x/dtype` (NumPy's name of the type) and `x/shape`. In TensorFlow:
`tf.reshape(tf.io.decode_raw(example['descriptors'], tf.float32), example['descriptors/shape'])`.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
from google.protobuf.message import DecodeError

from delf_d2r.errors import ArtefactError
from delf_d2r.protos import example_pb2
from delf_d2r.structures import FEATURE_ARRAYS, AggregatedDescriptor, Boxes, ImageFeatures, LocalFeatures

T = TypeVar('T')

_DTYPES = {name: np.dtype(name).newbyteorder('<') for name in ('float32', 'uint8', 'uint32', 'int64')}


def encode(name: str, integers: Mapping[str, int], arrays: Mapping[str, np.ndarray]) -> bytes:
  """Returns a record; equal values give equal bytes.

  Args:
    name: of the image.
    integers: by field.
    arrays: by field; float32, uint8, uint32 or int64.
  """
  example = example_pb2.Example()
  feature = example.features.feature
  feature['name'].bytes_list.value.append(name.encode())
  for key, value in integers.items():
    feature[key].int64_list.value.append(value)
  for key, array in arrays.items():
    dtype = _DTYPES[array.dtype.name]
    feature[key].bytes_list.value.append(np.ascontiguousarray(array, dtype).tobytes())
    feature[f'{key}/dtype'].bytes_list.value.append(array.dtype.name.encode())
    feature[f'{key}/shape'].int64_list.value.extend(array.shape)
  return example.SerializeToString(deterministic=True)


class Record:
  """A parsed record. Every access checks the field and raises ArtefactError if it is not as expected.

  Attributes:
    name: of the image.
  """

  def __init__(self, data: bytes):
    try:
      self._feature = example_pb2.Example.FromString(data).features.feature
      self.name = self._bytes('name').decode()
    except (DecodeError, UnicodeDecodeError) as error:
      raise ArtefactError(f'a record is no tf.train.Example with a UTF-8 name ({error})') from None

  def __contains__(self, key: str) -> bool:
    """Returns whether there is a field `key`."""
    return key in self._feature

  def integer(self, key: str) -> int:
    """Returns the integer `key`."""
    values = self._get(key).int64_list.value
    if len(values) != 1:
      raise ArtefactError(f'record field {key}: expected one integer, found {len(values)}')
    return values[0]

  def array(self, key: str, rank: int, *dtypes: str) -> np.ndarray:
    """Returns the array `key`, read-only, which must have `rank` axes and one of `dtypes`."""
    name = self._bytes(f'{key}/dtype').decode('ascii', 'replace')
    if name not in dtypes:
      raise ArtefactError(f'record field {key}: expected dtype {" or ".join(dtypes)}, found {name!r}')
    dtype = _DTYPES[name]
    shape = tuple(self._get(f'{key}/shape').int64_list.value)
    data = self._bytes(key)
    size = math.prod(shape) * dtype.itemsize
    if len(shape) != rank or min(shape, default=0) < 0 or size != len(data):
      raise ArtefactError(f'record field {key}: {len(data)} bytes do not fill shape {shape} of {dtype.name}')
    try:
      return np.frombuffer(data, dtype).reshape(shape)
    except ValueError as error:
      # Shape (0, 2^62) needs no bytes, but is larger than NumPy allows.
      raise ArtefactError(f'record field {key}: shape {shape} ({error})') from None

  def _bytes(self, key: str) -> bytes:
    values = self._get(key).bytes_list.value
    if len(values) != 1:
      raise ArtefactError(f'record field {key}: expected one value, found {len(values)}')
    return values[0]

  def _get(self, key: str) -> example_pb2.Feature:
    if key not in self._feature:
      raise ArtefactError(f'a record has no field {key}; was it written by another kind of stage?')
    return self._feature[key]


def checking(decode: Callable[[bytes], T]) -> Callable[[bytes], T]:
  """Makes a function that decodes records raise ArtefactError where values contradict each other.

  The constructors of structures.py raise ValueError for such values, which in a record are damage.
  """

  @functools.wraps(decode)
  def checked(data: bytes) -> T:
    try:
      return decode(data)
    except ArtefactError:
      raise
    except ValueError as error:
      raise ArtefactError(f'a record contradicts itself: {error}') from None

  return checked


def encode_features(image: ImageFeatures) -> bytes:
  """Returns ImageFeatures as a record."""
  arrays = {name: getattr(image.features, name) for name in FEATURE_ARRAYS}
  return encode(
    image.name,
    {'height': image.height, 'width': image.width},
    {'boxes': image.boxes, 'region_offsets': image.region_offsets, **arrays},
  )


@checking
def decode_features(data: bytes) -> ImageFeatures:
  """Inverts `encode_features`; raises ArtefactError for anything else."""
  record = Record(data)
  ranks = {'locations': 2, 'scales': 1, 'attention': 1, 'descriptors': 2}
  return ImageFeatures(
    name=record.name,
    height=record.integer('height'),
    width=record.integer('width'),
    boxes=record.array('boxes', 2, 'float32'),
    region_offsets=record.array('region_offsets', 1, 'int64'),
    features=LocalFeatures(**{name: record.array(name, ranks[name], 'float32') for name in FEATURE_ARRAYS}),
  )


def encode_boxes(name: str, boxes: Boxes) -> bytes:
  """Returns the boxes of one image as a record."""
  return encode(name, {}, {'boxes': boxes.coordinates, 'scores': boxes.scores})


@checking
def decode_boxes(data: bytes) -> tuple[str, Boxes]:
  """Inverts `encode_boxes`: returns the name of the image and its boxes."""
  record = Record(data)
  return record.name, Boxes(record.array('boxes', 2, 'float32'), record.array('scores', 1, 'float32'))


@dataclasses.dataclass(frozen=True)
class ImageDescriptors:
  """The aggregated descriptors of one image, which are its entries in the index.

  Attributes:
    name: the image's name.
    boxes: float32 [R, 4], the regions that were aggregated; row 0 is the whole image.
    descriptors: one aggregated descriptor, or R of them for regional search.
  """

  name: str
  boxes: np.ndarray
  descriptors: list[AggregatedDescriptor]


def encode_descriptors(image: ImageDescriptors) -> bytes:
  """Returns the aggregated descriptors of one image, at least one, as a record."""
  descriptors = image.descriptors
  offsets = np.cumsum([0, *(len(descriptor) for descriptor in descriptors)], dtype=np.int64)
  arrays = {
    'boxes': image.boxes,
    'descriptor_offsets': offsets,
    'visual_words': np.concatenate([descriptor.visual_words for descriptor in descriptors]),
    'values': np.concatenate([descriptor.values for descriptor in descriptors]),
  }
  masks = [descriptor.region_masks for descriptor in descriptors if descriptor.region_masks is not None]
  if masks:
    arrays['region_masks'] = np.concatenate(masks)
  return encode(image.name, {'dimensions': descriptors[0].dimensions}, arrays)


@checking
def decode_descriptors(data: bytes) -> ImageDescriptors:
  """Inverts `encode_descriptors`."""
  record = Record(data)
  offsets = record.array('descriptor_offsets', 1, 'int64')
  words = record.array('visual_words', 1, 'uint32')
  values = record.array('values', 2, 'float32', 'uint8')
  masks = record.array('region_masks', 1, 'uint8') if 'region_masks' in record else None
  dimensions = record.integer('dimensions')
  if len(offsets) < 1 or offsets[0] != 0 or offsets[-1] != len(words) or np.any(offsets[1:] < offsets[:-1]):
    raise ArtefactError(f'{record.name}: descriptor_offsets do not divide {len(words)} visual words')
  if masks is not None and masks.shape != words.shape:
    raise ArtefactError(f'{record.name}: {len(masks)} region_masks of {len(words)} visual words')
  descriptors = [
    AggregatedDescriptor(
      words[start:end], values[start:end], dimensions, None if masks is None else masks[start:end]
    )
    for start, end in itertools.pairwise(offsets)
  ]
  return ImageDescriptors(record.name, record.array('boxes', 2, 'float32'), descriptors)


@dataclasses.dataclass(frozen=True)
class DescriptorsOutline:
  """`ImageDescriptors` without the descriptors.

  Attributes:
    name: the image's name.
    boxes: float32 [R, 4].
    num_descriptors: how many there are.
  """

  name: str
  boxes: np.ndarray
  num_descriptors: int


def outline_descriptors(data: bytes) -> DescriptorsOutline:
  """Returns the outline of a record of `encode_descriptors`, in half of the time that decoding it takes."""
  record = Record(data)
  offsets = record.array('descriptor_offsets', 1, 'int64')
  return DescriptorsOutline(record.name, record.array('boxes', 2, 'float32'), max(len(offsets) - 1, 0))
