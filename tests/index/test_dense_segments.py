"""Global descriptors as matrices: scores of the stored values, changes, files, and what does not fit."""

import json

import numpy as np
import pytest
from oracles import index_oracle
from oracles.index_inputs import directory_bytes

from delf_d2r.index import IndexFormatError, InvertedIndex, inverted_index, stored_index
from delf_d2r.index.segments import Layout, ValueType
from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.kernels.compiled import HAVE_NUMBA
from delf_d2r.structures import AggregatedDescriptor

PATHS = [False, True] if HAVE_NUMBA else [False]
TYPES = [ValueType.FLOAT16, ValueType.INT8]
D = 24


def descriptor(values):
  rows = np.asarray(values, np.float32).reshape(-1, D)
  return AggregatedDescriptor(np.arange(len(rows), dtype=np.uint32), rows, D)


def unit(rng):
  values = rng.standard_normal(D).astype(np.float32)
  return values / np.linalg.norm(values)


def descriptors(seed, count):
  """Unit vectors; the fourth image has none."""
  rng = np.random.default_rng(seed)
  return [descriptor([] if m == 3 else unit(rng)) for m in range(count)]


def names(count, first=0):
  return [f'image {m}' for m in range(first, first + count)]


def build(some, value_type, **options):
  options = {'num_words': 1, 'kernel': Kernel.VLAD, 'dimensions': D} | options
  return InvertedIndex.build(some, options.pop('names', names(len(some))), value_type=value_type, **options)


def stored(values, value_type):
  """What is kept of one vector, by definition, one number at a time."""
  if value_type is ValueType.FLOAT32:
    return np.asarray(values, np.float32)
  if value_type is ValueType.FLOAT16:
    return np.array([float(np.float16(v)) for v in values], np.float32)
  scale = np.float32(np.float32(max(abs(v) for v in values)) / np.float32(127))
  return np.array([scale * np.float32(round(float(np.float32(v) / scale))) for v in values], np.float32)


def expected_scores(query, some, value_type):
  """The products of the query with what is kept of each image."""
  return [
    sum(float(a) * float(b) for a, b in zip(query.values[0], stored(one.values[0], value_type), strict=True))
    if len(one) and len(query)
    else 0.0
    for one in some
  ]


def scores_of(index, query, **options):
  ranking = index.search(query, top_k=None, **options)
  found = np.empty(len(index), np.float32)
  found[ranking.image_ids] = ranking.scores
  return found


@pytest.mark.parametrize('value_type', [ValueType.FLOAT32, *TYPES])
def test_rows_are_the_stored_values(small_segments, monkeypatch, value_type):
  monkeypatch.setattr(inverted_index, '_ROWS_AT_ONCE', 3)
  some = descriptors(seed=11, count=20)
  index = build(some, value_type)
  rows = np.concatenate(list(index.dense_rows()))
  expected = [stored(one.values[0], value_type) if len(one) else np.zeros(D) for one in some]
  np.testing.assert_array_equal(rows, expected)
  assert list(build([], value_type).dense_rows()) == []


def test_an_index_of_several_words_has_no_rows():
  index = InvertedIndex.build([], [], num_words=2, kernel=Kernel.VLAD, dimensions=D)
  with pytest.raises(ValueError, match='VLAD of one visual word, found 2 words and floats'):
    list(index.dense_rows())


@pytest.mark.parametrize('compiled', PATHS)
@pytest.mark.parametrize('value_type', TYPES)
def test_scores_are_products_with_the_stored_values(small_segments, value_type, compiled):
  some = descriptors(1, 21)
  index = build(some, value_type)
  for query in (descriptors(2, 1)[0], some[7], descriptor([])):
    expected = expected_scores(query, some, value_type)
    np.testing.assert_allclose(scores_of(index, query, compiled=compiled), expected, atol=2e-7)
  ranking = index.search(some[7], top_k=3, compiled=compiled)
  assert ranking.image_ids[0] == 7
  assert ranking.scores[0] == pytest.approx(1, abs=5e-3)
  assert ranking.best_regions.tolist() == [-1] * 3
  assert index.value_type is value_type


