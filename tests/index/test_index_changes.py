"""Changes that sort nothing again: removed images keep their postings, added ones form segments of their own.

Whatever the index keeps, it answers as a fresh build of the images that are left, to the bit.
"""

import itertools
import json

import numpy as np
import pytest
from index.test_index_files import replace_array, rewrite_manifest
from oracles.index_inputs import directory_bytes, random_descriptor, with_masks

from delf_d2r.index import IndexFormatError, InvertedIndex, updates
from delf_d2r.index.images import NameTable, check_new
from delf_d2r.index.segments import ValueType
from delf_d2r.kernels.aggregation import Kernel

NUM_WORDS = 12
# Kernel, D, whether with regions, whether with masks, how values are stored.
KINDS = {
  'codes': (Kernel.ASMK_STAR, 70, False, False, ValueType.FLOAT32),
  'codes of regions': (Kernel.ASMK_STAR, 64, True, False, ValueType.FLOAT32),
  'codes with masks': (Kernel.ASMK_STAR, 128, False, True, ValueType.FLOAT32),
  'floats': (Kernel.ASMK, 5, False, False, ValueType.FLOAT32),
  'floats with masks': (Kernel.ASMK, 5, False, True, ValueType.FLOAT32),
  'VLAD': (Kernel.VLAD, 5, False, False, ValueType.FLOAT32),
  'halves': (Kernel.VLAD, 7, False, False, ValueType.FLOAT16),
  'bytes of regions': (Kernel.VLAD, 7, True, False, ValueType.INT8),
}


@pytest.fixture
def sorts_nothing(small_segments, monkeypatch):
  """No segment is small, and none has too many removed rows."""
  monkeypatch.setattr(updates, 'SMALL_BYTES', 0)
  monkeypatch.setattr(updates, 'MOST_REMOVED', 1)


class Collection:
  """Images with descriptors of one kind, from which indexes are built."""

  def __init__(self, kind, images, seed=0):
    self.kernel, dimensions, self.is_regional, self.has_masks, self.value_type = KINDS[kind]
    self.num_words = 1 if self.value_type is not ValueType.FLOAT32 else NUM_WORDS
    self.rng = np.random.default_rng(seed)
    self.drawn = {'num_words': self.num_words, 'dimensions': dimensions, 'kernel': self.kernel}
    counts = self.rng.integers(0, 4, images) if self.is_regional else np.ones(images, int)
    self.owned = [[self._draw() for _ in range(count)] for count in counts]
    self.names = [f'photo {m} ä\udcff.jpg' for m in range(images)]

  def _draw(self):
    descriptor = random_descriptor(self.rng, **self.drawn)
    return with_masks(self.rng, descriptor) if self.has_masks else descriptor

  def queries(self, count=3):
    return [random_descriptor(self.rng, **self.drawn) for _ in range(count)]

  def arguments(self, chosen):
    counts = [len(self.owned[m]) for m in chosen]
    entries = {'entry_images': np.repeat(np.arange(len(counts)), counts)} if self.is_regional else {}
    descriptors = [own for m in chosen for own in self.owned[m]]
    return {'descriptors': descriptors, 'image_names': [self.names[m] for m in chosen]} | entries

  def build(self, chosen, **more):
    options = {'num_words': self.num_words, 'kernel': self.kernel, 'dimensions': self.drawn['dimensions']}
    options |= {'region_masks': self.has_masks, 'value_type': self.value_type}
    return InvertedIndex.build(**self.arguments(chosen), **options, **more)


def assert_same_answers(index, fresh, queries):
  assert list(index.image_names) == list(fresh.image_names)
  assert (len(index), index.num_entries, index.num_postings) == (
    len(fresh),
    fresh.num_entries,
    fresh.num_postings,
  )
  np.testing.assert_array_equal(index.list_sizes(), fresh.list_sizes())
  scorings = [{}, {'use_idf': True}, {'normalize': False}, {'compat': True}]
  for query, scoring in itertools.product(queries, scorings):
    for top_k in (None, 2):
      one, two = (each.search(query, top_k=top_k, **scoring) for each in (index, fresh))
      np.testing.assert_array_equal(one.image_ids, two.image_ids)
      np.testing.assert_array_equal(one.best_regions, two.best_regions)
      assert one.scores.tobytes() == two.scores.tobytes()
    for image, region in zip(two.image_ids.tolist(), two.best_regions.tolist(), strict=True):
      if region >= 0 or not index.is_regional:
        one, two_ = (each.word_scores(query, image, region=region, **scoring) for each in (index, fresh))
        np.testing.assert_array_equal(one[0], two_[0])
        np.testing.assert_array_equal(one[1], two_[1])


