"""The choice of the best images: the fast functions choose the same as a full sort and a loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from delf_d2r.index.ranking import best_entries, best_scores, descending, top_k
from delf_d2r.kernels.compiled import HAVE_NUMBA

PATHS = [False, True] if HAVE_NUMBA else [False]

# Few values, so that many are equal.
SCORES = st.lists(st.integers(-2, 6), max_size=120).map(lambda values: np.array(values, np.float32) / 4)
IMAGES = st.lists(st.lists(st.integers(-3, 3), max_size=4), min_size=1, max_size=8)


@settings(deadline=None)  # numba compiles
@given(SCORES, st.integers(0, 6))
def test_the_first_of_a_full_ranking(scores, k):
  expected = sorted(range(len(scores)), key=lambda position: (-scores[position], position))[:k]
  assert top_k(scores, k).tolist() == expected


@pytest.mark.parametrize('k', [1, 10, 100])
def test_the_first_of_many(k):
  scores = np.random.default_rng(k).permutation(5000).astype(np.float32)
  np.testing.assert_array_equal(top_k(scores, k), np.argsort(-scores)[:k])


# Few values, or any: zeros of both signs, denormal numbers, infinities, NaN of any bits.
SPECIAL = [0.0, -0.0, 1.0, 1 + 1e-12, 1 - 1e-12, 1e-50, -1e-50, 1e300, 2e300, -1e300, np.inf, -np.inf, np.nan]


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
@settings(deadline=None)  # numba compiles
@given(data=st.data())
def test_all_in_the_order_of_a_stable_sort(dtype, data):
  special = st.lists(st.sampled_from(SPECIAL), max_size=60)
  with np.errstate(over='ignore'):
    few = np.array(data.draw(special)).astype(dtype)
  for scores in (few, data.draw(st_numpy.arrays(dtype, st.integers(0, 40)))):
    for compiled in PATHS:
      found = descending(scores, compiled=compiled)
      assert found.dtype == np.int64
      np.testing.assert_array_equal(found, np.argsort(-scores, kind='stable'))


@pytest.mark.parametrize('compiled', PATHS)
def test_many_scores_in_the_order_of_a_stable_sort(compiled):
  rng = np.random.default_rng(1)
  for scores in (rng.random(70_000), rng.normal(size=70_000) ** 3, rng.integers(-4, 4, 70_000) * 0.1):
    scores = scores.astype(np.float32)
    np.testing.assert_array_equal(descending(scores, compiled=compiled), np.argsort(-scores, kind='stable'))


def test_values_that_float32_cannot_tell_apart():
  rng = np.random.default_rng(0)
  scores = rng.integers(0, 40, 5000) / 7 + rng.integers(-3, 4, 5000) * 1e-13
  scores[rng.integers(0, 5000, 500)] = 0
  np.testing.assert_array_equal(descending(scores), np.argsort(-scores, kind='stable'))
  np.testing.assert_array_equal(top_k(scores, 5000), np.argsort(-scores, kind='stable'))


def test_nan_of_any_sign_is_last_in_order_of_position():
  nans = np.array([0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF], np.uint32).view(np.float32)
  scores = np.concatenate([nans, np.array([1, np.inf, -np.inf], np.float32), nans])
  for compiled in PATHS:
    with np.errstate(invalid='ignore'):  # of signalling ones
      found = descending(scores, compiled=compiled)
    assert found.tolist() == [5, 4, 6, 0, 1, 2, 3, 7, 8, 9, 10]


@settings(deadline=None)  # numba compiles
@given(IMAGES)
def test_the_best_entry_of_an_image_is_the_first_of_its_largest(images):
  scores = np.array([score for entries in images for score in entries], np.float32)
  offsets = np.cumsum([0, *map(len, images)])
  best = best_scores(scores, offsets)
  assert best.dtype == np.float32
  assert best.tolist() == [max(entries, default=0) for entries in images]
  asked = np.arange(len(images))[::-1]
  expected = [
    offsets[image] + images[image].index(max(images[image])) if images[image] else -1 for image in asked
  ]
  for compiled in PATHS:
    found = best_entries(asked, best[asked], scores, offsets, compiled=compiled)
    assert found.dtype == np.int64
    assert found.tolist() == expected


def test_a_negative_number_of_results_is_refused():
  with pytest.raises(ValueError, match='found -1'):
    top_k(np.arange(3, dtype=np.float32), -1)
