"""`.delf` files of the tensorflow/models DELF code: features of an image or crop (docs/reference.md 1.2)."""

import pathlib

import numpy as np
from google.protobuf.message import DecodeError

from delf_d2r.data import files
from delf_d2r.protos import delf_feature_pb2
from delf_d2r.structures import LocalFeatures

EXTENSION = '.delf'


def encode(features: LocalFeatures) -> bytes:
  """Encodes features; their orientation, which they do not have, is 0 like that of DELF in that code."""
  message = delf_feature_pb2.DelfFeatures()
  # protobuf takes lists several times as fast as rows of arrays.
  columns = (features.locations, features.scales, features.attention, features.descriptors)
  for (y, x), scale, strength, descriptor in zip(*(column.tolist() for column in columns), strict=True):
    feature = message.feature.add(x=x, y=y, scale=scale, orientation=0.0, strength=strength)
    feature.descriptor.shape.dim.append(len(descriptor))
    feature.descriptor.float_list.value.extend(descriptor)
  return message.SerializeToString(deterministic=True)


def decode(data: bytes) -> LocalFeatures:
  """Decodes the inverse of `encode`, without orientations.

  Returns:
    N features. If there are none, D is unknown and the descriptors have the shape (0, 0).

  Raises:
    ValueError: the data have another format, descriptors differ in dimensions, or a value is not finite.
  """
  try:
    found = delf_feature_pb2.DelfFeatures.FromString(data).feature
  except DecodeError as error:
    raise ValueError(str(error)) from None
  if data and not found:
    raise ValueError('it contains no features')
  values = [feature.descriptor.float_list.value for feature in found]
  # Data of another format may parse as features without descriptors.
  for number, (feature, descriptor) in enumerate(zip(found, values, strict=True)):
    shape = feature.descriptor.shape.dim
    if not descriptor or shape != [len(descriptor)]:
      raise ValueError(f'feature {number}: a descriptor of shape {list(shape)} with {len(descriptor)} floats')
    if len(descriptor) != len(values[0]):
      raise ValueError(f'feature {number} has {len(descriptor)} dimensions, the first has {len(values[0])}')
  dimensions = len(values[0]) if values else 0
  descriptors = np.array([np.array(row, np.float32) for row in values], np.float32)
  frame = np.array([(f.y, f.x, f.scale, f.strength) for f in found], np.float32).reshape(-1, 4)
  if not (np.isfinite(descriptors).all() and np.isfinite(frame).all()):
    raise ValueError('it has values that are not finite')
  return LocalFeatures(frame[:, :2], frame[:, 2], frame[:, 3], descriptors.reshape(len(found), dimensions))


def write(path: str | pathlib.Path, features: LocalFeatures) -> None:
  """Writes one file."""
  files.write_output(pathlib.Path(path), encode(features))


def read(path: str | pathlib.Path) -> LocalFeatures:
  """Reads the features of one file. Locations are in the frame of the image or, for a box, of its crop.

  Raises:
    UserError: the file is missing or damaged.
  """
  with files.format_errors(path, f'a {EXTENSION} file'):
    return decode(pathlib.Path(path).read_bytes())
