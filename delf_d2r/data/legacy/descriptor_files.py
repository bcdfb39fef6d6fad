"""Aggregated descriptors in files of the tensorflow/models DELF code, one for each image.

`.vlad` and `.rvlad` hold one dense tensor [K * D], `.asmk` and `.rasmk` a pair of floats [W * D] and words
[W], `.asmk_star` and `.rasmk_star` a pair of bytes [W * ceil(D / 8)] and words [W] (docs/reference.md 2.8).
"""

import pathlib

import numpy as np
from google.protobuf.message import DecodeError

from delf_d2r.data import files
from delf_d2r.data.legacy import datum
from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.protos import delf_datum_pb2
from delf_d2r.structures import AggregatedDescriptor

# The kernel of each extension, and whether regions are pooled.
EXTENSIONS = {f'.{prefix}{kernel.value}': (kernel, bool(prefix)) for kernel in Kernel for prefix in ('', 'r')}


def extension(kernel: Kernel, *, regional: bool) -> str:
  """Returns the extension of the files of a kernel."""
  return next(name for name, form in EXTENSIONS.items() if form == (kernel, regional))


def encode(descriptor: AggregatedDescriptor, *, kernel: Kernel, num_words: int) -> bytes:
  """Encodes a descriptor.

  Args:
    descriptor: aggregated descriptor of the kernel, pooled over regions or not.
    kernel: kernel of the descriptor.
    num_words: number of words of the codebook, K.
  """
  if not kernel.is_selective:
    dense = np.zeros((num_words, descriptor.dimensions), np.float32)
    dense[descriptor.visual_words] = descriptor.values
    return datum.encode(dense.ravel()).SerializeToString(deterministic=True)
  pair = datum.encode_pair(descriptor.values.ravel(), descriptor.visual_words)
  return pair.SerializeToString(deterministic=True)


def decode(data: bytes, *, kernel: Kernel, num_words: int, dimensions: int) -> AggregatedDescriptor:
  """Decodes the inverse of `encode`.

  Args:
    data: the bytes of a file.
    kernel: kernel of the descriptor.
    num_words, dimensions: K and D of the codebook.

  Raises:
    ValueError: the data have another format, or belong to another kernel or codebook.
  """
  try:
    if not kernel.is_selective:
      return _from_dense(datum.decode(delf_datum_pb2.DatumProto.FromString(data)), num_words, dimensions)
    values, words = datum.decode_pair(delf_datum_pb2.DatumPairProto.FromString(data))
  except DecodeError as error:
    raise ValueError(str(error)) from None
  is_binary = kernel.is_binary
  wanted = np.uint32 if is_binary else np.float32
  if values.dtype != wanted or words.dtype != np.uint32 or values.ndim != 1 or words.ndim != 1:
    raise ValueError(
      f'expected vectors of {np.dtype(wanted)} and uint32, found {values.dtype} {values.shape} and'
      f' {words.dtype} {words.shape}'
    )
  columns = kernel.columns(dimensions)
  if len(values) != len(words) * columns:
    raise ValueError(
      f'expected {columns} values for each of {len(words)} visual words (D = {dimensions}), found'
      f' {len(values)}'
    )
  if len(words) and (np.any(words[1:] <= words[:-1]) or words[-1] >= num_words):
    raise ValueError(f'visual words must ascend below {num_words}, the last is {words[-1]}')
  if is_binary and np.any(values > 255):
    raise ValueError(f'expected bytes, found {values.max()}')
  _require_finite(values)
  values = values.astype(np.uint8) if is_binary else values
  return AggregatedDescriptor(words, values.reshape(len(words), columns), dimensions)


def _from_dense(dense: np.ndarray, num_words: int, dimensions: int) -> AggregatedDescriptor:
  if dense.dtype != np.float32 or dense.shape != (num_words * dimensions,):
    raise ValueError(
      f"expected float32 [{num_words} * {dimensions}], the codebook's K * D, found {dense.dtype}"
      f' {dense.shape}'
    )
  _require_finite(dense)
  dense = dense.reshape(num_words, dimensions)
  words = np.flatnonzero(dense.any(axis=1))
  return AggregatedDescriptor(words.astype(np.uint32), dense[words], dimensions)


def _require_finite(values: np.ndarray) -> None:
  if not np.isfinite(values).all():
    raise ValueError('it has values that are not finite')


def read(path: str | pathlib.Path, *, num_words: int, dimensions: int) -> AggregatedDescriptor:
  """Reads the descriptor of one file, whose extension names the kernel.

  Raises:
    UserError: the file is missing or damaged, or belongs to another kernel or codebook.
  """
  path = pathlib.Path(path)
  kernel, _ = EXTENSIONS[path.suffix]
  with files.format_errors(path, f'a {path.suffix} file of this codebook'):
    return decode(path.read_bytes(), kernel=kernel, num_words=num_words, dimensions=dimensions)
