"""The scan alone, on segments made by hand: weights, powers, many words, impossible lists."""

import numpy as np
import pytest

from delf_d2r.index.scan import add_word_weights, scan_binary, scan_float
from delf_d2r.index.segments import Segment
from delf_d2r.kernels.compiled import HAVE_NUMBA

PATHS = [False, True] if HAVE_NUMBA else [False]
NUM_WORDS, ENTRIES = 300, 60


def make_segment(columns, *, seed=0, num_words=NUM_WORDS, dtype=np.uint64):
  """A segment whose words have 0 to 49 postings each; one column of codes or more, or 3 floats for None."""
  rng = np.random.default_rng(seed)
  lists = [np.sort(rng.choice(ENTRIES, rng.integers(0, 50), replace=False)) for _ in range(num_words)]
  offsets = np.cumsum([0, *map(len, lists)]).astype(np.uint32)
  ids = np.concatenate(lists).astype(np.uint16)
  if columns is None:
    values = rng.standard_normal((len(ids), 3)).astype(np.float32)
  else:
    values = rng.integers(0, 2**64, (columns, len(ids)), np.uint64).astype(dtype)
  return Segment(offsets, ids, values, np.bincount(ids, minlength=ENTRIES).astype(np.uint32))


def expected_scores(segment, words, weights, similarity_of):
  """The definition: `similarity_of(i, posting)` for the i-th word of the query."""
  scores = np.zeros(1 << 16)
  for i, word in enumerate(words.tolist()):
    for posting in range(int(segment.offsets[word]), int(segment.offsets[word + 1])):
      scores[segment.entry_ids[posting]] += weights[i] * similarity_of(i, posting)
  return scores


def scanned_binary(segment, words, codes, weights, table, compiled):
  scores = np.zeros(1 << 16, np.float32)
  scan_binary(segment, words, codes, weights, table, scores, compiled=compiled)
  return scores


@pytest.mark.parametrize('compiled', PATHS)
@pytest.mark.parametrize('dtype', [np.uint64, np.uint32])
@pytest.mark.parametrize('columns', [1, 2, 3, 4])
@pytest.mark.parametrize('first', [0, 1, 2])
def test_each_word_has_its_own_weight_from_the_first_on(columns, first, dtype, compiled):
  """There are more words than Python has cached integers."""
  segment = make_segment(columns, dtype=dtype)
  rng = np.random.default_rng(1)
  words = np.arange(NUM_WORDS, dtype=np.uint32)
  codes = rng.integers(0, 2**64, (NUM_WORDS, columns), np.uint64).astype(dtype)
  weights = rng.integers(0, 4, NUM_WORDS).astype(np.float32)
  weights[: NUM_WORDS // 10] = first
  table = rng.random(64 * columns + 1, np.float32)

  def similarity_of(i, posting):
    return table[int(np.bitwise_count(segment.values[:, posting] ^ codes[i]).sum())]

  expected = expected_scores(segment, words, weights, similarity_of)
  found = scanned_binary(segment, words, codes, weights, table, compiled)
  np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize('compiled', PATHS)
@pytest.mark.parametrize('columns', [1, 2, 3])
def test_as_many_words_as_one_path_has_columns(columns, compiled):
  segment = make_segment(columns)
  words, weights = np.array([7, 9], np.uint32), np.ones(2, np.float32)
  table = np.arange(64 * columns + 1, dtype=np.float32)
  found = scanned_binary(segment, words, np.zeros((2, columns), np.uint64), weights, table, compiled)
  expected = expected_scores(
    segment, words, weights, lambda _, posting: np.bitwise_count(segment.values[:, posting]).sum()
  )
  np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize('compiled', PATHS)
@pytest.mark.parametrize('alpha', [None, 0.5, 1, 2.5, 3, 8, 9])
@pytest.mark.parametrize('tau', [-9, 0, 0.3])
def test_powers_keep_the_sign(alpha, tau, compiled):
  segment = make_segment(None)
  segment.values[5] = 0
  rng = np.random.default_rng(2)
  words = np.sort(rng.choice(NUM_WORDS, 200, replace=False)).astype(np.uint32)
  values = rng.standard_normal((200, 3)).astype(np.float32) / 3
  weights = rng.random(200, np.float32)

  def similarity_of(i, posting):
    u = float(values[i] @ segment.values[posting])
    if alpha is None:
      return u
    return np.sign(u) * abs(u) ** alpha if u > tau else 0

  scores = np.zeros(1 << 16, np.float32)
  scan_float(segment, words, values, weights, alpha, tau, scores, compiled=compiled)
  expected = expected_scores(segment, words, weights, similarity_of)
  assert (expected < 0).any() == (alpha is None or tau < 0)
  np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('compiled', PATHS)
def test_lists_that_end_before_they_begin_are_empty(compiled):
  """A file may change after it was checked: nothing outside the arrays is read."""
  segment = make_segment(1, num_words=6)
  segment.offsets[:] = [0, 9, 3, 2**32 - 1, 4, 5, segment.num_postings]
  rng = np.random.default_rng(3)
  words = np.arange(6, dtype=np.uint32)
  codes = rng.integers(0, 2**64, (6, 1), np.uint64)
  table, weights = np.ones(65, np.float32), np.ones(6, np.float32)
  found = scanned_binary(segment, words, codes, weights, table, compiled)
  lists = [(0, 9), (3, segment.num_postings), (4, 5), (5, segment.num_postings)]
  expected = np.zeros(1 << 16)
  for start, stop in lists:
    expected += np.bincount(segment.entry_ids[start:stop], minlength=1 << 16)
  np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('compiled', PATHS)
def test_weights_of_the_words_that_entries_have(compiled):
  segment = make_segment(1)
  weights = np.random.default_rng(4).random(NUM_WORDS)
  sums = np.zeros(1 << 16)
  add_word_weights(segment, weights, sums, compiled=compiled)
  expected = expected_scores(segment, np.arange(NUM_WORDS), np.ones(NUM_WORDS), lambda i, posting: weights[i])
  np.testing.assert_allclose(sums, expected)
  assert sums[:ENTRIES].all()
