"""PCA: the streaming covariance equals the plain one, and the map does what its definition says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from delf_d2r.kernels.pca import Covariance, Pca, normalize


def data(n=300, dimensions=6, seed=0):
  generator = np.random.default_rng(seed)
  mixing = generator.normal(size=(dimensions, dimensions))
  return (generator.normal(size=(n, dimensions)) @ mixing + 5).astype(np.float32)


def fit(*parts):
  covariance = Covariance(parts[0].shape[1])
  for part in parts:
    covariance.add(part)
  return covariance.pca()


def test_components_are_eigenvectors_of_the_covariance():
  x = data()
  pca = fit(x)
  covariance = np.cov(x.astype(float), rowvar=False)
  assert_allclose(pca.mean, x.mean(0), rtol=1e-5)
  assert_allclose(covariance @ pca.components.T, pca.components.T * pca.variances, atol=1e-3)
  assert_allclose(pca.components @ pca.components.T, np.eye(6), atol=1e-6)
  assert np.all(np.diff(pca.variances) <= 0)
  # Signs are defined: the largest entry of each component is positive.
  assert np.all(pca.components[np.arange(6), np.argmax(np.abs(pca.components), axis=1)] > 0)


@given(cuts=st.lists(st.integers(0, 300), max_size=5))
def test_parts_do_not_matter(cuts):
  x = data()
  whole, parts = fit(x), fit(*np.split(x, sorted(cuts)))
  assert_allclose(parts.mean, whole.mean, rtol=1e-6)
  assert_allclose(parts.variances, whole.variances, rtol=1e-5)
  assert_allclose(parts.components, whole.components, atol=1e-4)


def test_a_large_mean_costs_no_digits():
  x = data(seed=3).astype(np.float64)
  assert_allclose(fit(x + 1e6).variances, fit(x).variances, rtol=1e-6)


def test_projection_and_whitening():
  x = data()
  pca = fit(x)
  matrix, offset = pca.truncated(4).as_affine(whitening=False)
  assert_allclose(x @ matrix + offset, (x - pca.mean) @ pca.components[:4].T, atol=1e-3)
  matrix, offset = pca.as_affine(whitening=True)
  assert_allclose(np.cov(x @ matrix + offset, rowvar=False), np.eye(6), atol=1e-3)


def test_what_cannot_be_done_is_said():
  pca = fit(data())
  with pytest.raises(ValueError, match='7 dimensions are wanted, but the PCA has 6 components'):
    pca.truncated(7)
  with pytest.raises(ValueError, match='at least 2 descriptors, found 1'):
    fit(data(1))
  with pytest.raises(ValueError, match='lacks'):
    Pca(pca.mean, pca.components).as_affine(whitening=True)
  flat = fit(np.repeat(data(50, 1), 2, axis=1))
  flat = Pca(flat.mean, flat.components, np.array([1, 0], np.float32))
  with pytest.raises(ValueError, match='component 1 has variance 0'):
    flat.as_affine(whitening=True)
  with pytest.raises(ValueError, match=r'components: expected shape .* found \(6, 6\)'):
    Pca(pca.mean[:3], pca.components)


def test_a_negative_number_of_components_is_refused():
  pca = Pca(np.zeros(4, np.float32), np.eye(4, dtype=np.float32))
  with pytest.raises(ValueError, match='-1 dimensions'):
    pca.truncated(-1)


@pytest.mark.parametrize('value', [np.nan, np.inf, 1e30])
def test_values_that_have_no_covariance_are_refused(value):
  with pytest.raises(ValueError, match='row 1 of 2'):
    Covariance(3).add(np.array([[0, 1, 2], [3, value, 5]], np.float32))


def test_normalize():
  x = np.array([[3, 4], [0, 0], [1e-20, 0]], np.float32)
  assert_allclose(normalize(x)[0], [0.6, 0.8])
  assert_array_equal(normalize(x)[1], [0, 0])
  assert np.isfinite(normalize(x)).all()
  assert normalize(x[:0]).shape == (0, 2)


def test_first_components_keep_their_variances():
  pca = Pca(np.zeros(3, np.float32), np.eye(3, dtype=np.float32), np.array([3, 2, 1], np.float32))
  shorter = pca.truncated(2)
  assert (shorter.input_dimensions, shorter.dimensions) == (3, 2)
  assert shorter.variances.tolist() == [3, 2]
  assert Pca(pca.mean, pca.components).truncated(2).variances is None


def test_two_descriptors_have_a_covariance():
  covariance = Covariance(2)
  covariance.add(np.array([[0, 0], [2, 0]], np.float32))
  pca = covariance.pca()
  assert pca.variances.tolist() == [2, 0]
  assert pca.components[0].tolist() == [1, 0]
