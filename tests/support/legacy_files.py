"""Files of the tensorflow/models DELF code, written by hand according to docs/reference.md 1 to 4.

They do not use the writers of the library, so an error in a writer cannot compensate one in a reader.
"""

import struct

import numpy as np
from PIL import Image

from delf_d2r.data.photos.dataset import Dataset

CONFIG = """
model_path: "parameters/delf_gld_20190411/model"
image_scales: 1.0
delf_local_config {
  use_pca: true
  max_feature_num: 1000
  score_threshold: 100.0
  pca_parameters { mean_path: "mean.datum" projection_matrix_path: "pca_proj_mat.datum" pca_dim: 3 }
}
"""


def varint(value):
  """Encodes an unsigned integer as a varint: seven bits at a time, the lowest first."""
  found = bytearray()
  while value > 127:
    found.append(value % 128 + 128)
    value //= 128
  return bytes([*found, value])


def submessage(field, data):
  return varint(field * 8 + 2) + varint(len(data)) + data


def fixed(field, value):
  return varint(field * 8 + 5) + struct.pack('<f', value)


def datum(array):
  """Encodes a DatumProto: shape = 1 { dim = 1 }, float_list = 2 or uint32_list = 3 { value = 1 }, packed."""
  shape = submessage(1, submessage(1, b''.join(map(varint, array.shape)) if array.ndim else b''))
  if array.dtype.kind == 'f':
    values, field = b''.join(struct.pack('<f', value) for value in array.ravel()), 2
  else:
    values, field = b''.join(varint(int(value)) for value in array.ravel()), 3
  # An empty packed field is left out, its message is not.
  return shape + submessage(field, submessage(1, values) if values else b'')


def pair(first, second):
  """Encodes a DatumPairProto: first = 1, second = 2."""
  return submessage(1, datum(first)) + submessage(2, datum(second))


def delf(locations, descriptors, *, scale=1.5, orientation=0.0, strength=120.0):
  """Encodes DelfFeatures: N feature = 1 { descriptor 1, x 2, y 3, scale 4, orientation 5, strength 6 }."""
  found = b''
  for n, ((y, x), descriptor) in enumerate(zip(locations, descriptors, strict=True)):
    values = (x, y, scale, orientation, strength - n)
    numbers = b''.join(fixed(field, value) for field, value in enumerate(values, start=2))
    found += submessage(1, submessage(1, datum(np.asarray(descriptor, np.float32))) + numbers)
  return found


def boxes(rows):
  """Encodes Boxes: box = 1 { ymin 1, xmin 2, ymax 3, xmax 4, score 5, class_index 6 }, from rows of five."""
  return b''.join(
    submessage(1, b''.join(fixed(i, value) for i, value in enumerate(row, start=1)) + varint(48) + varint(1))
    for row in rows
  )


def photos(folder, sizes):
  """Photos of one colour, by name their (height, width)."""
  for name, (height, width) in sizes.items():
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (width, height), (90, 120, 60)).save(folder / name)
  return Dataset.load(folder)


def unit(rows, dimensions=3, seed=0):
  """Returns random vectors of unit length: float32 [rows, D]."""
  found = np.random.default_rng(seed).normal(size=(rows, dimensions)).astype(np.float32)
  return found / np.linalg.norm(found, axis=1, keepdims=True)
