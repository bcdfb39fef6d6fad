"""Selectivity and pairwise similarity: reference vectors, strict threshold, both conventions, oracle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import kernels_oracle as oracle

from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.kernels.similarity import selectivity, selectivity_table, similarity
from delf_d2r.structures import AggregatedDescriptor


def descriptor(words, values, dimensions, dtype=np.float32):
  values = np.array(values, dtype)
  return AggregatedDescriptor(np.array(words, np.uint32), values.reshape(len(words), -1), dimensions)


def test_vlad_reference_vector():
  a = descriptor([0], [[0, 1, 2, 3, 4]], 5)
  b = descriptor([0], [[5, 6, 7, 8, 9]], 5)
  assert similarity(a, b, kernel=Kernel.VLAD, normalize=True) == 80
  assert similarity(a, b, kernel=Kernel.VLAD, normalize=False) == 80


@pytest.mark.parametrize('normalize, expected', [(True, 0.123562), (False, 0.478554)])
def test_asmk_reference_vector(normalize, expected):
  a = descriptor(range(5), [(0, 0), (-0.707107, -0.707107), (0.5, 0.866025), (0.816497, 0.577350), (1, 0)], 2)
  b = descriptor([1, 2, 4], [(0, 1), (1, 0), (0.707107, 0.707107)], 2)
  found = similarity(a, b, kernel=Kernel.ASMK, normalize=normalize)
  assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize('compat', [False, True])
def test_asmk_star_reference_vector(compat):
  # The reference's test puts the two bits at the low end of the byte; XOR gives the same.
  a = descriptor(range(5), [[0], [0], [3], [3], [3]], 2, np.uint8)
  b = descriptor([1, 2, 4], [[1], [2], [3]], 2, np.uint8)
  found = similarity(a, b, kernel=Kernel.ASMK_STAR, normalize=True, compat=compat)
  assert found == pytest.approx(0.258199, abs=1e-6)


def test_checklist_6_selectivity_is_strict_above_tau():
  u = np.array([-1, -0.5, 0, 0.25, 0.5, 1], np.float32)
  np.testing.assert_array_equal(selectivity(u, alpha=3, tau=0), [0, 0, 0, 0.25**3, 0.125, 1])
  np.testing.assert_array_equal(selectivity(u, alpha=3, tau=0.25), [0, 0, 0, 0, 0.125, 1])
  np.testing.assert_array_equal(selectivity(u, alpha=2, tau=-0.5), [0, 0, 0, 0.0625, 0.25, 1])
  np.testing.assert_array_equal(selectivity(u, alpha=3, tau=-2), [-1, -0.125, 0, 0.25**3, 0.125, 1])


@pytest.mark.parametrize('compat, expected', [(False, 0.0), (True, -1.0)])
@pytest.mark.parametrize('kernel, dtype', [(Kernel.ASMK, np.float32), (Kernel.ASMK_STAR, np.uint8)])
@pytest.mark.parametrize('normalize', [False, True])
def test_checklist_7_an_empty_side(compat, expected, kernel, dtype, normalize):
  empty = AggregatedDescriptor(np.zeros(0, np.uint32), np.zeros((0, 1), dtype), 1)
  full = descriptor([3], [[1]], 1, dtype)
  for a, b in ((empty, full), (full, empty), (empty, empty)):
    assert similarity(a, b, kernel=kernel, normalize=normalize, compat=compat) == expected


def test_no_common_words_score_zero_in_both_conventions():
  a, b = descriptor([1], [[255]], 8, np.uint8), descriptor([2], [[255]], 8, np.uint8)
  for compat in (False, True):
    assert similarity(a, b, kernel=Kernel.ASMK_STAR, normalize=True, compat=compat) == 0


def test_padding_bits_agree_only_in_compat():
  # D = 9: the second byte holds one bit and seven of padding; all nine bits differ.
  a = descriptor([0], [[0b11111111, 0b10000000]], 9, np.uint8)
  b = descriptor([0], [[0b00000000, 0b00000000]], 9, np.uint8)
  arguments = {'kernel': Kernel.ASMK_STAR, 'alpha': 1, 'tau': -2, 'normalize': False}
  assert similarity(a, b, **arguments) == -1
  assert similarity(a, b, compat=True, **arguments) == pytest.approx(1 - 2 * 9 / 16)


@pytest.mark.parametrize('dimensions', [1, 7, 8, 40, 128])
def test_selectivity_table_is_selectivity_of_every_distance(dimensions):
  table = selectivity_table(dimensions, alpha=3, tau=0.1)
  assert table.dtype == np.float32
  assert len(table) == dimensions + 1
  for h in range(dimensions + 1):
    assert table[h] == pytest.approx(oracle.sigma(1 - 2 * h / dimensions, 3, 0.1), rel=1e-6, abs=1e-7)


def test_selectivity_table_is_strict_where_the_threshold_is_a_distance():
  assert selectivity_table(10, alpha=1, tau=0.2)[4] == 0  # u = 1 - 2 * 4 / 10 = tau
  assert selectivity_table(10, alpha=1, tau=0.2)[3] == np.float32(0.4)


@st.composite
def pairs(draw, binary):
  dimensions = draw(st.integers(1, 21))
  rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

  def one():
    words = np.flatnonzero(rng.random(12) < rng.choice([0, 0.4, 0.8])).astype(np.uint32)
    values = rng.normal(size=(len(words), dimensions)).astype(np.float32)
    if binary:
      return AggregatedDescriptor(words, np.packbits(values > 0, axis=1), dimensions)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return AggregatedDescriptor(words, values, dimensions)

  return one(), one()


@pytest.mark.parametrize('kernel', [Kernel.ASMK, Kernel.ASMK_STAR])
@given(data=st.data(), normalize=st.booleans(), compat=st.booleans(), tau=st.sampled_from([-1.5, 0, 0.33]))
@settings(max_examples=80, deadline=None)
def test_similarity_equals_the_oracle_and_is_symmetric(kernel, data, normalize, compat, tau):
  a, b = data.draw(pairs(kernel.is_binary))
  options = {'alpha': 3.0, 'tau': tau, 'normalize': normalize, 'compat': compat}
  found = similarity(a, b, kernel=kernel, **options)
  assert found == similarity(b, a, kernel=kernel, **options)
  expected = oracle.similarity(
    a.visual_words, a.values, b.visual_words, b.values, dimensions=a.dimensions, **options
  )
  assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize('kernel', [Kernel.ASMK, Kernel.ASMK_STAR])
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_normalised_self_similarity_is_one(kernel, data):
  a, _ = data.draw(pairs(kernel.is_binary))
  expected = 1 if len(a) else 0
  assert similarity(a, a, kernel=kernel, normalize=True) == pytest.approx(expected, abs=1e-5)


def test_pairs_that_do_not_fit_are_named():
  with pytest.raises(ValueError, match='found 2 and 3'):
    similarity(
      descriptor([0], [[1, 2]], 2), descriptor([0], [[1, 2, 3]], 3), kernel=Kernel.ASMK, normalize=True
    )
  with pytest.raises(ValueError, match='ASMK_STAR expects values of uint8, found float32'):
    similarity(descriptor([0], [[1]], 1), descriptor([0], [[1]], 1), kernel=Kernel.ASMK_STAR, normalize=True)
  with pytest.raises(ValueError, match='ASMK expects values of float32, found uint8'):
    similarity(
      descriptor([0], [[1]], 1), descriptor([0], [[1]], 1, np.uint8), kernel=Kernel.ASMK, normalize=True
    )
