"""Region masks in the index: the score of the best region, against a comparison with every region."""

import dataclasses
import itertools

import numpy as np
import pytest
from oracles import index_oracle
from oracles.index_inputs import (
  directory_bytes,
  random_descriptor,
  random_descriptors,
  random_masked_descriptors,
  with_masks,
)

from delf_d2r.index import IndexFormatError, InvertedIndex
from delf_d2r.index.search import best_region_scores, best_regions
from delf_d2r.index.segments import Layout
from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.kernels.compiled import HAVE_NUMBA
from delf_d2r.kernels.similarity import region_similarities
from delf_d2r.structures import AggregatedDescriptor

PATHS = [False, True] if HAVE_NUMBA else [False]
KERNELS = [Kernel.ASMK, Kernel.ASMK_STAR]
NUM_WORDS = 30
SCORINGS = [
  {},
  {'normalize': False},
  {'use_idf': True},
  {'use_idf': True, 'normalize': False},
  {'alpha': 1, 'tau': -2},
  {'alpha': 2.5, 'compat': True, 'tau': 0.1},
]


def build(descriptors, kernel=Kernel.ASMK_STAR, **options):
  names = options.pop('names', [f'image {m} ä\udcff' for m in range(len(descriptors))])
  return InvertedIndex.build(
    descriptors, names, **{'num_words': NUM_WORDS, 'kernel': kernel, 'region_masks': True} | options
  )


def drawn(kernel, dimensions=20):
  return {'num_words': NUM_WORDS, 'dimensions': dimensions, 'kernel': kernel}


