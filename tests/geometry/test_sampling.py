"""RANSAC of affine transforms: against a loop over its samples, numba against NumPy, what it refuses."""

import functools
import math

import numpy as np
import pytest
from oracles import matching_oracle

from delf_d2r.geometry import sampling, transforms
from delf_d2r.geometry.transforms import Limits, Model
from delf_d2r.kernels.compiled import HAVE_NUMBA

MATRIX = np.array([[0.9, -0.2, 40], [0.25, 1.1, 10], [0, 0, 1]])
PATHS = [False, True] if HAVE_NUMBA else [False]
OPTIONS = {'max_residual': 10, 'trials': 1000, 'limits': Limits(), 'seed': 0}
KINDS = [
  (Model.AFFINE, Model.AFFINE),
  (Model.SIMILARITY, Model.AFFINE),
  (Model.SIMILARITY, Model.SIMILARITY),
  (Model.SIMILARITY, None),
]


def problem(count, inliers, *, seed=0, noise=2.0, grid=None):
  """Source and target, float64 [P, 2], the inliers at random places of the list."""
  rng = np.random.default_rng(seed)
  source, target = rng.uniform(0, 800, (2, count, 2))
  if grid:
    source = np.round(source / grid) * grid
  own = rng.permutation(count)[:inliers]
  target[own] = transforms.apply(MATRIX, source[own]) + rng.normal(0, noise, (inliers, 2))
  return source, target


@pytest.mark.skipif(not HAVE_NUMBA, reason='numba is not installed')
@pytest.mark.parametrize('kind', KINDS, ids=str)
def test_numba_and_numpy_give_the_same_bytes(monkeypatch, kind):
  for seed, (count, inliers) in enumerate([(2, 1), (3, 3), (9, 4), (60, 20), (250, 0), (300, 200)]):
    points = problem(count, inliers, seed=seed, grid=50 if seed % 2 else None)
    for at_a_time in (2**20, 5000):
      monkeypatch.setattr(sampling, '_RESIDUALS_AT_A_TIME', at_a_time)
      one, other = (
        sampling.search(*points, *kind, **OPTIONS, compiled=compiled) for compiled in (True, False)
      )
      assert [(m.tobytes(), n) for m, n in one] == [(m.tobytes(), n) for m, n in other]


@pytest.mark.parametrize('compiled', PATHS)
@pytest.mark.parametrize('sampled', [Model.AFFINE, Model.SIMILARITY])
def test_the_sample_with_which_most_agree_is_found(compiled, sampled):
  source, target = problem(30, 12, noise=4)
  size = transforms.MINIMAL_PAIRS[sampled]
  wide = Limits(2 * Limits().max_scale, 2 * Limits().max_anisotropy)

  def is_possible(matrix):
    # Lengths change by their squares added up.
    squares, determinant = np.square(matrix[:2, :2]).sum(), np.linalg.det(matrix)
    fits = determinant > 0 and squares <= 2 * wide.max_scale**2 * min(1, determinant**2)
    return fits and squares <= (wide.max_anisotropy + 1 / wide.max_anisotropy) * determinant

  expected = matching_oracle.most_agreeing(
    source,
    target,
    sampling._samples(30, size, 300, 0),
    functools.partial(transforms.fit, sampled),
    max_residual=10,
    is_possible=is_possible,
  )
  found = sampling.search(source, target, sampled, None, **OPTIONS | {'trials': 300}, compiled=compiled)
  assert found[0][1] == expected
  counts = [count for _, count in found]
  assert counts == sorted(counts, reverse=True)
  for matrix, count in found:
    assert (transforms.residuals(matrix, source, target) <= 10).sum() == count


@pytest.mark.parametrize('compiled', PATHS)
def test_fits_only_gain(compiled):
  for seed in range(5):
    source, target = problem(120, 40, seed=seed, noise=4)
    plain, fitted = (
      sampling.search(source, target, Model.AFFINE, model, **OPTIONS, compiled=compiled)
      for model in (None, Model.AFFINE)
    )
    assert fitted[0][1] >= plain[0][1]
    assert fitted[0][1] >= 35
    np.testing.assert_allclose(fitted[0][0][:2, :2], MATRIX[:2, :2], atol=0.02)
    assert len({matrix.tobytes() for matrix, _ in fitted}) == len(fitted)


@pytest.mark.parametrize('compiled', PATHS)
def test_a_fit_that_is_better_everywhere_is_the_least_squares_fit(compiled):
  source, target = problem(40, 40)
  for model in (Model.AFFINE, Model.SIMILARITY):
    if model is Model.SIMILARITY:
      target = source * 1.3 + [5, 9] + np.random.default_rng(1).normal(0, 1, source.shape)
    found = sampling.search(source, target, model, model, **OPTIONS, compiled=compiled)
    np.testing.assert_allclose(found[0][0], transforms.fit(model, source, target), atol=1e-8)


@pytest.mark.parametrize('compiled', PATHS)
@pytest.mark.parametrize(
  'change',
  [[1, -1], [1 / 50, 1 / 50], [50, 50], [1, 0.05], [0, 0]],
  ids=['mirror', 'tiny', 'huge', 'flat', 'one'],
)
def test_what_no_photos_can_show_is_not_looked_at(compiled, change):
  source, _ = problem(40, 0)
  for sampled in (Model.AFFINE, Model.SIMILARITY):
    found = sampling.search(
      source, source * change, sampled, sampled, **OPTIONS | {'max_residual': 1e-6}, compiled=compiled
    )
    assert all(count <= 3 for _, count in found)


@pytest.mark.parametrize('compiled', PATHS)
@pytest.mark.parametrize('count', [0, 1])
def test_too_few_matches(compiled, count):
  for sampled in (Model.AFFINE, Model.SIMILARITY):
    assert not sampling.search(*problem(count, 0), sampled, sampled, **OPTIONS, compiled=compiled)


@pytest.mark.parametrize('size', [2, 3])
def test_samples(size):
  assert len(sampling._samples(10, size, 1000, 0)) == math.comb(10, size)
  samples = sampling._samples(200, size, 1000, 0)
  assert samples.shape == (1000, size)
  assert samples.min() == 0
  assert samples.max() < 200
  assert all(len(set(row)) == size for row in samples.tolist())
  assert samples[:50].max() < 30
  # In the second half all are drawn alike.
  counts = np.bincount(samples[500:].ravel(), minlength=200)
  assert counts[:100].sum() == pytest.approx(250 * size, rel=0.15)
  assert not np.array_equal(samples, sampling._samples(200, size, 1000, 1))
