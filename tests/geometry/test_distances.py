"""Squared distances of pairs: by definition, and compiled with the same bytes."""

import numpy as np
import pytest

from delf_d2r.geometry.distances import squared_distance, squared_distances, whole_lanes
from delf_d2r.kernels.compiled import HAVE_NUMBA, njit


def descriptors(n, dimensions, seed=0):
  return np.random.default_rng(seed).normal(size=(n, dimensions)).astype(np.float32)


@pytest.mark.parametrize('dimensions', [1, 15, 16, 40, 128, 250])
def test_by_definition(dimensions):
  one, other = descriptors(30, dimensions), descriptors(30, dimensions, 1)
  exact = np.square(one.astype(float) - other).sum(axis=1)
  found = squared_distances(*map(whole_lanes, (one, other)))
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, exact, rtol=1e-6)


@pytest.mark.skipif(not HAVE_NUMBA, reason='numba is not installed')
@pytest.mark.parametrize('dimensions', [16, 48, 128, 1024])
def test_compiled_with_the_same_bytes(dimensions):
  one, other = descriptors(30, dimensions), descriptors(20, dimensions, 1)

  @njit(cache=False)
  def compiled(one, other):
    found = np.empty((one.shape[0], other.shape[0]), np.float32)
    for i in range(one.shape[0]):
      for j in range(other.shape[0]):
        found[i, j] = squared_distance(one, i, other, j)
    return found

  expected = squared_distances(np.repeat(one, 20, axis=0), np.tile(other, (30, 1))).reshape(30, 20)
  assert compiled(one, other).tobytes() == expected.tobytes()


def test_whole_lanes_are_as_they_were():
  one = descriptors(3, 32)
  assert np.shares_memory(whole_lanes(one), one)
  assert one.flags.writeable
  assert not whole_lanes(one).flags.writeable
  padded = whole_lanes(descriptors(3, 33))
  assert padded.shape == (3, 48)
  assert not padded[:, 33:].any()
  assert whole_lanes(np.asfortranarray(one)).flags.c_contiguous
