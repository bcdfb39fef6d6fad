"""Photos with boxes as tf.train.Example, in the format of the TensorFlow Object Detection API.

Fields of the photo: `image/encoded`, `image/format`, `image/height`, `image/width`, `image/filename` and
`image/source_id`. Fields of its objects, lists of equal length: `image/object/bbox/{ymin,xmin,ymax,xmax}` in
[0, 1], `image/object/class/{label,text}` and `image/object/group`, an addition of this project: the landmark
or object, so that training can hold some out. `tf.io.parse_single_example` and tf-models-official read these
records.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from google.protobuf.message import DecodeError

from delf_d2r.data.photos import images
from delf_d2r.errors import ArtefactError, ImageError
from delf_d2r.protos import example_pb2

FORMATS = ('jpeg', 'png')
_SIDES = ('ymin', 'xmin', 'ymax', 'xmax')


@dataclasses.dataclass(frozen=True)
class DetectionExample:
  """One photo with its objects.

  Attributes:
    name: name of the photo.
    source_id: number of the photo, its identity for detection metrics.
    encoded: content of the file of the photo: upright, 8 bits, RGB or grey.
    format: one of FORMATS.
    height, width: size of the photo in pixels.
    boxes: float32 [R, 4], `[ymin, xmin, ymax, xmax]`, normalised, with positive areas.
    labels: int64 [R], class numbers from 1.
    texts: names of the classes of the R objects.
    groups: the landmark or object of each of the R objects; '' if unknown.

  Raises:
    ValueError: lengths differ, or a value is out of range.
  """

  name: str
  source_id: int
  encoded: bytes
  format: str
  height: int
  width: int
  boxes: np.ndarray
  labels: np.ndarray
  texts: tuple[str, ...]
  groups: tuple[str, ...]

  def __post_init__(self) -> None:
    boxes, n = self.boxes, len(self.boxes)
    lengths = {'labels': len(self.labels), 'texts': len(self.texts), 'groups': len(self.groups)}
    if np.shape(boxes) != (n, 4) or set(lengths.values()) != {n}:
      raise ValueError(
        f'{self.name}: expected boxes [R, 4] and R of the others, found {boxes.shape}, {lengths}'
      )
    if self.format not in FORMATS:
      raise ValueError(f'{self.name}: expected the format {" or ".join(FORMATS)}, found {self.format!r}')
    if min(self.height, self.width) < 1:
      raise ValueError(f'{self.name}: expected a size of at least 1 x 1, found {self.height} x {self.width}')
    low, high = boxes[:, :2], boxes[:, 2:]
    wrong = ~np.all((low >= 0) & (low < high) & (high <= 1), axis=1)
    if wrong.any():
      raise ValueError(
        f'{self.name}: box {boxes[wrong][0].tolist()} must satisfy 0 <= min < max <= 1 in height and width'
      )
    if np.any(self.labels < 1):
      raise ValueError(f'{self.name}: expected class numbers from 1, found {int(self.labels.min())}')

  def image(self) -> np.ndarray:
    """Decodes the photo: uint8 [height, width, 3], RGB.

    Raises:
      ImageError: the photo is damaged or has another size.
    """
    pixels = images.load_image(self.encoded, name=f'{self.name}: its photo', apply_exif_orientation=False)
    if pixels.shape[:2] != (self.height, self.width):
      raise ImageError(
        f'{self.name}: the record says {self.height} x {self.width}, the photo is {pixels.shape[0]} x'
        f' {pixels.shape[1]}'
      )
    return pixels


def encode(example: DetectionExample) -> bytes:
  """Encodes an example as a record; equal examples give equal bytes."""
  proto = example_pb2.Example()
  feature = proto.features.feature

  def put(key: str, kind: str, values: Sequence) -> None:
    # Without objects, the lists are present but empty.
    target = getattr(feature[f'image/{key}'], kind)
    target.SetInParent()
    target.value.extend(values)

  put('encoded', 'bytes_list', [example.encoded])
  put('format', 'bytes_list', [example.format.encode()])
  put('height', 'int64_list', [example.height])
  put('width', 'int64_list', [example.width])
  put('filename', 'bytes_list', [example.name.encode()])
  put('source_id', 'bytes_list', [str(example.source_id).encode()])
  for column, side in enumerate(_SIDES):
    put(f'object/bbox/{side}', 'float_list', example.boxes[:, column].tolist())
  put('object/class/label', 'int64_list', example.labels.tolist())
  put('object/class/text', 'bytes_list', [text.encode() for text in example.texts])
  put('object/group', 'bytes_list', [group.encode() for group in example.groups])
  return proto.SerializeToString(deterministic=True)


def decode(data: bytes) -> DetectionExample:
  """Decodes the inverse of `encode`, and records of the Object Detection API, which have no groups.

  Raises:
    ArtefactError: a field is missing, lists differ in length, or a box or class number is invalid.
  """
  try:
    feature = example_pb2.Example.FromString(data).features.feature
  except DecodeError as error:
    raise ArtefactError(f'a record is no tf.train.Example ({error})') from None

  def get(key: str, kind: str) -> list:
    # The test avoids that the protobuf map inserts the key.
    key = f'image/{key}'
    return list(getattr(feature[key], kind).value) if key in feature else []

  def one(key: str, kind: str):
    values = get(key, kind)
    if len(values) != 1:
      raise ArtefactError(f'record field image/{key}: expected one value, found {len(values)}')
    return values[0]

  def texts(key: str, number: int) -> tuple[str, ...]:
    return tuple(value.decode() for value in get(key, 'bytes_list')) or ('',) * number

  try:
    sides = [get(f'object/bbox/{side}', 'float_list') for side in _SIDES]
    boxes = np.array(sides, np.float32).T.reshape(-1, 4)
    return DetectionExample(
      name=one('filename', 'bytes_list').decode(),
      source_id=int(one('source_id', 'bytes_list')),
      encoded=one('encoded', 'bytes_list'),
      format=one('format', 'bytes_list').decode(),
      height=one('height', 'int64_list'),
      width=one('width', 'int64_list'),
      boxes=boxes,
      labels=np.array(get('object/class/label', 'int64_list'), np.int64),
      texts=texts('object/class/text', len(boxes)),
      groups=texts('object/group', len(boxes)),
    )
  except ArtefactError:
    raise
  except ValueError as error:
    raise ArtefactError(f'a record contradicts itself: {error}') from None


def label_map(classes: Sequence[str]) -> str:
  """Returns the label map of classes, numbered from 1, in the text format of the Object Detection API."""
  return ''.join(
    f'item {{\n  id: {number}\n  name: {_quoted(name)}\n}}\n' for number, name in enumerate(classes, 1)
  )


def _quoted(text: str) -> str:
  escaped = text.replace('\\', '\\\\').replace("'", "\\'").replace('\n', '\\n').replace('\r', '\\r')
  return f"'{escaped}'"
