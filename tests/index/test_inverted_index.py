"""Scores and rankings of the index against a comparison of the query with every image."""

import functools
import math
import threading
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracles import index_oracle
from oracles.index_inputs import random_descriptor, random_descriptors

from delf_d2r.index import InvertedIndex
from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.kernels.compiled import HAVE_NUMBA
from delf_d2r.kernels.similarity import similarity
from delf_d2r.structures import AggregatedDescriptor

PATHS = [False, True] if HAVE_NUMBA else [False]
DIMENSIONS = [5, 8, 9, 40, 64, 100, 128, 130]


def build(descriptors, num_words, kernel, **options):
  images = options.pop('num_images', len(descriptors))
  names = [f'image {m}' for m in range(images)]
  return InvertedIndex.build(descriptors, names, num_words=num_words, kernel=kernel, **options)


def assert_same_ranking(ranking, ids, scores):
  """Equal up to the order of images whose scores differ by rounding alone."""
  np.testing.assert_allclose(ranking.scores, scores, rtol=2e-5, atol=2e-6)
  expected = dict(zip(ids, scores, strict=True))
  np.testing.assert_allclose(
    ranking.scores, [expected[m] for m in ranking.image_ids.tolist()], rtol=2e-5, atol=2e-6
  )
  assert sorted(ranking.image_ids.tolist()) == sorted(ids)


@pytest.mark.parametrize('compiled', PATHS)
@pytest.mark.parametrize('dimensions', DIMENSIONS)
@pytest.mark.parametrize('kernel', list(Kernel))
def test_scores_equal_the_brute_force_kernel(kernel, dimensions, compiled):
  options = {'num_words': 30, 'dimensions': dimensions, 'kernel': kernel}
  descriptors = random_descriptors(1, 25, **options)
  index = build(descriptors, 30, kernel)
  for query in random_descriptors(2, 4, **options):
    for normalize, compat, alpha, tau in [
      (True, False, 3.0, 0.0),
      (False, True, 2.5, 0.1),
      (True, True, 1, -2),
    ]:
      pair = {'kernel': kernel, 'alpha': alpha, 'tau': tau, 'normalize': normalize, 'compat': compat}
      expected = [similarity(query, entry, **pair) for entry in descriptors]
      pair.pop('kernel')
      ranking = index.search(query, top_k=None, compiled=compiled, **pair)
      np.testing.assert_allclose(ranking.scores, np.array(expected)[ranking.image_ids], rtol=2e-5, atol=2e-6)
      assert (np.diff(ranking.scores) <= 0).all()
      assert sorted(ranking.image_ids) == list(range(25))


@pytest.mark.parametrize('compiled', PATHS)
@pytest.mark.parametrize('regional', [False, True])
@pytest.mark.parametrize('use_idf', [False, True])
@pytest.mark.parametrize('kernel', list(Kernel))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
  seed=st.integers(0, 2**31),
  entries=st.integers(0, 24),
  dimensions=st.sampled_from(DIMENSIONS),
  normalize=st.booleans(),
  coarse=st.booleans(),
  top_k=st.sampled_from([None, 0, 1, 3, 100]),
)
def test_rankings_equal_the_oracle(
  small_segments, kernel, use_idf, regional, compiled, seed, entries, dimensions, normalize, coarse, top_k
):
  options = {'num_words': 12, 'dimensions': dimensions, 'kernel': kernel, 'coarse': coarse}
  rng = np.random.default_rng(seed)
  descriptors = [random_descriptor(rng, **options) for _ in range(entries)]
  images = entries if not regional else 7
  owners = np.arange(entries) if not regional else np.sort(rng.integers(0, images, entries))
  index = build(
    descriptors,
    12,
    kernel,
    dimensions=dimensions,
    num_images=images,
    entry_images=owners if regional else None,
  )
  query = random_descriptor(rng, **options)
  ids, scores, winners = index_oracle.rank(
    query, descriptors, owners, images, num_words=12, kernel=kernel, normalize=normalize, use_idf=use_idf
  )
  ranking = index.search(
    query, top_k=top_k, normalize=normalize, use_idf=use_idf, compiled=compiled, name='q'
  )

  k = min(top_k or images, images)
  assert ranking.query == 'q'
  assert len(ranking) == k
  full = index.search(query, top_k=None, normalize=normalize, use_idf=use_idf, compiled=compiled)
  np.testing.assert_array_equal(ranking.image_ids, full.image_ids[:k])
  assert_same_ranking(full, ids, scores)
  # Equal scores are in order of image id.
  equal = np.diff(full.scores) == 0
  assert (np.diff(full.image_ids)[equal] > 0).all()
  if not regional:
    assert (full.best_regions == -1).all()
    return
  score_of = lambda e: index_oracle.score(  # noqa: E731
    query,
    descriptors[e],
    kernel=kernel,
    normalize=normalize,
    weights=index_oracle.idf(descriptors, 12) if use_idf else None,
  )
  by_image = dict(zip(ids, winners, strict=True))
  for image, region, score in zip(
    full.image_ids.tolist(), full.best_regions.tolist(), full.scores, strict=True
  ):
    if by_image[image] is None:
      assert region == -1
    else:
      entry = int(np.flatnonzero(owners == image)[region])
      assert math.isclose(score_of(entry), score, rel_tol=2e-5, abs_tol=2e-6)


