"""`.delf` files of the research code: local features of an image, crop or query (docs/reference.md 1.2)."""

import pathlib

import numpy as np
from google.protobuf.message import DecodeError

from delf_d2r.data import files
from delf_d2r.protos import delf_feature_pb2
from delf_d2r.structures import LocalFeatures

EXTENSION = '.delf'


def encode(features: LocalFeatures) -> bytes:
  """The bytes of a file; the orientation, which these features do not have, is 0 as DELF's is there."""
  message = delf_feature_pb2.DelfFeatures()
  # Lists: several times as fast as rows of arrays here.
  columns = (features.locations, features.scales, features.attention, features.descriptors)
  for (y, x), scale, strength, descriptor in zip(*(column.tolist() for column in columns), strict=True):
    feature = message.feature.add(x=x, y=y, scale=scale, orientation=0.0, strength=strength)
    feature.descriptor.shape.dim.append(len(descriptor))
    feature.descriptor.float_list.value.extend(descriptor)
  return message.SerializeToString(deterministic=True)


def decode(data: bytes) -> LocalFeatures:
  """The inverse of `encode`; of orientations nothing is kept. Of no features D is unknown: (0, 0).

  Raises:
    ValueError: it is no such file, features differ in their dimensions, or a number is not finite.
  """
  try:
    found = delf_feature_pb2.DelfFeatures.FromString(data).feature
  except DecodeError as error:
    raise ValueError(str(error)) from None
  if data and not found:
    raise ValueError('no features in it')
  values = [feature.descriptor.float_list.value for feature in found]
  # A message of another kind has features without descriptors.
  for number, (feature, descriptor) in enumerate(zip(found, values, strict=True)):
    shape = feature.descriptor.shape.dim
    if not descriptor or shape != [len(descriptor)]:
      raise ValueError(f'feature {number}: a descriptor of shape {list(shape)} with {len(descriptor)} floats')
    if len(descriptor) != len(values[0]):
      raise ValueError(f'feature {number} has {len(descriptor)} dimensions, those before {len(values[0])}')
  dimensions = len(values[0]) if values else 0
  descriptors = np.array([np.array(row, np.float32) for row in values], np.float32)
  frame = np.array([(f.y, f.x, f.scale, f.strength) for f in found], np.float32).reshape(-1, 4)
  if not (np.isfinite(descriptors).all() and np.isfinite(frame).all()):
    raise ValueError('it has numbers that are not finite')
  return LocalFeatures(frame[:, :2], frame[:, 2], frame[:, 3], descriptors.reshape(len(found), dimensions))


def write(path: str | pathlib.Path, features: LocalFeatures) -> None:
  """Writes one file."""
  files.write_atomically(pathlib.Path(path), encode(features))


def read(path: str | pathlib.Path) -> LocalFeatures:
  """The features of one file, locations in the frame of what was extracted: for a box, of its crop.

  Raises:
    UserError: it is missing or damaged.
  """
  with files.readable(path, f'a {EXTENSION} file'):
    return decode(pathlib.Path(path).read_bytes())
