"""What scores unrelated images have: against means and deviations of scores of many images that are drawn."""

import itertools

import numpy as np
import pytest

from delf_d2r.kernels import background
from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.kernels.background import DescriptorStatistics
from delf_d2r.kernels.similarity import selectivity, similarity
from delf_d2r.structures import AggregatedDescriptor

K, BITS = 40, 32


def drawn(rng, presence, flips, *, count):
  """Images whose words are independent; the code of a word differs from the word's own in some bits."""
  own = np.random.default_rng(99).integers(0, 2, (K, BITS)).astype(bool)
  images = []
  for _ in range(count):
    words = np.flatnonzero(rng.random(K) < presence)
    bits = own[words] ^ (rng.random((len(words), BITS)) < flips[words, None])
    images.append(AggregatedDescriptor(words.astype(np.uint32), np.packbits(bits, axis=1), BITS))
  return images


@pytest.fixture(scope='module')
def model():
  rng = np.random.default_rng(0)
  return rng.uniform(0.1, 0.6, K), rng.uniform(0.1, 0.4, K)


def measured(images, **options):
  options = {'kernel': Kernel.ASMK_STAR, 'alpha': 3, 'tau': 0, 'normalize': True} | options
  return background.word_statistics(images, K, **options)


def statistics_by_definition(images, *, alpha, tau, normalize):
  """Every pair of images, every word, one at a time."""
  found = {word: [] for word in range(K)}
  of_words = [dict(zip(i.visual_words.tolist(), i.values, strict=True)) for i in images]
  for a, b in itertools.combinations(of_words, 2):
    for word in a.keys() & b.keys():
      distance = sum(int(x).bit_count() for x in a[word] ^ b[word])
      found[word].append(float(selectivity(1 - 2 * distance / BITS, alpha=alpha, tau=tau)))
  presence, square_presence, means, square_means = np.zeros((4, K))
  for word, values in found.items():
    for own in of_words:
      gamma = 1 / np.sqrt(len(own)) if normalize else 1
      presence[word] += gamma * (word in own) / len(images)
      square_presence[word] += gamma**2 * (word in own) / len(images)
    if values:
      means[word] = sum(values) / len(values)
      square_means[word] = sum(value**2 for value in values) / len(values)
  return presence, square_presence, means, square_means


