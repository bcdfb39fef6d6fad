"""Neighbours by binary codes against loops, against all distances, and with numba against NumPy."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import matching_oracle

from delf_d2r.geometry import candidates
from delf_d2r.geometry.candidates import neighbours
from delf_d2r.kernels.compiled import HAVE_NUMBA

PATHS = [False, True] if HAVE_NUMBA else [False]


def vectors(n, dimensions, seed=0):
  """Unit vectors, some of them equal."""
  rng = np.random.default_rng(seed)
  found = rng.normal(size=(n, dimensions)).astype(np.float32)
  found /= np.linalg.norm(found, axis=1, keepdims=True)
  return found[rng.integers(0, n, n)]


def all_rows(query, index):
  return query, np.arange(len(query)), index, np.arange(len(index))


@pytest.mark.parametrize('compiled', PATHS)
@settings(max_examples=25, deadline=None)
@given(
  st.integers(1, 30), st.integers(1, 30), st.sampled_from([3, 16, 64, 70, 130]), st.integers(1, 9), st.data()
)
def test_nearest_of_the_candidates_that_loops_find(compiled, n, m, dimensions, count, data):
  seed = data.draw(st.integers(0, 1000))
  query, index = vectors(n, dimensions, seed), vectors(m, dimensions, seed + 1)
  farthest = int(dimensions * 3 / 8)
  expected = matching_oracle.candidates(
    query, index, count=count, groups=candidates._GROUPS, farthest=farthest
  )
  found = neighbours(*all_rows(query, index), candidates=count, compiled=compiled)
  for i, own in enumerate(expected):
    distances = sorted((np.linalg.norm(query[i].astype(float) - index[j]), j) for j in own)
    if not own:
      assert np.isinf([found.best[i], found.second[i], found.best_of_nearest[i]]).all()
      continue
    assert found.best[i] == pytest.approx(distances[0][0] ** 2, abs=1e-5)
    assert found.nearest[i] in own
    assert found.second[i] == pytest.approx(distances[1][0] ** 2 if len(own) > 1 else np.inf, abs=1e-5)


@pytest.mark.skipif(not HAVE_NUMBA, reason='numba is not installed')
@pytest.mark.parametrize('dimensions', [16, 40, 64, 128, 200, 300])
@pytest.mark.parametrize(('n', 'm'), [(70, 90), (300, 700), (2, 900), (900, 1), (1, 1)])
def test_numba_and_numpy_give_the_same_bytes(dimensions, n, m):
  query, index = vectors(n, dimensions), vectors(m, dimensions, 1)
  index[: m // 2] = query[0]
  for ratio in (0, 0.9, np.inf):
    one, other = (
      neighbours(query, np.arange(n)[::-1], index, np.arange(0, m, 2), ratio=ratio, compiled=compiled)
      for compiled in (True, False)
    )
    for field in dataclasses.fields(one):
      assert getattr(one, field.name).tobytes() == getattr(other, field.name).tobytes(), field.name


@pytest.mark.parametrize('compiled', PATHS)
def test_with_all_as_candidates_neighbours_are_exact(monkeypatch, compiled):
  monkeypatch.setattr(candidates, '_FARTHEST', 1)
  query, index = vectors(120, 32), vectors(200, 32, 1)
  found = neighbours(*all_rows(query, index), candidates=200, compiled=compiled)
  squared = np.square(query[:, None] - index).sum(axis=2)
  np.testing.assert_array_equal(found.nearest, squared.argmin(axis=1))
  ascending = np.sort(squared, axis=1)
  np.testing.assert_allclose(found.best, ascending[:, 0], rtol=1e-5)
  np.testing.assert_allclose(found.second, ascending[:, 1], rtol=1e-5)
  np.testing.assert_allclose(found.best_of_nearest, squared.min(axis=0)[found.nearest], rtol=1e-5)


@pytest.mark.parametrize('compiled', PATHS)
def test_way_back_is_left_out_for_what_fails_the_ratio(compiled):
  query, index = vectors(300, 128), vectors(300, 128, 1)
  index[:20] = query[:20]
  some, every = (
    neighbours(*all_rows(query, index), ratio=ratio, compiled=compiled) for ratio in (0.8, np.inf)
  )
  passing = some.best < 0.8**2 * some.second
  assert 0 < passing.sum() < 300
  np.testing.assert_array_equal(some.best_of_nearest[passing], every.best_of_nearest[passing])
  assert np.isinf(some.best_of_nearest[~passing]).all()


@pytest.mark.parametrize('compiled', PATHS)
def test_arrays_that_cannot_be_written_or_are_not_in_order_serve(compiled):
  query, index = vectors(50, 48), vectors(60, 48, 1)
  expected = neighbours(*all_rows(query, index), compiled=compiled)
  fixed = index.copy()
  fixed.flags.writeable = False
  turned = np.asfortranarray(query)
  found = neighbours(*all_rows(turned, fixed), compiled=compiled)
  for field in dataclasses.fields(found):
    np.testing.assert_array_equal(getattr(found, field.name), getattr(expected, field.name))


@pytest.mark.parametrize('compiled', PATHS)
def test_large_values_have_no_neighbours_and_no_warning(compiled):
  query = np.full((3, 16), 1e30, np.float32)
  found = neighbours(*all_rows(query, -query), compiled=compiled)
  assert np.isinf(found.best).all()
