"""Putative matches against loops over all pairs; ties, NaN, nothing to match, joined kinds of features."""

import re
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import matching_oracle

from delf_d2r.geometry.matching import match


def unit_vectors(n, dimensions, seed):
  vectors = np.random.default_rng(seed).normal(size=(n, dimensions)).astype(np.float32)
  return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def pairs(found, which=None):
  """The credible pairs, or those of a mask."""
  which = found.credible if which is None else which
  return sorted(zip(found.query[which].tolist(), found.index[which].tolist(), strict=True))


@settings(max_examples=60, deadline=None)
@given(
  st.integers(0, 25),
  st.integers(0, 25),
  st.integers(0, 10_000),
  st.sampled_from([0.8, 1.2, np.inf]),
  st.sampled_from([0.9, 1.0]),
  st.booleans(),
)
def test_as_loops_over_all_pairs_find(n, m, seed, max_distance, ratio, mutual):
  query, index = unit_vectors(n, 8, seed), unit_vectors(m, 8, seed + 1)
  options = {'max_distance': max_distance, 'ratio': ratio, 'mutual': mutual}
  assert pairs(match(query, index, **options)) == matching_oracle.match(query, index, **options)


@pytest.mark.parametrize('products', [1, 50, 1000])
def test_pieces_of_the_product_find_the_same(monkeypatch, products):
  query, index = unit_vectors(60, 8, 0), unit_vectors(40, 8, 1)
  whole = match(query, index, ratio=0.9)
  assert whole.credible.sum() not in (0, 60)
  monkeypatch.setattr('delf_d2r.geometry.matching._PRODUCTS_AT_A_TIME', products)
  found = match(query, index, ratio=0.9)
  for field in ('query', 'index', 'credible'):
    np.testing.assert_array_equal(getattr(found, field), getattr(whole, field))


def test_nearest_come_first_with_exact_distances():
  query, index = unit_vectors(300, 128, 0), unit_vectors(200, 128, 1)
  index[:50] = query[100:150]
  found = match(query, index)
  assert np.all(np.diff(found.distances) >= 0)
  np.testing.assert_array_equal(found.distances[:50], 0)
  np.testing.assert_allclose(
    found.distances, np.linalg.norm(query[found.query] - index[found.index], axis=1), rtol=1e-6
  )


def test_one_to_one_even_among_equals():
  same = np.ones((5, 4), np.float32)
  assert pairs(match(same, same[:3])) == [(0, 0)]
  assert pairs(match(same, same[:3], mutual=False)) == [(i, 0) for i in range(5)]
  found = pairs(match(unit_vectors(200, 4, 0), unit_vectors(150, 4, 1)))
  assert len({i for i, _ in found}) == len({j for _, j in found}) == len(found)


def test_what_is_not_credible_is_a_nearest_neighbour_all_the_same():
  query, index = unit_vectors(60, 8, 0), unit_vectors(50, 8, 1)
  strict, lenient = (
    match(query, index, max_distance=1, ratio=0.8),
    match(query, index, max_distance=1, mutual=False),
  )
  assert (
    pairs(strict, slice(None))
    == pairs(lenient)
    == matching_oracle.match(query, index, max_distance=1, ratio=1, mutual=False)
  )
  assert 0 < strict.credible.sum() < len(strict)


def test_ratio_test_needs_a_second_neighbour_to_refuse():
  query, index = unit_vectors(1, 8, 0), unit_vectors(3, 8, 1)
  assert pairs(match(query, index[:1], ratio=0.5)) == [(0, 0)]
  assert pairs(match(query, index[[0, 0]], ratio=0.99)) == []


def test_distance_is_a_strict_limit():
  query, index = np.zeros((1, 2), np.float32), np.array([[0, 0.5]], np.float32)
  assert len(match(query, index, max_distance=0.5)) == 0
  assert len(match(query, index, max_distance=0.51)) == 1


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf, 3e38])
def test_what_is_not_finite_matches_nothing(value):
  query, index = unit_vectors(20, 8, 0), unit_vectors(20, 8, 1)
  clean = match(query[1:], index[:-1])
  query[0, 3] = index[-1, 0] = value
  found = match(query, index)
  assert pairs(found) == [(i + 1, j) for i, j in pairs(clean)]


@pytest.mark.parametrize(('n', 'm'), [(0, 0), (0, 3), (3, 0)])
def test_nothing_to_match(n, m):
  found = match(unit_vectors(n, 8, 0), unit_vectors(m, 8, 1), ratio=0.8)
  assert len(found) == 0
  assert len(found.distances) == len(found.credible) == 0
  assert found.query.dtype == found.index.dtype == np.int64