@pytest.mark.skipif(not HAVE_NUMBA, reason='compares the compiled path with the NumPy path; numba is absent')
@pytest.mark.parametrize('dimensions', DIMENSIONS)
def test_compiled_and_numpy_paths_give_the_same_bytes_for_binary_codes(dimensions):
  options = {'num_words': 50, 'dimensions': dimensions, 'kernel': Kernel.ASMK_STAR}
  index = build(random_descriptors(3, 60, **options), 50, Kernel.ASMK_STAR)
  for query in random_descriptors(4, 5, **options):
    one, two = (index.search(query, top_k=20, compiled=path, use_idf=True) for path in PATHS)
    np.testing.assert_array_equal(one.image_ids, two.image_ids)
    assert one.scores.tobytes() == two.scores.tobytes()


@pytest.mark.parametrize('compiled', PATHS)
def test_lists_of_any_length_take_the_same_scores(compiled, monkeypatch):
  """The NumPy path takes lists in groups."""
  options = {'num_words': 6, 'dimensions': 130, 'kernel': Kernel.ASMK_STAR}
  descriptors = random_descriptors(5, 40, **options)
  index = build(descriptors, 6, Kernel.ASMK_STAR)
  query = random_descriptors(6, 1, present=5, **options)[0]
  expected = [similarity(query, entry, kernel=Kernel.ASMK_STAR, normalize=True) for entry in descriptors]
  for postings in (1, 30, 10**9):
    monkeypatch.setattr('delf_d2r.index.scan.GROUP_POSTINGS', postings)
    ranking = index.search(query, top_k=None, compiled=compiled)
    np.testing.assert_allclose(ranking.scores, np.array(expected)[ranking.image_ids], rtol=1e-5)


def test_two_real_segments():
  """Entries on both sides of 65,536."""
  count = 65_536 + 300
  options = {'num_words': 40, 'dimensions': 16, 'kernel': Kernel.ASMK_STAR, 'present': 2}
  distinct = random_descriptors(7, 200, **options)
  index = build([distinct[e % 200] for e in range(count)], 40, Kernel.ASMK_STAR)
  query = random_descriptors(8, 1, num_words=40, dimensions=16, kernel=Kernel.ASMK_STAR, present=20)[0]
  expected = np.array(
    [similarity(query, entry, kernel=Kernel.ASMK_STAR, normalize=True) for entry in distinct]
  )
  ranking = index.search(query, top_k=None)
  np.testing.assert_allclose(ranking.scores, expected[ranking.image_ids % 200], rtol=1e-5, atol=1e-7)
  assert ranking.image_ids[:3].tolist() == (expected.argmax() + np.array([0, 200, 400])).tolist()