@pytest.mark.parametrize('on_disk', [False, True])
@pytest.mark.parametrize('kind', KINDS)
def test_answers_are_those_of_a_fresh_build(sorts_nothing, tmp_path, kind, on_disk):
  images = Collection(kind, 40)
  there = list(range(30))
  index = images.build(there, directory=tmp_path / 'x' if on_disk else None)
  later = iter(range(30, 40))
  steps = [('remove', [3]), ('add', 1), ('remove', [0, 29]), ('add', 4), ('remove', range(8, 16)), ('add', 1)]
  for change, what in steps:
    if change == 'remove':
      index.remove({images.names[m] for m in what})
      there = [m for m in there if m not in what]
    else:
      new = list(itertools.islice(later, what))
      index.add(**images.arguments(new))
      there += new
    if on_disk:
      index.save()
      index = InvertedIndex.load(tmp_path / 'x', verify=True)
    assert index._state.num_rows > index.num_entries, 'nothing was kept: the test shows nothing'
    assert_same_answers(index, images.build(there), images.queries(2))
  if images.num_words == 1:
    rows = [np.concatenate(list(each.dense_rows())) for each in (index, images.build(there))]
    np.testing.assert_array_equal(*rows)

  images.build(there, directory=tmp_path / 'fresh')
  part = slice(5, 20)
  images.build(there[part], directory=tmp_path / 'fresh part')
  index.subset(range(5, 20), directory=tmp_path / 'part')
  assert directory_bytes(tmp_path / 'part') == directory_bytes(tmp_path / 'fresh part')
  InvertedIndex.merge([index], directory=tmp_path / 'merged')
  assert directory_bytes(tmp_path / 'merged') == directory_bytes(tmp_path / 'fresh')
  index.compact()
  index.save(None if on_disk else tmp_path / 'x')
  assert directory_bytes(tmp_path / 'x') == directory_bytes(tmp_path / 'fresh')
  assert index.num_removed == 0
  index.compact()
  assert not index.has_changed


def test_a_removed_image_leaves_the_files_of_its_segment_alone(sorts_nothing, tmp_path):
  images = Collection('codes', 30)
  index = images.build(range(30), directory=tmp_path / 'x')
  before = directory_bytes(tmp_path / 'x')
  index.remove([images.names[9]])
  index.save()
  after = directory_bytes(tmp_path / 'x')
  written = sorted(name.rsplit('-', 1)[0] for name in after.keys() - before.keys())
  assert written == ['names_offsets', 'names_utf8', 'segment-00001-removed']
  manifest = json.loads(after['index.json'])
  assert manifest['version'] == 5
  assert [segment.get('removed') for segment in manifest['segments']] == [None, 1, None, None]
  index.add(**images.arguments([9]))
  index.save()
  assert [
    len(segment['arrays']) for segment in json.loads((tmp_path / 'x/index.json').read_text())['segments']
  ] == [
    4,
    5,
    4,
    4,
    4,
  ]


def test_an_index_with_many_removed_images_becomes_compact(small_segments, tmp_path, monkeypatch):
  monkeypatch.setattr(updates, 'SMALL_BYTES', 0)
  images = Collection('codes', 40)
  index = images.build(range(40))
  for removed in range(5):
    index.remove([images.names[removed]])
    assert index.num_removed == removed + 1  # up to an eighth
  index.remove([images.names[5]])
  assert index.num_removed == 0
  index.save(tmp_path / 'x')
  images.build(range(6, 40), directory=tmp_path / 'fresh')
  assert directory_bytes(tmp_path / 'x') == directory_bytes(tmp_path / 'fresh')


def test_a_small_index_is_always_compact(small_segments):
  images = Collection('codes', 40)
  index = images.build(range(20))
  index.remove([images.names[3]])
  index.add(**images.arguments([20]))
  assert index.num_removed == 0
  assert [segment.num_entries for segment in index._state.segments] == [8, 8, 4]


