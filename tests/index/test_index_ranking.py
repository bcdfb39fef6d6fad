"""The choice of the best images: the fast functions choose the same as a full sort and a loop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delf_d2r.index.ranking import best_entries, best_scores, top_k

# Few values, so that many are equal.
SCORES = st.lists(st.integers(-2, 6), max_size=120).map(lambda values: np.array(values, np.float32) / 4)
IMAGES = st.lists(st.lists(st.integers(-3, 3), max_size=4), min_size=1, max_size=8)


@given(SCORES, st.integers(0, 6))
def test_the_first_of_a_full_ranking(scores, k):
  expected = sorted(range(len(scores)), key=lambda position: (-scores[position], position))[:k]
  assert top_k(scores, k).tolist() == expected


@pytest.mark.parametrize('k', [1, 10, 100])
def test_the_first_of_many(k):
  scores = np.random.default_rng(k).permutation(5000).astype(np.float32)
  np.testing.assert_array_equal(top_k(scores, k), np.argsort(-scores)[:k])


@given(IMAGES)
def test_the_best_entry_of_an_image_is_the_first_of_its_largest(images):
  scores = np.array([score for entries in images for score in entries], np.float32)
  offsets = np.cumsum([0, *map(len, images)])
  best = best_scores(scores, offsets)
  assert best.dtype == np.float32
  assert best.tolist() == [max(entries, default=0) for entries in images]
  asked = np.arange(len(images))[::-1]
  found = best_entries(asked, best[asked], scores, offsets)
  expected = [
    offsets[image] + images[image].index(max(images[image])) if images[image] else -1 for image in asked
  ]
  assert found.tolist() == expected


def test_a_negative_number_of_results_is_refused():
  with pytest.raises(ValueError, match='found -1'):
    top_k(np.arange(3, dtype=np.float32), -1)