def test_equal_to_the_asmk_package():
  inverted_file = pytest.importorskip('asmk.inverted_file', reason='the package asmk is not installed')
  asmk_kernel = pytest.importorskip('asmk.kernel')
  from delf_d2r.kernels.aggregation import aggregate

  rng = np.random.default_rng(9)
  dimensions, num_words, images = 64, 50, 30  # asmk needs D to be a multiple of 32
  centroids = rng.standard_normal((num_words, dimensions)).astype(np.float32)
  features = [rng.standard_normal((40, dimensions)).astype(np.float32) for _ in range(images + 5)]
  assigned = [rng.integers(0, num_words, (40, 1)) for _ in features]

  class Codebook:
    pass

  codebook = Codebook()
  codebook.centroids = centroids
  for kernel, binary in ((Kernel.ASMK_STAR, True), (Kernel.ASMK, False)):
    theirs = asmk_kernel.ASMKKernel(codebook, binary=binary)
    ours = [aggregate(x, w, centroids, kernel=kernel) for x, w in zip(features, assigned, strict=True)]
    index = build(ours[:images], num_words, kernel)
    for use_idf in (False, True):
      ivf = inverted_file.IVF.initialize_empty(codebook_size=num_words, use_idf=use_idf)
      ivf.add(
        *theirs.aggregate(
          np.concatenate(features[:images]),
          np.concatenate(assigned[:images]),
          np.repeat(np.arange(images), 40),
        )
      )
      for q in range(images, images + 5):
        ids, scores = ivf.search(
          *theirs.aggregate_image(features[q], assigned[q]),
          similarity_func=functools.partial(theirs.similarity, alpha=3.0, similarity_threshold=0.0),
          topk=images,
        )
        ranking = index.search(ours[q], top_k=None, use_idf=use_idf)
        assert_same_ranking(ranking, ids.tolist(), scores)
        assert ranking.scores[0] > 0


@pytest.mark.parametrize('compiled', PATHS)
def test_a_query_without_words_scores_zero_everywhere(compiled):
  options = {'num_words': 10, 'dimensions': 16, 'kernel': Kernel.ASMK_STAR}
  index = build(random_descriptors(10, 5, **options), 10, Kernel.ASMK_STAR)
  empty = random_descriptors(0, 1, present=0, **options)[0]
  ranking = index.search(empty, compiled=compiled)
  assert ranking.image_ids.tolist() == [0, 1, 2, 3, 4]
  assert ranking.scores.tolist() == [0] * 5
  assert index.search(empty, compat=True, compiled=compiled).scores.tolist() == [-1] * 5
  assert index.search(empty, use_idf=True, compiled=compiled).scores.tolist() == [0] * 5


def test_an_index_without_images():
  index = InvertedIndex.build([], [], num_words=10, kernel=Kernel.ASMK_STAR, dimensions=16)
  query = random_descriptors(0, 1, num_words=10, dimensions=16, kernel=Kernel.ASMK_STAR)[0]
  assert len(index) == len(index.search(query)) == len(index.search(query, use_idf=True, top_k=None)) == 0
  assert index.imbalance == 0
  with pytest.raises(ValueError, match='dimensions=D'):
    InvertedIndex.build([], [], num_words=10, kernel=Kernel.ASMK_STAR)


def test_a_word_of_every_image_has_no_weight_and_does_not_divide_by_zero():
  descriptors = random_descriptors(
    11, 4, num_words=3, dimensions=8, kernel=Kernel.ASMK_STAR, present=3, coarse=True
  )
  ranking = build(descriptors, 3, Kernel.ASMK_STAR).search(descriptors[0], use_idf=True)
  assert ranking.scores.tolist() == [0, 0, 0, 0]


def test_batch_equals_single_searches_in_any_number_of_threads():
  options = {'num_words': 40, 'dimensions': 128, 'kernel': Kernel.ASMK_STAR}
  index = build(random_descriptors(12, 50, **options), 40, Kernel.ASMK_STAR)
  queries = random_descriptors(13, 20, **options)
  names = [f'q{i}' for i in range(20)]
  single = [index.search(query, name=name, top_k=9) for query, name in zip(queries, names, strict=True)]
  for threads in (1, 2, 5, None):
    batch = index.search_batch(queries, names=names, top_k=9, threads=threads)
    for a, b in zip(single, batch, strict=True):
      assert a.query == b.query
      np.testing.assert_array_equal(a.image_ids, b.image_ids)
      assert a.scores.tobytes() == b.scores.tobytes()
  assert [ranking.query for ranking in index.search_batch(queries[:2])] == ['', '']
  for wrong in (names[:1], [*names, 'q20']):
    with pytest.raises(ValueError, match=f'20 queries, found {len(wrong)}'):
      index.search_batch(queries, names=wrong)