def test_added_images_are_sorted_a_few_times_and_leave_few_segments(monkeypatch):
  images = Collection('codes', 400)
  index = images.build(range(100))
  monkeypatch.setattr(updates, 'SMALL_BYTES', index._state.segments[0].nbytes // 20)
  sorted_again, most = 0, 0
  for image in range(100, 400):
    before = index._state.segments
    index.add(**images.arguments([image]))
    kept = [own for own in before if any(own is other for other in index._state.segments)]
    sorted_again += sum(segment.num_entries for segment in before) - sum(s.num_entries for s in kept)
    most = max(most, len(index._state.segments))
  assert most <= 7
  assert sorted_again < 300 * 20
  assert_same_answers(index, images.build(range(400)), images.queries(1))


def test_many_new_images_are_sorted_together_with_what_is_not_larger(small_segments, monkeypatch):
  monkeypatch.setattr(updates, 'SMALL_BYTES', 0)
  images = Collection('codes', 40)
  index = images.build(range(12))
  index.add(**images.arguments(range(12, 13)))
  assert [segment.num_entries for segment in index._state.segments] == [8, 4, 1]
  index.add(**images.arguments(range(13, 40)))
  assert [segment.num_entries for segment in index._state.segments] == [8, 8, 8, 8, 8]


@pytest.mark.parametrize('change', [lambda a: a.__setitem__(1, a[0]), lambda a: a.__setitem__(-1, 8)])
def test_damaged_ids_of_removed_rows_are_refused(sorts_nothing, tmp_path, change):
  images = Collection('codes', 30)
  index = images.build(range(30), directory=tmp_path / 'x')
  index.remove([images.names[8], images.names[9]])
  index.save()
  replace_array(tmp_path / 'x', 'segment-00001-removed', change)
  with pytest.raises(IndexFormatError, match=r'segment-00001-removed.*expected ascending ids below 8'):
    InvertedIndex.load(tmp_path / 'x')


def test_altered_ids_of_removed_rows_are_noticed(sorts_nothing, tmp_path):
  images = Collection('codes', 30)
  index = images.build(range(30), directory=tmp_path / 'x')
  index.remove([images.names[9]])
  index.save()
  (path,) = (tmp_path / 'x').glob('segment-00001-removed-*')
  content = path.read_bytes()
  path.write_bytes(content[:-2] + b'\2\0')
  with pytest.raises(IndexFormatError, match=path.name):
    InvertedIndex.load(tmp_path / 'x', verify=True)
  with pytest.raises(IndexFormatError, match=path.name):
    InvertedIndex.load(tmp_path / 'x').verify()
  path.unlink()
  with pytest.raises(IndexFormatError, match=path.name):
    InvertedIndex.load(tmp_path / 'x')


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda m: m['segments'][1].update(removed=9), 'removed: expected an integer from 0 to 8, found 9'),
    (lambda m: m['segments'][1]['arrays'].pop('removed'), 'not a manifest'),
    (lambda m: m['segments'][1].update(removed=2), '29 images, 28 entries'),
    (lambda m: m.update(version=1), 'not full|29 images'),
    (lambda m: m.update(codebook=3), 'codebook 3'),
    (lambda m: m.update(value_type='FLOAT16'), 'is for VLAD'),
  ],
)
def test_wrong_manifests_of_changed_indexes(sorts_nothing, tmp_path, change, message):
  images = Collection('codes', 30)
  index = images.build(range(30), directory=tmp_path / 'x')
  index.remove([images.names[9]])
  index.save()
  rewrite_manifest(tmp_path / 'x', change)
  with pytest.raises(IndexFormatError, match=message):
    InvertedIndex.load(tmp_path / 'x')


# Names ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize('count', [3, 40])
def test_positions_of_names(count):
  names = ['', 'a', 'ä.jpg', 'b.jpg', 'ab.jpg', 'a\udcff', *(f'photos/{m:03d}.jpg' for m in range(100))]
  table = NameTable.from_names(names)
  assert [table.position(name) for name in names] == list(range(len(names)))
  for absent in ('c', 'photos/100.jpg', 'photos/0000.jpg', 'jpg'):
    assert table.position(absent) is None
    assert absent not in table
    with pytest.raises(KeyError, match=f'{absent!r} is not among the 106 images'):
      table.positions([*names[:count], absent])
  assert 'b.jpg' in table
  assert 3 not in table
  assert table.positions(names[:count][::-1]).tolist() == list(range(count))[::-1]
  assert NameTable.from_names([]).position('a') is None


def test_names_that_stay():
  names = ['', 'a', 'ä.jpg', 'b', '']
  table = NameTable.from_names(names)
  for kept in itertools.product([False, True], repeat=5):
    left = table.keep(np.array(kept))
    assert list(left) == list(itertools.compress(names, kept))
    assert left.offsets.dtype == np.uint64


@pytest.mark.parametrize('count', [2, 40])
def test_names_that_are_not_new(count):
  present = NameTable.from_names(['a', 'b'])
  new = [str(number) for number in range(count)]
  check_new(new, present)
  for wrong in ('b', '1'):
    with pytest.raises(ValueError, match=f"found '{wrong}' twice"):
      check_new([*new, wrong], present)
