"""Codes in columns of 32 bits, and indexes of earlier releases, whose columns have 64 bits."""

import contextlib
import json

import numpy as np
import pytest
from index.test_index_files import rewrite_manifest
from oracles.index_inputs import directory_bytes, random_descriptors, random_masked_descriptors

from delf_d2r.index import IndexFormatError, InvertedIndex, joining, segments, stored_index
from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.kernels.compiled import HAVE_NUMBA

PATHS = [False, True] if HAVE_NUMBA else [False]
NUM_WORDS = 30
BITS = [5, 32, 70, 96]


@pytest.fixture
def earlier(monkeypatch):
  """Does what the release before did: all codes take columns of 64 bits."""

  @contextlib.contextmanager
  def patched():
    with monkeypatch.context() as patch:
      for module in (segments, stored_index):
        patch.setattr(module, 'fits_narrow_columns', lambda bits: False)
      yield

  return patched


def drawn(bits, count, seed=0, *, masks=False):
  draw = random_masked_descriptors if masks else random_descriptors
  return draw(seed, count, num_words=NUM_WORDS, dimensions=bits, kernel=Kernel.ASMK_STAR)


def build(descriptors, bits, **options):
  names = options.pop('names', list(map(str, range(len(descriptors)))))
  return InvertedIndex.build(
    descriptors, names, num_words=NUM_WORDS, kernel=Kernel.ASMK_STAR, dimensions=bits, **options
  )


@pytest.mark.parametrize('masks', [False, True])
@pytest.mark.parametrize('bits', BITS)
def test_an_earlier_index_answers_and_grows_as_it_did(small_segments, tmp_path, earlier, bits, masks):
  descriptors = drawn(bits, 30, masks=masks)
  names = list(map(str, range(30)))
  with earlier():
    build(descriptors[:20], bits, directory=tmp_path / 'x', region_masks=masks)
    build(descriptors, bits, directory=tmp_path / 'grown', region_masks=masks)
  fresh = build(descriptors, bits, directory=tmp_path / 'fresh', region_masks=masks)
  old = InvertedIndex.load(tmp_path / 'x', verify=True)
  old.add(descriptors[20:], names[20:])
  for query in drawn(bits, 4, seed=1):
    for path in PATHS:
      one, two = (index.search(query, top_k=None, compiled=path, use_idf=True) for index in (old, fresh))
      np.testing.assert_array_equal(one.image_ids, two.image_ids)
      np.testing.assert_array_equal(one.best_regions, two.best_regions)
      assert one.scores.tobytes() == two.scores.tobytes()
    best, region = one.image_ids[0], one.best_regions[0]
    for terms in zip(*(index.word_scores(query, best, region=region) for index in (old, fresh)), strict=True):
      np.testing.assert_array_equal(*terms)
  old.save()
  assert directory_bytes(tmp_path / 'x') == directory_bytes(tmp_path / 'grown')
  wide, narrow = (json.loads((tmp_path / name / 'index.json').read_text()) for name in ('x', 'fresh'))
  assert (wide['version'], narrow['version']) == (2 if masks else 1, 5)
  assert fresh.nbytes < old.nbytes
  # A new index of old ones has the bytes of a fresh build.
  InvertedIndex.merge([old], directory=tmp_path / 'merged')
  assert directory_bytes(tmp_path / 'merged') == directory_bytes(tmp_path / 'fresh')
  parts = [old.subset(range(7)), fresh.subset(range(7, 30))]
  assert parts[0]._state.layout == parts[1]._state.layout
  other = build(descriptors[:7], bits, region_masks=masks)
  assert parts[0].nbytes == other.nbytes


@pytest.mark.parametrize('bits', [32, 96])
def test_an_earlier_index_that_is_changed_says_so(small_segments, tmp_path, earlier, monkeypatch, bits):
  monkeypatch.setattr('delf_d2r.index.updates.SMALL_BYTES', 0)
  descriptors = drawn(bits, 20)
  with earlier():
    build(descriptors, bits, directory=tmp_path / 'x')
  index = InvertedIndex.load(tmp_path / 'x')
  index.remove(['3'])
  index.save()
  manifest = json.loads((tmp_path / 'x' / 'index.json').read_text())
  assert (manifest['version'], manifest['column_bits']) == (5, 64)
  again = InvertedIndex.load(tmp_path / 'x', verify=True)
  assert again._state.layout.is_wide
  fresh = build(descriptors[:3] + descriptors[4:], bits)
  for query in drawn(bits, 3, seed=1):
    assert again.search(query).scores.tobytes() == fresh.search(query).scores.tobytes()


@pytest.mark.parametrize('column_bits', [64, 16, '32', None])
def test_a_wrong_width_is_refused(tmp_path, column_bits):
  build(drawn(96, 5), 96, directory=tmp_path)
  rewrite_manifest(tmp_path, lambda manifest: manifest.update(column_bits=column_bits))
  with pytest.raises(IndexFormatError, match=r'column_bits|expected .* bytes, found'):
    InvertedIndex.load(tmp_path)


def test_other_codes_have_the_files_of_earlier_releases(tmp_path, earlier):
  for bits in (40, 64, 128, 160):
    descriptors = drawn(bits, 9)
    with earlier():
      build(descriptors, bits, directory=tmp_path / f'{bits} before')
    build(descriptors, bits, directory=tmp_path / f'{bits} now')
    assert directory_bytes(tmp_path / f'{bits} now') == directory_bytes(tmp_path / f'{bits} before')


def test_parts_of_two_releases_are_not_joined(small_segments, tmp_path, earlier):
  descriptors = drawn(32, 12)
  options = {'num_words': NUM_WORDS, 'dimensions': 32, 'kernel': Kernel.ASMK_STAR}
  parts = [tmp_path / name for name in ('one', 'two', 'three')]
  with earlier():
    joining.build_part(descriptors[:8], 8, parts[0], **options, memory_budget=1 << 20)
    joining.build_part(descriptors[8:], 4, parts[1], **options, memory_budget=1 << 20)
    build(descriptors, 32, directory=tmp_path / 'before')
  joining.build_part(descriptors[8:], 4, parts[2], **options, memory_budget=1 << 20)
  names = list(map(str, range(12)))
  with pytest.raises(ValueError, match='found codes in columns of 32 and of 64 bits; build the parts again'):
    joining.join([parts[0], parts[2]], names, **options, directory=tmp_path / 'mixed')
  joining.join(parts[:2], names, **options, directory=tmp_path / 'x')
  assert directory_bytes(tmp_path / 'x') == directory_bytes(tmp_path / 'before')