def test_a_batch_takes_no_more_threads_than_it_may(monkeypatch):
  options = {'num_words': 10, 'dimensions': 16, 'kernel': Kernel.ASMK_STAR}
  index = build(random_descriptors(12, 5, **options), 10, Kernel.ASMK_STAR)
  used = set()
  monkeypatch.setattr(
    index, 'search', lambda query, **_: (time.sleep(0.002), used.add(threading.get_ident()))
  )
  index.search_batch(random_descriptors(13, 20, **options), threads=1)
  assert len(used) == 1


def test_a_ranking_has_100_images_by_default():
  options = {'num_words': 10, 'dimensions': 16, 'kernel': Kernel.ASMK_STAR}
  index = build(random_descriptors(12, 120, **options), 10, Kernel.ASMK_STAR)
  assert len(index.search(random_descriptors(13, 1, **options)[0])) == 100


def test_regions_are_named_as_given_and_the_first_of_equal_ones_wins():
  words = np.array([1], np.uint32)
  same, opposite = (AggregatedDescriptor(words, np.array([[b]], np.uint8), 8) for b in (0, 255))
  index = InvertedIndex.build(
    [opposite, same, same, opposite, same],
    ['a', 'b', 'c'],
    num_words=2,
    kernel=Kernel.ASMK_STAR,
    entry_images=[0, 0, 0, 2, 2],
    entry_regions=[10, 11, 12, 20, 25],
  )
  ranking = index.search(same)
  assert ranking.image_ids.tolist() == [0, 2, 1]
  assert ranking.best_regions.tolist() == [11, 25, -1]
  assert ranking.scores.tolist() == [1, 1, 0]


def test_inspection():
  options = {'num_words': 10, 'dimensions': 128, 'kernel': Kernel.ASMK_STAR}
  descriptors = random_descriptors(14, 20, **options)
  index = build(descriptors, 10, Kernel.ASMK_STAR)
  sizes = np.bincount(np.concatenate([d.visual_words for d in descriptors]), minlength=10)
  np.testing.assert_array_equal(index.list_sizes(), sizes)
  assert index.imbalance == pytest.approx(10 * (sizes**2).sum() / sizes.sum() ** 2)
  assert index.num_postings == sizes.sum()
  of_names = index.image_names.nbytes
  assert of_names == 8 * 21 + len(''.join(index.image_names))
  assert index.nbytes == 18 * sizes.sum() + 4 * 11 + 4 * 20 + of_names
  assert repr(index) == (
    f'InvertedIndex(ASMK_STAR, 20 images, 20 entries, {sizes.sum()} postings, K=10, D=128, 0.0 MB)'
  )
  assert index.image_names[3] == index.image_names[-17] == 'image 3'
  assert index.image_names[1:3] == ['image 1', 'image 2']
  assert list(index.image_names)[19] == 'image 19'


@pytest.mark.parametrize(
  'change, message',
  [
    ({'kernel': Kernel.ASMK}, 'expected a binary'),
    ({'dimensions': 24}, 'expected a descriptor of 16 dimensions, found 24'),
    ({'num_words': 40, 'present': 40}, 'below K = 10, found 0 to 39'),
  ],
)
def test_descriptors_that_do_not_fit_are_refused(change, message):
  options = {'num_words': 10, 'dimensions': 16, 'kernel': Kernel.ASMK_STAR, 'present': 4}
  good = random_descriptors(15, 3, **options)
  index = build(good, 10, Kernel.ASMK_STAR)
  bad = random_descriptors(16, 1, **{**options, **change})[0]
  with pytest.raises(ValueError, match=message):
    index.search(bad)
  with pytest.raises(ValueError, match=message):
    index.add([bad], ['new'])
  assert len(index) == index.num_entries == 3


