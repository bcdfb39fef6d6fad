"""The contribution of each word to a score: the terms add up to the score of the search."""

import numpy as np
import pytest
from oracles.index_inputs import random_descriptor, random_descriptors

from delf_d2r.index import InvertedIndex
from delf_d2r.kernels.aggregation import Kernel

NUM_WORDS = 30


def build(descriptors, kernel, **options):
  images = options.pop('num_images', len(descriptors))
  return InvertedIndex.build(
    descriptors, [f'image {m}' for m in range(images)], num_words=NUM_WORDS, kernel=kernel, **options
  )


@pytest.mark.parametrize('kernel', list(Kernel))
@pytest.mark.parametrize('dimensions', [5, 64, 130])
@pytest.mark.parametrize(
  'scoring',
  [{}, {'normalize': False}, {'use_idf': True}, {'alpha': 1, 'tau': -2}, {'compat': True, 'tau': 0.1}],
)
def test_terms_add_up_to_the_score(small_segments, kernel, dimensions, scoring):
  options = {'num_words': NUM_WORDS, 'dimensions': dimensions, 'kernel': kernel}
  descriptors = random_descriptors(1, 20, **options)  # three segments
  index = build(descriptors, kernel)
  for query in random_descriptors(2, 3, **options):
    ranking = index.search(query, top_k=None, **scoring)
    for image, score in zip(ranking.image_ids.tolist(), ranking.scores, strict=True):
      if not len(query) or not len(descriptors[image]):
        continue
      words, terms = index.word_scores(query, image, **scoring)
      common = np.intersect1d(query.visual_words, descriptors[image].visual_words)
      np.testing.assert_array_equal(words, common)
      np.testing.assert_allclose(terms.sum(), score, rtol=2e-5, atol=2e-6)


def test_one_term_is_that_of_its_word():
  options = {'num_words': NUM_WORDS, 'dimensions': 64, 'kernel': Kernel.ASMK_STAR}
  descriptors = random_descriptors(3, 4, **options)
  index = build(descriptors, Kernel.ASMK_STAR)
  query = next(own for own in random_descriptors(4, 9, **options) if len(own))
  words, terms = index.word_scores(query, 2, normalize=False)
  assert len(words)
  for word, term in zip(words.tolist(), terms, strict=True):
    a, b = (d.values[d.visual_words == word][0] for d in (query, descriptors[2]))
    u = 1 - 2 * int(np.bitwise_count(a ^ b).sum()) / 64
    assert term == pytest.approx(max(u, 0) ** 3, rel=1e-6)


def test_regional_search_explains_the_region_that_scored():
  options = {'num_words': NUM_WORDS, 'dimensions': 40, 'kernel': Kernel.ASMK}
  entry_images = [0, 0, 1, 3, 3, 3]
  descriptors = random_descriptors(5, len(entry_images), **options)
  index = build(descriptors, Kernel.ASMK, num_images=4, entry_images=entry_images)
  query = next(own for own in random_descriptors(6, 9, **options) if len(own))
  ranking = index.search(query, top_k=None)
  explained = 0
  for image, score, region in zip(
    ranking.image_ids.tolist(), ranking.scores, ranking.best_regions.tolist(), strict=True
  ):
    if region >= 0:
      explained += 1
      _, terms = index.word_scores(query, image, region=region)
      np.testing.assert_allclose(terms.sum(), score, rtol=2e-5, atol=2e-6)
  assert explained == 3
  with pytest.raises(IndexError, match='no region 2 among its 1 entries'):
    index.word_scores(query, 1, region=2)
  with pytest.raises(IndexError, match='no region -1'):
    index.word_scores(query, 0)


def test_empty_descriptors_and_unknown_images():
  options = {'num_words': NUM_WORDS, 'dimensions': 16, 'kernel': Kernel.ASMK_STAR}
  rng = np.random.default_rng(7)
  full, empty = (random_descriptor(rng, **options, present=present) for present in (9, 0))
  index = build([full, empty], Kernel.ASMK_STAR)
  for query, image in [(empty, 0), (full, 1), (empty, 1)]:
    words, terms = index.word_scores(query, image)
    assert (words.dtype, len(words), len(terms)) == (np.uint32, 0, 0)
  with pytest.raises(IndexError, match='below 2, found 2'):
    index.word_scores(full, 2)