@pytest.mark.parametrize('value_type', TYPES)
def test_the_loss_is_that_of_the_type(value_type):
  some = descriptors(3, 30)
  exact, compact = build(some, ValueType.FLOAT32), build(some, value_type)
  query = descriptors(4, 1)[0]
  bound = {ValueType.FLOAT16: 2**-11, ValueType.INT8: 0.5 / 127 * D**0.5}[value_type]
  assert np.abs(scores_of(exact, query) - scores_of(compact, query)).max() < bound


@pytest.mark.parametrize('value_type', TYPES)
def test_bytes_of_an_image(value_type):
  index = build(descriptors(5, 1000), value_type)
  per_image = (index.nbytes - index._state.images.nbytes) / 1000
  assert per_image == {ValueType.FLOAT16: 2 * D, ValueType.INT8: D + 4}[value_type]
  assert index.num_postings == 999
  assert index.list_sizes().tolist() == [999]


@pytest.mark.parametrize('value_type', TYPES)
def test_changes_give_the_files_of_a_fresh_build(small_segments, value_type, tmp_path):
  some = descriptors(6, 27)
  fresh = build(some, value_type, directory=tmp_path / 'fresh')
  grown = build(some[:5], value_type, directory=tmp_path / 'grown')
  for start in (5, 6, 20):
    stop = {5: 6, 6: 20, 20: 27}[start]
    grown.add(some[start:stop], names(stop - start, start))
  grown.save()
  assert directory_bytes(tmp_path / 'grown') == directory_bytes(tmp_path / 'fresh')
  merged = InvertedIndex.merge(
    [build(some[:11], value_type), build(some[11:], value_type, names=names(16, 11))],
    directory=tmp_path / 'merged',
  )
  assert directory_bytes(tmp_path / 'merged') == directory_bytes(tmp_path / 'fresh')
  kept = [m for m in range(27) if m not in (0, 3, 12, 26)]
  merged.remove([f'image {m}' for m in (0, 3, 12, 26)])
  merged.save()
  reduced = build([some[m] for m in kept], value_type, names=[f'image {m}' for m in kept])
  reduced.save(tmp_path / 'reduced')
  assert directory_bytes(tmp_path / 'merged') == directory_bytes(tmp_path / 'reduced')
  part = fresh.subset(range(4, 19), directory=tmp_path / 'part')
  np.testing.assert_array_equal(scores_of(part, some[8]), scores_of(fresh, some[8])[4:19])
  with InvertedIndex.load(tmp_path / 'fresh', verify=True) as loaded:
    np.testing.assert_array_equal(scores_of(loaded, some[8]), scores_of(fresh, some[8]))


@pytest.mark.parametrize('value_type', TYPES)
def test_a_small_memory_budget_gives_the_same_files(small_segments, monkeypatch, value_type, tmp_path):
  from delf_d2r.index import builder, segments

  some = descriptors(7, 19)
  build(some, value_type, directory=tmp_path / 'whole')
  monkeypatch.setattr(segments, 'BLOCK_BYTES', 100)
  monkeypatch.setattr(builder, 'BATCH', 2)
  build(some, value_type, directory=tmp_path / 'small', memory_budget=1)
  assert directory_bytes(tmp_path / 'small') == directory_bytes(tmp_path / 'whole')


@pytest.mark.parametrize('value_type', TYPES)
def test_an_entry_for_each_region(small_segments, value_type):
  some = descriptors(8, 12)
  owners = [0, 0, 0, 1, 2, 2, 2, 2, 2, 3, 3, 3]
  index = build(some, value_type, names=names(5), entry_images=owners)
  query = descriptors(9, 1)[0]
  each = np.array(expected_scores(query, some, value_type))
  best = [each[np.array(owners) == m].max(initial=-9) for m in range(4)]
  np.testing.assert_allclose(scores_of(index, query), [*best, 0], atol=2e-7)
  ranking = index.search(query, top_k=1)
  region = int(ranking.best_regions[0])
  words, terms = index.word_scores(query, int(ranking.image_ids[0]), region=region)
  assert words.tolist() == [0]
  assert terms[0] == pytest.approx(float(ranking.scores[0]), abs=1e-6)