@pytest.mark.parametrize('normalize', [False, True])
@pytest.mark.parametrize(('alpha', 'tau'), [(3, 0), (1, -2), (2.5, 0.3)])
def test_statistics_are_those_of_all_pairs(model, alpha, tau, normalize):
  images = drawn(np.random.default_rng(2), *model, count=25)
  options = {'alpha': alpha, 'tau': tau, 'normalize': normalize}
  found = measured(images, **options)
  arrays = found.presence, found.square_presence, found.means, found.square_means
  for ours, theirs in zip(arrays, statistics_by_definition(images, **options), strict=True):
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_float_descriptors_have_the_same_statistics_of_cosines():
  rng = np.random.default_rng(3)
  images = []
  for _ in range(12):
    words = np.flatnonzero(rng.random(K) < 0.5)
    values = rng.standard_normal((len(words), 6)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    images.append(AggregatedDescriptor(words.astype(np.uint32), values, 6))
  found = measured(images, kernel=Kernel.ASMK)
  rows = np.concatenate([image.values[image.visual_words == 7] for image in images])
  cosines = np.array([float(a @ b) for a, b in itertools.combinations(rows, 2)])
  assert found.means[7] == pytest.approx(selectivity(cosines, alpha=3, tau=0).mean(), abs=1e-6)


@pytest.mark.parametrize('normalize', [False, True])
def test_scores_of_unrelated_images_are_as_expected(model, normalize):
  """Standardised, the scores of queries and images that are drawn from the model have mean 0, deviation 1."""
  statistics = measured(drawn(np.random.default_rng(1), *model, count=600), normalize=normalize)
  queries, images = (drawn(np.random.default_rng(seed), *model, count=3000) for seed in (4, 5))
  standardised, sizes = [], []
  for query, image in zip(queries, images, strict=True):
    expected = statistics.expected(query.visual_words)
    score = similarity(query, image, kernel=Kernel.ASMK_STAR, normalize=normalize)
    standardised.append((score - expected.mean) / expected.deviation)
    sizes.append(len(query))
  # Of queries with few words as of those with many.
  few = np.array(sizes) < np.median(sizes)
  for some in (few, ~few):
    assert np.mean(np.array(standardised)[some]) == pytest.approx(0, abs=0.1)
    assert np.std(np.array(standardised)[some]) == pytest.approx(1, abs=0.1)


def test_a_query_without_words_or_with_unknown_ones(model):
  statistics = measured(drawn(np.random.default_rng(1), *model, count=20))
  nothing = statistics.expected(np.zeros(0, np.uint32))
  assert (nothing.mean, nothing.deviation) == (0, 0)
  # A word of fewer than two images has no pairs.
  first, second = drawn(np.random.default_rng(9), np.full(K, 0.3), np.full(K, 0.2), count=2)
  found = measured([first, second])
  alone = np.setxor1d(first.visual_words, second.visual_words)
  assert set(found.means[alone].tolist()) == {0}
  assert found.expected(alone).deviation == 0


def test_a_sample_of_the_codes_of_a_word_is_always_the_same(model, monkeypatch):
  images = drawn(np.random.default_rng(7), *model, count=60)
  whole = measured(images)
  monkeypatch.setattr(background, 'MOST_CODES', 8)
  some = [measured(images) for _ in range(2)]
  np.testing.assert_array_equal(some[0].means, some[1].means)
  np.testing.assert_array_equal(some[0].presence, whole.presence)
  assert np.abs(some[0].means - whole.means).max() < 0.2
  assert not np.array_equal(measured(images, seed=1).means, some[0].means)


def test_products_of_global_descriptors_are_as_expected():
  rng = np.random.default_rng(8)
  mixing = rng.standard_normal((6, 6))
  rows = (rng.standard_normal((5000, 6)) @ mixing + 0.5).astype(np.float32)
  found = background.descriptor_statistics(rows)
  query = rng.standard_normal(6).astype(np.float32)
  expected = found.expected(query)
  products = rows @ query
  assert expected.mean == pytest.approx(products.mean(), rel=1e-3)
  assert expected.deviation == pytest.approx(products.std(), rel=1e-3)
  flat = DescriptorStatistics(np.ones(6, np.float32), np.zeros((6, 6), np.float32))
  assert flat.expected(query).deviation == 0


def test_what_images_score_is_what_each_of_them_scores_as_a_query():
  rng = np.random.default_rng(9)
  found = background.descriptor_statistics(rng.standard_normal((50, 6)).astype(np.float32))
  rows = np.concatenate([rng.standard_normal((7, 6)), np.zeros((1, 6))]).astype(np.float32)
  of_images = found.expected_of_images([rows[:3], rows[3:]])
  each = [found.expected(row) for row in rows]
  np.testing.assert_allclose(of_images.means, [own.mean for own in each], rtol=1e-12)
  np.testing.assert_allclose(of_images.deviations, [own.deviation for own in each], rtol=1e-9)
  assert found.expected_of_images([]).means.shape == (0,)


def test_too_few_images():
  with pytest.raises(ValueError, match='expected at least 2 images of ASMK or ASMK_STAR, found 0'):
    measured([], kernel=Kernel.ASMK)
  with pytest.raises(ValueError, match='found 3 of VLAD'):
    measured([None] * 3, kernel=Kernel.VLAD)
  with pytest.raises(ValueError, match='at least 2 descriptors, found 1'):
    background.descriptor_statistics(np.zeros((1, 4), np.float32))