def test_joined_kinds_match_as_each_would_alone():
  kinds = [(unit_vectors(30, 8, seed), unit_vectors(40, 8, seed + 10)) for seed in (0, 1)]
  apart = [
    part + np.array([4 * kind, *[0] * 7], np.float32) for kind, two in enumerate(kinds) for part in two
  ]
  found = match(np.concatenate(apart[::2]), np.concatenate(apart[1::2]), max_distance=0.9)
  expected = [
    (i + 30 * kind, j + 40 * kind)
    for kind, (query, index) in enumerate(kinds)
    for i, j in pairs(match(query, index, max_distance=0.9))
  ]
  assert pairs(found) == expected


def many(kinds=1, seed=0):
  """Descriptors of two images, 400 of each kind, of which the first 100 are the same but for noise."""
  found = []
  for kind in range(kinds):
    query, index = unit_vectors(400, 64, seed + kind), unit_vectors(500, 64, seed + kind + 10)
    query[:100] = index[:100] + np.random.default_rng(kind).normal(0, 0.03, (100, 64))
    query /= np.linalg.norm(query, axis=1, keepdims=True)
    found.append([part + 4 * kind * np.eye(1, 64, dtype=np.float32) for part in (query, index)])
  return map(np.concatenate, zip(*found, strict=True))


ORIGINS = np.zeros((2, 64), np.float32)
ORIGINS[1, 0] = 4


@pytest.mark.parametrize('mutual', [True, False])
def test_many_are_matched_by_codes_as_few_are(monkeypatch, mutual):
  query, index = many()
  options = {'max_distance': 0.9, 'ratio': 0.9, 'mutual': mutual}
  found = match(query, index, **options)
  monkeypatch.setattr('delf_d2r.geometry.matching._FEWEST_PAIRS', np.inf)
  expected = match(query, index, **options)
  assert pairs(found) == pairs(expected) == [(i, i) for i in range(100)]
  np.testing.assert_allclose(found.distances, expected.distances, rtol=1e-5)
  assert np.all(np.diff(found.distances) >= 0)


def test_many_of_two_kinds():
  query, index = many(2)
  found = match(query, index, max_distance=0.9, ratio=0.9, origins=ORIGINS)
  assert pairs(found) == [(i + 400 * k, i + 500 * k) for k in range(2) for i in range(100)]


def test_kinds_apart_match_as_together(monkeypatch):
  monkeypatch.setattr('delf_d2r.geometry.matching._FEWEST_PAIRS', np.inf)
  query, index = (part[np.random.default_rng(0).permutation(len(part))] for part in many(2))
  index[7] = np.nan
  for max_distance in (0.9, 1.9, np.inf):
    together, apart = (
      match(query, index, max_distance=max_distance, ratio=0.9, origins=origins)
      for origins in (None, ORIGINS)
    )
    for field in ('query', 'index', 'credible', 'mutual'):
      np.testing.assert_array_equal(getattr(together, field), getattr(apart, field))
    np.testing.assert_allclose(together.distances, apart.distances)


def test_a_kind_that_one_image_lacks_matches_nothing():
  query, index = many(2)
  found = match(query, index[:500], max_distance=0.9, origins=ORIGINS)
  assert found.query.max() < 400
  assert len(match(query[:400], index[500:], max_distance=0.9, origins=ORIGINS)) == 0


def test_mutual_pairs_are_told_as_far_as_is_asked_for():
  for query, index in (many(), (unit_vectors(60, 8, 0), unit_vectors(50, 8, 1))):
    every, credible = (match(query, index, ratio=0.9, all_mutual=asked) for asked in (True, False))
    assert credible.mutual is None
    np.testing.assert_array_equal(every.credible, credible.credible)
    assert every.mutual.sum() > every.credible.sum()


@pytest.mark.parametrize(('query', 'index'), [((2, 8), (2, 4)), ((2, 8), (8,)), ((2, 8, 1), (2, 8))])
def test_different_dimensions_are_refused(query, index):
  with pytest.raises(ValueError, match=re.escape(f'found {query} and {index}')):
    match(np.zeros(query, np.float32), np.zeros(index, np.float32))


def test_many_features_take_no_more_memory():
  query, index = unit_vectors(4000, 8, 0), unit_vectors(4000, 8, 1)
  tracemalloc.start()
  match(query, index)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  # All products would be 64 MB.
  assert peak < 32e6
