"""Projections of residuals before their signs are taken: oracle, learning, errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import kernels_oracle as oracle

from delf_d2r.kernels import aggregation, compiled, projection
from delf_d2r.kernels.aggregation import Kernel, aggregate, aggregate_each_region, aggregate_regions
from delf_d2r.kernels.projection import Projection
from delf_d2r.kernels.similarity import similarity

DIMENSIONS, WORDS = 9, 6


@pytest.fixture(params=['numba', 'numpy'])
def path(request, monkeypatch):
  if request.param == 'numba' and not compiled.HAVE_NUMBA:
    pytest.skip('numba is not installed')
  monkeypatch.setattr(projection, 'HAVE_NUMBA', request.param == 'numba')
  monkeypatch.setattr(aggregation, 'HAVE_NUMBA', request.param == 'numba')
  return request.param


def some(bits=8, seed=0):
  rng = np.random.default_rng(seed)
  matrices = np.stack([projection.rotation(DIMENSIONS, bits, rng), projection.identity(DIMENSIONS, bits)])
  return Projection(matrices, rng.integers(2, size=WORDS).astype(np.uint8))


def image(seed, features=30, num_assignments=2):
  """Descriptors, words, offsets of three regions (one of them empty), and centroids."""
  rng = np.random.default_rng(seed)
  centroids = rng.standard_normal((WORDS, DIMENSIONS)).astype(np.float32)
  descriptors = rng.standard_normal((features, DIMENSIONS)).astype(np.float32)
  words = np.array([rng.permutation(WORDS)[:num_assignments] for _ in range(features)], np.int64)
  return (
    descriptors,
    words.reshape(features, num_assignments),
    [0, features // 2, features // 2, features],
    centroids,
  )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 40))
def test_codes_equal_those_of_the_oracle(seed, features):
  descriptors, words, offsets, centroids = image(seed, features)
  projected = some(seed=seed)
  rules = projected.matrices, projected.kinds
  found = aggregate(descriptors, words, centroids, kernel=Kernel.ASMK_STAR, projection=projected)
  expected = oracle.projected_asmk_star(oracle.vlad(descriptors, words, centroids), *rules)
  assert found.dimensions == 8
  assert found.visual_words.tolist() == expected[0]
  np.testing.assert_array_equal(found.values, expected[1])
  found = aggregate_regions(
    descriptors, words, offsets, centroids, kernel=Kernel.ASMK_STAR, projection=projected
  )
  expected = oracle.projected_asmk_star(oracle.regional_vlad(descriptors, words, offsets, centroids), *rules)
  assert found.visual_words.tolist() == expected[0]
  np.testing.assert_array_equal(found.values, expected[1])


@pytest.mark.usefixtures('path')
def test_both_paths_add_in_the_order_of_the_dimensions():
  rng = np.random.default_rng(1)
  residuals = rng.standard_normal((17, DIMENSIONS)).astype(np.float32)
  words = rng.integers(WORDS, size=17)
  projected = some(bits=5)
  expected = oracle.project(words, residuals, projected.matrices, projected.kinds)
  np.testing.assert_array_equal(projected(words, residuals), expected)
  # However many there are.
  np.testing.assert_array_equal(projected(words[3:4], residuals[3:4]), expected[3:4])
  assert projected(words[:0], residuals[:0]).shape == (0, 5)


@pytest.mark.usefixtures('path')
def test_without_change_where_nothing_is_projected():
  descriptors, words, offsets, centroids = image(0)
  plain = Projection(projection.identity(DIMENSIONS, DIMENSIONS)[None], np.zeros(WORDS, np.uint8))
  arguments = descriptors, words, offsets, centroids
  for found, expected in (
    (
      aggregate_regions(*arguments, kernel=Kernel.ASMK_STAR, projection=plain),
      aggregate_regions(*arguments, kernel=Kernel.ASMK_STAR),
    ),
    *zip(
      aggregate_each_region(*arguments, kernel=Kernel.ASMK_STAR, projection=plain),
      aggregate_each_region(*arguments, kernel=Kernel.ASMK_STAR),
      strict=True,
    ),
  ):
    np.testing.assert_array_equal(found.values, expected.values)
    np.testing.assert_array_equal(found.visual_words, expected.visual_words)


def test_region_masks_are_those_of_the_residuals():
  descriptors, words, offsets, centroids = image(2)
  arguments = {'kernel': Kernel.ASMK_STAR, 'masks': True}
  plain = aggregate_regions(descriptors, words, offsets, centroids, **arguments)
  found = aggregate_regions(descriptors, words, offsets, centroids, projection=some(), **arguments)
  np.testing.assert_array_equal(found.region_masks, plain.region_masks)
  assert (found.dimensions, found.values.shape) == (8, (len(plain), 1))
  assert similarity(found, found, kernel=Kernel.ASMK_STAR, normalize=True) == pytest.approx(1)


def test_the_first_dimensions_alone_are_the_first_bits():
  descriptors, words, _, centroids = image(3)
  truncated = Projection(projection.identity(DIMENSIONS, 8)[None], np.zeros(WORDS, np.uint8))
  plain = aggregate(descriptors, words, centroids, kernel=Kernel.ASMK_STAR)
  found = aggregate(descriptors, words, centroids, kernel=Kernel.ASMK_STAR, projection=truncated)
  np.testing.assert_array_equal(found.values, plain.values[:, :1])


@pytest.mark.parametrize('kernel', [Kernel.VLAD, Kernel.ASMK])
def test_other_kernels_have_no_projection(kernel):
  descriptors, words, _, centroids = image(0)
  with pytest.raises(ValueError, match='found one to 8 bits; aggregate by ASMK_STAR'):
    aggregate(descriptors, words, centroids, kernel=kernel, projection=some())


def test_a_projection_of_other_dimensions():
  with pytest.raises(ValueError, match='expected 9 dimensions as in the projection, found 4'):
    some()(np.zeros(1, np.int64), np.zeros((1, 4), np.float32))
  with pytest.raises(ValueError, match=r'expected float32 \[P, D, B\], found float64'):
    Projection(np.zeros((1, 2, 2)), np.zeros(3, np.uint8))
  with pytest.raises(ValueError, match=r'below 1, found uint8 .* up to 1'):
    Projection(np.zeros((1, 2, 2), np.float32), np.ones(3, np.uint8))


def test_kind_of_a_word_is_that_of_the_nearest_origin():
  origins = np.array([[0, 0], [4, 0]], np.float32)
  centroids = np.array([[0.5, 0.5], [3.6, 0.1], [4, -0.9], [-0.9, 0]], np.float32)
  assert projection.kinds_of_words(centroids, origins).tolist() == [0, 1, 1, 0]
  assert projection.kinds_of_words(centroids, origins[:1]).tolist() == [0, 0, 0, 0]
  assert projection.kinds_of_words(centroids, origins[:0]).tolist() == [0, 0, 0, 0]


# Learning --------------------------------------------------------------------------------------------

# Some dimensions vary much more than others.
SPREAD = np.array([3, 0.1, 2, 0.1, 1, 0.5, 0.1, 0.3, 0.2], np.float32)


def residuals(count=2000, seed=0):
  rng = np.random.default_rng(seed)
  return (rng.laplace(size=(count, DIMENSIONS)) * SPREAD).astype(np.float32)


@pytest.mark.parametrize('bits', [1, 8, 9])
@pytest.mark.parametrize('count', [0, 1, 2000])
def test_columns_are_orthonormal_and_seeded(bits, count):
  values = residuals(count)
  for learn in (
    lambda rng: projection.rotation(DIMENSIONS, bits, rng),
    lambda rng: projection.pca_rotation(values, bits, rng),
    lambda rng: projection.itq(values, bits, rng),
  ):
    first, again, other = (learn(np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert (first.dtype, first.shape) == (np.float32, (DIMENSIONS, bits))
    np.testing.assert_allclose(first.T @ first, np.eye(bits), atol=1e-6)
    assert first.tobytes() == again.tobytes()
    assert bits == 1 or not np.allclose(first, other)


def test_principal_directions_keep_the_most():
  values = residuals()
  found = projection.principal_directions(values, 3)
  # The three dimensions of the largest spread, in that order.
  np.testing.assert_allclose(np.abs(found), np.eye(DIMENSIONS)[:, [0, 2, 4]], atol=0.1)
  kept = np.square(values @ projection.pca_rotation(values, 3, np.random.default_rng(0))).sum()
  np.testing.assert_allclose(kept, np.square(values @ found).sum(), rtol=1e-4)


def test_itq_loses_less_than_its_first_rotation():
  values = residuals()

  def loss(iterations):
    reduced = values @ projection.itq(values, 6, np.random.default_rng(0), iterations=iterations)
    return np.square(np.where(reduced > 0, 1, -1) - reduced).sum()

  losses = [loss(iterations) for iterations in (0, 1, 2, 5, 20, 50)]
  assert losses == sorted(losses, reverse=True)
  assert losses[-1] < 0.98 * losses[0]


def test_random_orthogonal_matrices_have_no_preferred_sign():
  rng = np.random.default_rng(0)
  drawn = np.array([projection.random_orthogonal(3, rng) for _ in range(2000)])
  # Without the correction of signs, numpy's QR gives a first entry that is never positive.
  assert abs(drawn[:, 0, 0].mean()) < 0.05