@pytest.mark.parametrize('value_type', TYPES)
def test_terms_and_idf(value_type):
  some = descriptors(10, 9)
  index = build(some, value_type)
  query = some[2]
  assert [array.tolist() for array in index.word_scores(query, 3)] == [[], []]
  assert index.word_scores(descriptor([]), 2)[0].tolist() == []
  for use_idf in (False, True):
    terms = index.word_scores(query, 4, use_idf=use_idf)[1]
    found = scores_of(index, query, use_idf=use_idf)
    assert terms.sum() == pytest.approx(float(found[4]), abs=1e-6)
  ids, scores, *_ = index_oracle.rank(
    query, some, range(9), 9, kernel=Kernel.VLAD, num_words=1, use_idf=True, normalize=False
  )
  np.testing.assert_allclose(found[ids], scores, atol=1e-3)


def test_an_image_of_zeros_and_no_images():
  for value_type in TYPES:
    index = build([descriptor(np.zeros(D)), descriptor(np.eye(1, D))], value_type)
    assert scores_of(index, descriptor(np.eye(1, D))).tolist() == [0, pytest.approx(1, abs=1e-6)]
    empty = build([], value_type)
    assert len(empty.search(descriptor(np.eye(1, D)), top_k=None)) == 0


def test_what_cannot_be_stored():
  some = descriptors(11, 5)
  with pytest.raises(ValueError, match='INT8 is for VLAD, found ASMK'):
    InvertedIndex.build(some, names(5), num_words=1, kernel=Kernel.ASMK, value_type=ValueType.INT8)
  with pytest.raises(ValueError, match='FLOAT16 is for VLAD of one visual word, found 2 words'):
    build(some, ValueType.FLOAT16, num_words=2)
  with pytest.raises(ValueError, match=r'at most 65504 for FLOAT16, found 100000'):
    build([descriptor(np.full(D, 1e5))], ValueType.FLOAT16)
  with pytest.raises(ValueError, match=r'value_type: expected ValueType\.INT8 .* found ValueType\.FLOAT32'):
    InvertedIndex.merge([build(some, ValueType.INT8), build(some, ValueType.FLOAT32, names=names(5, 5))])
  layout = Layout(1, D, False, value_type=ValueType.INT8)
  assert layout.pack([np.zeros((0, D), np.float32)]).shape == (0, D + 4)


@pytest.mark.parametrize('value_type', TYPES)
def test_damaged_files_are_seen(value_type, tmp_path):
  build(descriptors(12, 9), value_type, directory=tmp_path)
  manifest = tmp_path / 'index.json'
  document = json.loads(manifest.read_text())
  assert (document['version'], document['value_type']) == (3, value_type.name)
  (values,) = tmp_path.glob('*-values-*')
  content = bytearray(values.read_bytes())
  content[-3] ^= 64
  values.write_bytes(content)
  with pytest.raises(IndexFormatError, match='expected checksum'):
    stored_index.verify(str(tmp_path))
  values.write_bytes(content[:-1])
  with pytest.raises(IndexFormatError, match=r'expected .* bytes'):
    InvertedIndex.load(tmp_path)


def test_a_manifest_of_another_kind_is_seen(tmp_path, monkeypatch):
  build(descriptors(13, 9), ValueType.FLOAT16, directory=tmp_path)
  manifest, checksum = stored_index.read_manifest(str(tmp_path))
  for change in ({'value_type': 'INT4'}, {'value_type': 'FLOAT32'}, {'num_words': 2}, {'kernel': 'ASMK'}):
    with monkeypatch.context() as patch:
      patch.setattr(stored_index, 'read_manifest', lambda directory, c=change: (manifest | c, checksum))
      with pytest.raises(IndexFormatError, match='not a manifest of an index'):
        InvertedIndex.load(tmp_path)


def test_exact_indexes_are_what_they_were(tmp_path):
  some = descriptors(14, 6)
  build(some, ValueType.FLOAT32, directory=tmp_path)
  document = json.loads((tmp_path / 'index.json').read_text())
  assert document['version'] == 1
  assert 'value_type' not in document
