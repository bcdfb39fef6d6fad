"""Random descriptors for the tests of the index."""

import dataclasses

import numpy as np

from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.structures import AggregatedDescriptor


def random_descriptor(rng, *, num_words, dimensions, kernel, present=None, coarse=False):
  """`present` words (0 to K, random by default); coarse values make equal scores frequent."""
  present = int(rng.integers(0, num_words + 1)) if present is None else present
  words = np.sort(rng.choice(num_words, present, replace=False)).astype(np.uint32)
  if kernel is Kernel.ASMK_STAR:
    bits = rng.integers(0, 2, (present, 1 if coarse else dimensions)).astype(bool)
    values = np.packbits(np.broadcast_to(bits, (present, dimensions)), axis=1)
  else:
    values = rng.standard_normal((present, dimensions)).astype(np.float32)
    if coarse:
      values = np.sign(values[:, :1]) * np.eye(1, dimensions, dtype=np.float32)
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), np.float32(1e-6))
  return AggregatedDescriptor(words, values.reshape(present, -1 if present else values.shape[1]), dimensions)


def with_masks(rng, descriptor, *, regions=8):
  """The descriptor with random masks of so many regions."""
  masks = rng.integers(1, 1 << regions, len(descriptor)).astype(np.uint8)
  return dataclasses.replace(descriptor, region_masks=masks)


def random_masked_descriptors(seed, count, **options):
  """Descriptors with masks of 1 to 8 regions."""
  rng = np.random.default_rng(seed)
  return [
    with_masks(rng, random_descriptor(rng, **options), regions=int(rng.integers(1, 9))) for _ in range(count)
  ]


def random_descriptors(seed, count, **options):
  rng = np.random.default_rng(seed)
  return [random_descriptor(rng, **options) for _ in range(count)]


def directory_bytes(directory):
  """Content of every file, by name."""
  return {path.name: path.read_bytes() for path in directory.iterdir()}