@pytest.mark.parametrize(
  'words, message', [([3, 2], 'ascending'), ([3, 3], 'ascending'), ([-1, 2], 'found -1 to 2')]
)
def test_words_out_of_order_or_range_are_refused(words, message):
  values = np.zeros((2, 2), np.uint8)
  good = AggregatedDescriptor(np.array([2, 5], np.uint32), values, 16)
  bad = AggregatedDescriptor(np.array(words), values, 16)
  index = build([good], 10, Kernel.ASMK_STAR)
  with pytest.raises(ValueError, match=message):
    build([good, bad, good], 10, Kernel.ASMK_STAR)
  with pytest.raises(ValueError, match=message):
    index.search(bad)


@pytest.mark.parametrize(
  'options, message',
  [
    ({'image_names': ['a', 'a']}, "'a' twice"),
    ({'image_names': ['a']}, 'expected 1 descriptors, one for each entry, found more'),
    ({'image_names': ['a', 'b', 'c']}, 'expected 3 descriptors, one for each entry, found 2'),
    ({'image_names': ['a'], 'entry_images': [0, 1]}, 'ascending images below 1'),
    ({'image_names': ['a', 'b'], 'entry_images': [1, 0]}, 'with 1 descents'),
    ({'image_names': ['a', 'b'], 'entry_images': [-1, 1]}, 'found -1 to 1 with 0 descents'),
    ({'image_names': ['a', 'b', 'c'], 'entry_images': [0, 1, 2, 1]}, 'found 0 to 2 with 1 descents'),
    ({'image_names': ['a', 'b'], 'entry_regions': [1, 0]}, 'need entry_images'),
    ({'image_names': ['a'], 'entry_images': [0, 0], 'entry_regions': [1]}, 'expected 2, one for each'),
  ],
)
def test_entries_that_disagree_are_refused(options, message):
  descriptors = random_descriptors(17, 2, num_words=10, dimensions=16, kernel=Kernel.ASMK_STAR)
  with pytest.raises(ValueError, match=message):
    InvertedIndex.build(descriptors, num_words=10, kernel=Kernel.ASMK_STAR, **options)


def test_search_allocates_little():
  """A search allocates its scores and a ranking, nothing of the size of the postings."""
  options = {'num_words': 64, 'dimensions': 128, 'kernel': Kernel.ASMK_STAR, 'present': 60}
  index = build(random_descriptors(18, 3000, **options), 64, Kernel.ASMK_STAR)
  query = random_descriptors(19, 1, **options)[0]
  index.search(query)
  tracemalloc.start()
  index.search(query)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  if HAVE_NUMBA:
    assert peak < 200_000 < index.nbytes / 10


@pytest.mark.parametrize('is_regional', [False, True])
@pytest.mark.parametrize('top_k', [-1, -100])
def test_a_negative_number_of_results_is_refused(top_k, is_regional):
  # A slice up to -1 dropped the last image.
  query = AggregatedDescriptor(np.array([1], np.uint32), np.ones((1, 4), np.float32), 4)
  index = InvertedIndex.build(
    [query] * 3,
    ['a', 'b', 'c'],
    num_words=2,
    kernel=Kernel.VLAD,
    entry_images=[0, 1, 2] if is_regional else None,
  )
  with pytest.raises(ValueError, match=f'found {top_k}'):
    index.search(query, top_k=top_k)
  with pytest.raises(ValueError, match=f'found {top_k}'):
    index.search_batch([query], top_k=top_k)
  assert index.search(query, top_k=0).image_ids.tolist() == [0, 1, 2]


def test_nan_is_refused_in_queries_and_images():
  good = AggregatedDescriptor(np.array([1], np.uint32), np.ones((1, 4), np.float32), 4)
  bad = AggregatedDescriptor(np.array([1], np.uint32), np.full((1, 4), np.nan, np.float32), 4)
  index = InvertedIndex.build([good], ['a'], num_words=2, kernel=Kernel.VLAD)
  with pytest.raises(ValueError, match='NaN'):
    index.search(bad)
  with pytest.raises(ValueError, match='NaN'):
    index.add([bad], ['b'])
  assert list(index.image_names) == ['a']