@pytest.mark.parametrize('compiled', PATHS)
@pytest.mark.parametrize('dimensions', [5, 128, 130])
@pytest.mark.parametrize('kernel', KERNELS)
def test_scores_and_regions_equal_a_comparison_with_every_region(
  small_segments, kernel, dimensions, compiled
):
  options = drawn(kernel, dimensions)
  descriptors = random_masked_descriptors(1, 14, **options)
  descriptors[3] = descriptors[12] = dataclasses.replace(
    random_descriptor(np.random.default_rng(0), **options, present=0), region_masks=np.zeros(0, np.uint8)
  )
  index = build(descriptors, kernel)
  for scoring, query in itertools.product(SCORINGS, random_descriptors(2, 2, **options)):
    oracle = {'kernel': kernel, 'num_words': NUM_WORDS} | scoring
    ids, scores, _ = index_oracle.rank_by_region(query, descriptors, **oracle)
    ranking = index.search(query, top_k=None, compiled=compiled, **scoring)
    expected = dict(zip(ids, scores, strict=True))
    np.testing.assert_allclose(ranking.scores, scores, rtol=2e-5, atol=2e-6)
    found = [expected[m] for m in ranking.image_ids.tolist()]
    np.testing.assert_allclose(ranking.scores, found, rtol=2e-5, atol=2e-6)
    weights = index_oracle.idf(descriptors, NUM_WORDS) if scoring.get('use_idf') else None
    pair = {key: value for key, value in scoring.items() if key != 'use_idf'}
    for image, score, region in zip(
      ranking.image_ids.tolist(), ranking.scores, ranking.best_regions.tolist(), strict=True
    ):
      if not len(descriptors[image]):
        assert region == 0
        continue
      if not len(query):
        continue
      each = index_oracle.region_scores(query, descriptors[image], kernel=kernel, weights=weights, **pair)
      np.testing.assert_allclose(each[region], score, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize('scoring', SCORINGS)
@pytest.mark.parametrize('kernel', KERNELS)
def test_both_paths_give_the_same_numbers(small_segments, kernel, scoring):
  if not HAVE_NUMBA:
    pytest.skip('one path')
  options = drawn(kernel, 70)
  index = build(random_masked_descriptors(3, 30, **options), kernel)
  for query in random_descriptors(4, 5, **options):
    plain, compiled = (index.search(query, top_k=None, compiled=path, **scoring) for path in PATHS)
    if kernel.is_binary:
      assert plain.scores.tobytes() == compiled.scores.tobytes()
      np.testing.assert_array_equal(plain.image_ids, compiled.image_ids)
      np.testing.assert_array_equal(plain.best_regions, compiled.best_regions)
    else:
      np.testing.assert_allclose(plain.scores, compiled.scores, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize('compiled', PATHS)
def test_ties_are_in_order_of_image_and_region(small_segments, compiled):
  """Coarse values: many equal scores, exactly."""
  options = drawn(Kernel.ASMK_STAR, 16) | {'coarse': True}
  descriptors = random_masked_descriptors(5, 40, **options)
  descriptors = [*descriptors, *descriptors]  # every score twice
  index = build(descriptors)
  for query in random_descriptors(6, 4, **options):
    ids, _, regions = index_oracle.rank_by_region(
      query, descriptors, kernel=Kernel.ASMK_STAR, num_words=NUM_WORDS, normalize=False
    )
    full = index.search(query, top_k=None, normalize=False, compiled=compiled)
    np.testing.assert_array_equal(full.image_ids, ids)
    np.testing.assert_array_equal(full.best_regions, regions)
    for k in (1, 7, 40):
      head = index.search(query, top_k=k, normalize=False, compiled=compiled)
      np.testing.assert_array_equal(head.image_ids, ids[:k])
      np.testing.assert_array_equal(head.best_regions, regions[:k])


@pytest.mark.parametrize('kernel', KERNELS)
def test_one_region_is_an_index_without_masks(kernel):
  options = drawn(kernel, 40)
  rng = np.random.default_rng(7)
  plain = random_descriptors(7, 12, **options)
  masked = build([with_masks(rng, own, regions=1) for own in plain], kernel)
  without = build(plain, kernel, region_masks=False)
  for scoring, query in itertools.product(SCORINGS, random_descriptors(8, 3, **options)):
    one, other = (index.search(query, top_k=None, **scoring) for index in (masked, without))
    np.testing.assert_allclose(one.scores, other.scores, rtol=1e-6)
    np.testing.assert_array_equal(one.image_ids, other.image_ids)
    assert set(one.best_regions.tolist()) == {0}
    assert set(other.best_regions.tolist()) == {-1}


@pytest.mark.parametrize('kernel', KERNELS)
def test_terms_of_a_region_add_up_to_its_score(small_segments, kernel):
  options = drawn(kernel, 40)
  descriptors = random_masked_descriptors(9, 20, **options)
  index = build(descriptors, kernel)
  for scoring, query in itertools.product(SCORINGS, random_descriptors(10, 3, **options)):
    ranking = index.search(query, top_k=None, **scoring)
    for image, score, region in zip(
      ranking.image_ids.tolist(), ranking.scores, ranking.best_regions.tolist(), strict=True
    ):
      words, terms = index.word_scores(query, image, region=region, **scoring)
      own = descriptors[image]
      of_region = own.visual_words[own.region_masks >> region & 1 == 1]
      np.testing.assert_array_equal(words, np.intersect1d(query.visual_words, of_region))
      if len(query) and len(own):
        np.testing.assert_allclose(terms.sum(), score, rtol=2e-5, atol=2e-6)
  for region in (-1, 8):
    with pytest.raises(IndexError, match=f'no region {region}'):
      index.word_scores(query, 0, region=region)
  words, terms = index.word_scores(query, 0, region=7)
  assert np.isfinite(terms).all()


@pytest.mark.parametrize('kernel', KERNELS)
def test_the_oracle_and_the_definition_agree(kernel):
  options = drawn(kernel, 20)
  query, image = random_masked_descriptors(11, 2, **options, present=20)
  for normalize, compat in itertools.product((False, True), repeat=2):
    scoring = {'kernel': kernel, 'normalize': normalize, 'compat': compat, 'alpha': 2.0, 'tau': -0.5}
    expected = index_oracle.region_scores(query, image, **scoring)
    found = region_similarities(query, image, **scoring)
    np.testing.assert_allclose(found, np.array(expected, float), rtol=1e-5, atol=1e-6)
  with pytest.raises(ValueError, match='region masks'):
    region_similarities(image, dataclasses.replace(query, region_masks=None), kernel=kernel)


@pytest.mark.parametrize('kernel', KERNELS)
@pytest.mark.parametrize('seed', range(3))
def test_updates_give_the_bytes_of_a_fresh_build(small_segments, tmp_path, monkeypatch, kernel, seed):
  monkeypatch.setattr('delf_d2r.index.segments.BLOCK_BYTES', 700)
  options = drawn(kernel, 70)
  descriptors = random_masked_descriptors(seed, 30, **options)
  names = [f'photo {m}' for m in range(30)]
  rng = np.random.default_rng(seed)
  kept = sorted(rng.choice(30, 19, replace=False).tolist())
  removed = [names[m] for m in range(30) if m not in kept]

  def fresh(chosen, **more):
    return build([descriptors[m] for m in chosen], kernel, names=[names[m] for m in chosen], **more)

  fresh(kept, directory=tmp_path / 'fresh')
  fresh(kept, directory=tmp_path / 'small budget', memory_budget=900)
  index = fresh(range(11), directory=tmp_path / 'updated')
  index.add(descriptors[11:21], names[11:21])
  index.save()
  index = InvertedIndex.load(tmp_path / 'updated', verify=True).copy_on_write()
  index.add(descriptors[21:], names[21:])
  index.remove(removed)
  index.save()
  index.verify()
  parts = [fresh(kept[:5]), fresh(kept[5:])]
  InvertedIndex.merge(parts, directory=tmp_path / 'merged')
  fresh(range(30)).subset(range(4, 17), directory=tmp_path / 'subset')
  fresh(range(4, 17), directory=tmp_path / 'fresh part')
  expected = directory_bytes(tmp_path / 'fresh')
  assert any('masks' in name for name in expected)
  for other in ('small budget', 'updated', 'merged'):
    assert directory_bytes(tmp_path / other) == expected, other
  assert directory_bytes(tmp_path / 'subset') == directory_bytes(tmp_path / 'fresh part')
  loaded = InvertedIndex.load(tmp_path / 'fresh')
  assert loaded.has_region_masks
  query = random_descriptors(99, 1, **options)[0]
  for field in ('image_ids', 'scores', 'best_regions'):
    found, wanted = (getattr(own.search(query), field) for own in (loaded, fresh(kept)))
    np.testing.assert_array_equal(found, wanted)


def test_a_posting_takes_one_byte_more():
  assert Layout(65536, 128, True, True).posting_bytes == 19
  descriptors = random_masked_descriptors(12, 20, **drawn(Kernel.ASMK_STAR))
  masked = build(descriptors)
  plain = build([dataclasses.replace(own, region_masks=None) for own in descriptors], region_masks=False)
  assert masked.nbytes - plain.nbytes == masked.num_postings + 20 * 8 * 4


def test_masks_and_no_masks_do_not_mix():
  masked = random_masked_descriptors(13, 4, **drawn(Kernel.ASMK_STAR), present=5)
  plain = [dataclasses.replace(own, region_masks=None) for own in masked]
  with pytest.raises(ValueError, match=r'expected a descriptor with region masks .* without region masks'):
    build(plain)
  with pytest.raises(ValueError, match=r'expected a descriptor without region masks .* with region masks'):
    build(masked, region_masks=False)
  with_them, without = build(masked), build(plain, region_masks=False)
  with pytest.raises(ValueError, match='has_region_masks: expected True'):
    InvertedIndex.merge([with_them, without])
  nowhere = masked[0].region_masks.copy()
  nowhere[2] = 0
  with pytest.raises(ValueError, match='1 words of no region'):
    build([dataclasses.replace(masked[0], region_masks=nowhere)])
  # The masks of a query say nothing.
  for index in (with_them, without):
    one, other = (index.search(queries[0]) for queries in (masked, plain))
    np.testing.assert_array_equal(one.scores, other.scores)


@pytest.mark.parametrize(
  'options', [{'kernel': Kernel.VLAD}, {'kernel': Kernel.ASMK, 'entry_images': [0]}], ids=['VLAD', 'regional']
)
def test_masks_need_asmk_and_one_entry_for_each_image(options):
  with pytest.raises(ValueError, match='region_masks: expected ASMK or ASMK_STAR and one entry'):
    InvertedIndex.build([], ['a'], num_words=4, dimensions=3, region_masks=True, **options)


def test_an_empty_index_and_an_image_without_words():
  nothing = AggregatedDescriptor(
    np.zeros(0, np.uint32), np.zeros((0, 3), np.uint8), 20, np.zeros(0, np.uint8)
  )
  query = random_descriptors(14, 1, **drawn(Kernel.ASMK_STAR), present=4)[0]
  empty = build([], dimensions=20)
  for path, use_idf in itertools.product(PATHS, (False, True)):
    assert len(empty.search(query, top_k=None, compiled=path, use_idf=use_idf)) == 0
    ranking = build([nothing]).search(query, compiled=path, use_idf=use_idf)
    assert (ranking.scores.tolist(), ranking.best_regions.tolist()) == ([0.0], [0])


def test_damaged_masks_are_found(tmp_path):
  build(random_masked_descriptors(15, 12, **drawn(Kernel.ASMK_STAR)), directory=tmp_path)
  for stem in ('masks', 'region_counts'):
    (path,) = tmp_path.glob(f'segment-00000-{stem}-*.npy')
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 255]))
    InvertedIndex.load(tmp_path).search(random_descriptors(1, 1, **drawn(Kernel.ASMK_STAR))[0])
    with pytest.raises(IndexFormatError, match=stem):
      InvertedIndex.load(tmp_path, verify=True)
    path.write_bytes(content)
  (path,) = tmp_path.glob('segment-00000-masks-*.npy')
  path.unlink()
  with pytest.raises(IndexFormatError, match='masks'):
    InvertedIndex.load(tmp_path)


def test_regions_with_the_best_scores():
  rng = np.random.default_rng(8)
  scores = rng.integers(-2, 3, (300, 8)).astype(np.float32)
  factors = rng.integers(1, 3, (300, 8)).astype(np.float32)
  factors[rng.random((300, 8)) < 0.4] = np.nan
  factors[5] = np.nan
  rows = rng.integers(0, 300, 500)
  best = best_region_scores(scores, factors)
  for compiled in PATHS:
    regions = best_regions(scores, factors, rows, compiled=compiled)
    assert regions.dtype == np.int32
    for row, region in zip(rows.tolist(), regions.tolist(), strict=True):
      values = (scores[row] * factors[row]).tolist()
      there = [number for number, value in enumerate(values) if value == value]
      assert region == max(there, key=lambda number: (values[number], -number), default=0)
      assert best[row] == (values[region] if there else 0)
