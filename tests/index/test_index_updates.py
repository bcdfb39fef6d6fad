"""add, remove and merge give the bytes of a fresh build; an update is atomic."""

import errno
import gc
import itertools
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracles.index_inputs import directory_bytes, random_descriptor, random_descriptors

from delf_d2r.index import IndexFormatError, InvertedIndex
from delf_d2r.index.builder import SegmentBuilder
from delf_d2r.index.directory import Directory
from delf_d2r.index.segments import Layout
from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.structures import AggregatedDescriptor

OPTIONS = {'num_words': 12, 'dimensions': 70, 'kernel': Kernel.ASMK_STAR}
BUILD = {'num_words': 12, 'kernel': Kernel.ASMK_STAR, 'dimensions': 70}


def regional(counts, on):
  return {'entry_images': np.repeat(np.arange(len(counts)), counts)} if on else {}


@pytest.mark.slow
@pytest.mark.parametrize('on_disk', [False, True])
@pytest.mark.parametrize('is_regional', [False, True])
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_order_of_updates_gives_the_bytes_of_a_fresh_build(
  small_segments, tmp_path_factory, is_regional, on_disk, data
):
  tmp_path = tmp_path_factory.mktemp('updates')
  rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
  images = data.draw(st.integers(0, 30))
  counts = rng.integers(0, 4, images) if is_regional else np.ones(images, int)
  owned = [[random_descriptor(rng, **OPTIONS) for _ in range(count)] for count in counts]
  names = [f'photo {m} ä\udcff.jpg' for m in range(images)]
  kept = sorted(data.draw(st.sets(st.sampled_from(range(images))))) if images else []

  def build(chosen, **more):
    return InvertedIndex.build(
      [d for m in chosen for d in owned[m]],
      [names[m] for m in chosen],
      **BUILD,
      **regional([counts[m] for m in chosen], is_regional),
      **more,
    )

  cuts = sorted(data.draw(st.lists(st.integers(0, images), max_size=3)))
  bounds = [0, *cuts, images]
  index = build([], directory=tmp_path / 'updated' if on_disk else None)
  for start, stop in itertools.pairwise(bounds):
    chunk = range(start, stop)
    index.add(
      [d for m in chunk for d in owned[m]],
      [names[m] for m in chunk],
      **regional(counts[start:stop], is_regional),
    )
    if on_disk and data.draw(st.booleans()):
      index.save()
      index = InvertedIndex.load(tmp_path / 'updated')
  removed = [m for m in range(images) if m not in kept]
  half = len(removed) // 2
  index.remove([names[m] for m in removed[half:]])
  index.remove([names[m] for m in removed[:half]])
  index.save(None if on_disk else tmp_path / 'updated')

  build(kept).save(tmp_path / 'fresh')
  assert directory_bytes(tmp_path / 'updated') == directory_bytes(tmp_path / 'fresh')
  index.verify()

  parts = [build(kept[: len(kept) // 3]), build(kept[len(kept) // 3 :])]
  InvertedIndex.merge(parts).save(tmp_path / 'merged')
  InvertedIndex.merge(parts, directory=tmp_path / 'merged on disk')
  assert directory_bytes(tmp_path / 'merged') == directory_bytes(tmp_path / 'fresh')
  assert directory_bytes(tmp_path / 'merged on disk') == directory_bytes(tmp_path / 'fresh')

  reloaded = InvertedIndex.load(tmp_path / 'updated')
  assert list(reloaded.image_names) == [names[m] for m in kept]
  query = random_descriptor(rng, **OPTIONS)
  for use_idf in (False, True):
    one, two, three = (i.search(query, use_idf=use_idf) for i in (index, build(kept), reloaded))
    for other in (two, three):
      assert one.image_ids.tolist() == other.image_ids.tolist()
      assert one.scores.tobytes() == other.scores.tobytes()
      assert one.best_regions.tolist() == other.best_regions.tolist()


@pytest.mark.parametrize('kernel', [Kernel.ASMK_STAR, Kernel.ASMK])
def test_memory_budget_changes_nothing_but_memory(small_segments, tmp_path, monkeypatch, kernel):
  """Blocks of 40 postings, of which a segment has about 50: runs are spilled and merged."""
  options = {**OPTIONS, 'kernel': kernel}
  descriptors = random_descriptors(1, 21, **options)
  names = [str(m) for m in range(21)]
  roomy = InvertedIndex.build(descriptors, names, num_words=12, kernel=kernel)
  roomy.save(tmp_path / 'roomy')
  layout = roomy._state.layout
  monkeypatch.setattr('delf_d2r.index.segments.BLOCK_BYTES', 10 * layout.posting_bytes)
  monkeypatch.setattr('delf_d2r.index.builder.BATCH', 2)
  monkeypatch.setattr('delf_d2r.index.builder._DESCRIPTOR_BYTES', 0)
  runs = []
  spill = SegmentBuilder._spill
  monkeypatch.setattr(
    SegmentBuilder, '_spill', lambda self: (runs.append(len(self._descriptors)), spill(self))
  )
  for budget in (1, 60 * layout.posting_bytes, 200 * layout.posting_bytes):
    runs.clear()
    InvertedIndex.build(
      descriptors,
      names,
      num_words=12,
      kernel=kernel,
      directory=tmp_path / f'tight {budget}',
      memory_budget=budget,
    )
    assert directory_bytes(tmp_path / f'tight {budget}') == directory_bytes(tmp_path / 'roomy')
    assert bool(runs) == (budget < 200 * layout.posting_bytes)


WITHIN_BUDGET = """
import dataclasses, resource, sys
import numpy as np
from delf_d2r.index import InvertedIndex
from delf_d2r.kernels.aggregation import Kernel
from oracles.index_inputs import random_descriptors
options = {'num_words': 5000, 'dimensions': 128, 'kernel': Kernel.ASMK_STAR}
pool = random_descriptors(1, 20, present=600, **options)
build = {'num_words': 5000, 'kernel': Kernel.ASMK_STAR}
InvertedIndex.build(pool, [str(m) for m in range(20)], **build).search(pool[3])  # compiles
used = next(int(line.split()[1]) << 10 for line in open('/proc/self/status') if line.startswith('VmData'))
resource.setrlimit(resource.RLIMIT_DATA, (used + (96 << 20),) * 2)
images = 12_000  # 7.2 million postings: 130 MB sorted, 288 MB with the unsorted ones
def descriptors():  # each in memory of its own
  for m in range(images):
    original = pool[m % 20]
    yield dataclasses.replace(
      original, visual_words=original.visual_words.copy(), values=original.values.copy()
    )
names = [str(m) for m in range(images)]
index = InvertedIndex.build(descriptors(), names, **build, directory=sys.argv[1], memory_budget=32 << 20)
assert index.search(pool[3], top_k=1).image_ids.tolist() == [3]
print(index.num_postings)
try:
  InvertedIndex.build(descriptors(), names, **build)
except MemoryError:
  print('too large for memory')
"""


@pytest.mark.slow
def test_an_index_larger_than_memory_is_built_within_the_budget(tmp_path):
  """The process may use 96 MB of memory beyond that of its imports, of which the budget is 32."""
  if not os.path.exists('/proc/self/status'):
    pytest.skip('limits of memory are tested on Linux')
  environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}
  result = subprocess.run(
    [sys.executable, '-c', WITHIN_BUDGET, tmp_path], env=environment, capture_output=True, text=True
  )
  assert result.stdout == '7200000\ntoo large for memory\n', result.stderr
  InvertedIndex.load(tmp_path, verify=True)


def test_numpy_and_compiled_sort_agree(monkeypatch):
  descriptors = random_descriptors(2, 50, **OPTIONS)
  names = [str(m) for m in range(50)]
  monkeypatch.setattr('delf_d2r.index.segments.BLOCK_BYTES', 700)
  segments = []
  for compiled in (False, True):
    monkeypatch.setattr('delf_d2r.index.sorting.HAVE_NUMBA', compiled)
    segments.append(InvertedIndex.build(descriptors, names, **BUILD)._state.segments[0])
  for name, array in segments[0].arrays.items():
    np.testing.assert_array_equal(array, segments[1].arrays[name])


def test_what_a_search_remembers_does_not_outlive_an_update():
  descriptors = random_descriptors(10, 9, **OPTIONS)
  index = InvertedIndex.build(descriptors[:6], list('abcdef'), **BUILD)
  fresh = InvertedIndex.build(descriptors[2:], list('cdefghi'), **BUILD)
  changes = [lambda: index.add(descriptors[6:], list('ghi')), lambda: index.remove(list('ab'))]
  for change in changes:
    for use_idf in (False, True):
      index.search(descriptors[0], use_idf=use_idf)
    change()
  for use_idf in (False, True):
    found, expected = (i.search(descriptors[3], use_idf=use_idf) for i in (index, fresh))
    assert found.scores.tobytes() == expected.scores.tobytes()
    assert found.image_ids.tolist() == expected.image_ids.tolist()


def test_changes_reach_the_disk_with_save_alone(tmp_path):
  descriptors = random_descriptors(3, 6, **OPTIONS)
  InvertedIndex.build(descriptors[:4], list('abcd'), **BUILD, directory=tmp_path / 'x')
  before = directory_bytes(tmp_path / 'x')
  index = InvertedIndex.load(tmp_path / 'x')
  index.add(descriptors[4:], ['e', 'f'])
  assert (len(index), len(InvertedIndex.load(tmp_path / 'x'))) == (6, 4)
  index.close()
  assert {name: directory_bytes(tmp_path / 'x')[name] for name in before} == before

  # The next update removes the files of the one that was abandoned.
  again = InvertedIndex.load(tmp_path / 'x')
  again.remove(['a'])
  again.save()
  InvertedIndex.build(descriptors[1:4], list('bcd'), **BUILD).save(tmp_path / 'fresh')
  assert directory_bytes(tmp_path / 'x') == directory_bytes(tmp_path / 'fresh')


def test_saving_what_has_not_changed_changes_nothing(tmp_path):
  InvertedIndex.build(random_descriptors(3, 4, **OPTIONS), list('abcd'), **BUILD, directory=tmp_path / 'x')
  before = directory_bytes(tmp_path / 'x')
  InvertedIndex.load(tmp_path / 'x').save()
  assert directory_bytes(tmp_path / 'x') == before
  files = list((tmp_path / 'x').iterdir())
  stats = [(path.stat().st_ino, path.stat().st_mtime_ns) for path in files]
  InvertedIndex.load(tmp_path / 'x').save()
  assert [(path.stat().st_ino, path.stat().st_mtime_ns) for path in files] == stats


def test_an_unchanged_segment_is_not_written_again(small_segments, tmp_path):
  descriptors = random_descriptors(4, 20, **OPTIONS)
  index = InvertedIndex.build(
    descriptors[:19], [str(m) for m in range(19)], **BUILD, directory=tmp_path / 'x'
  )
  before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / 'x').glob('segment-0000[01]*')}
  index.add(descriptors[19:], ['19'])
  index.remove(['17'])
  index.save()
  assert len(before) == 8
  assert before == {name: (tmp_path / 'x' / name).stat().st_mtime_ns for name in before}


def test_one_writer_at_a_time_and_no_lost_update(tmp_path):
  descriptors = random_descriptors(5, 6, **OPTIONS)
  InvertedIndex.build(descriptors[:4], list('abcd'), **BUILD, directory=tmp_path / 'x')
  first, second, third = (InvertedIndex.load(tmp_path / 'x') for _ in range(3))
  first.add(descriptors[4:5], ['e'])
  with pytest.raises(BlockingIOError, match='another update of the index is not finished'):
    second.add(descriptors[5:], ['f'])
  first.save()
  for change in (second.save, lambda: second.add(descriptors[5:], ['f'])):
    with pytest.raises(ValueError, match='holds another index than the one loaded'):
      change()
  assert list(InvertedIndex.load(tmp_path / 'x').image_names) == list('abcde')
  with pytest.raises(ValueError, match='holds another index'):
    InvertedIndex.build(descriptors[:1], ['z'], **BUILD, directory=tmp_path / 'x')
  with pytest.raises(IndexFormatError, match='load it again'):
    third.save(overwrite=True)
  InvertedIndex.build(descriptors[:1], ['z'], **BUILD).save(tmp_path / 'x', overwrite=True)
  assert list(InvertedIndex.load(tmp_path / 'x').image_names) == ['z']


def test_other_files_of_the_directory_stay(tmp_path):
  (tmp_path / 'manifest.pbtxt').write_text('stage')
  (tmp_path / 'segment-notes.npy').write_text('mine')
  index = InvertedIndex.build(random_descriptors(6, 2, **OPTIONS), ['a', 'b'], **BUILD, directory=tmp_path)
  index.remove(['a'])
  index.save()
  assert (tmp_path / 'manifest.pbtxt').read_text() == 'stage'
  assert (tmp_path / 'segment-notes.npy').read_text() == 'mine'


def test_names_that_are_wrong_change_nothing():
  index = InvertedIndex.build(random_descriptors(7, 2, **OPTIONS), ['a', 'b'], **BUILD)
  with pytest.raises(KeyError, match="'c' is not among the 2 images"):
    index.remove(['a', 'c'])
  with pytest.raises(ValueError, match="found 'b' twice"):
    index.add(random_descriptors(8, 1, **OPTIONS), ['b'])
  with pytest.raises(ValueError, match='expected none as in the index, found some'):
    index.add(random_descriptors(8, 1, **OPTIONS), ['c'], entry_images=[0])
  with_regions = InvertedIndex.build([], [], **BUILD, entry_images=[])
  with pytest.raises(ValueError, match='expected some as in the index, found none'):
    with_regions.add(random_descriptors(8, 1, **OPTIONS), ['c'])
  assert list(index.image_names) == ['a', 'b']
  with pytest.raises(ValueError, match='has no directory'):
    index.save()


def test_of_too_many_descriptors_a_single_one_is_read():
  index = InvertedIndex.build([], [], **BUILD)
  descriptors = iter(random_descriptors(8, 9, **OPTIONS))
  with pytest.raises(ValueError, match='expected 3 descriptors, one for each entry, found more'):
    index.add(descriptors, list('abc'))
  assert len(list(descriptors)) == 5
  with pytest.raises(ValueError, match='expected 3 descriptors, one for each entry, found 2'):
    index.add(random_descriptors(8, 2, **OPTIONS), list('abc'))


@pytest.mark.parametrize('is_regional', [False, True])
@pytest.mark.parametrize('images', [range(0), range(3), range(2, 21), range(9, 30), range(30)])
def test_a_subset_has_the_bytes_of_a_fresh_build(small_segments, tmp_path, is_regional, images):
  counts = np.random.default_rng(0).integers(0, 3, 30) if is_regional else np.ones(30, int)
  descriptors = random_descriptors(9, counts.sum(), **OPTIONS)
  names = [str(m) for m in range(30)]
  index = InvertedIndex.build(descriptors, names, **BUILD, **regional(counts, is_regional))
  subset = index.subset(images, directory=tmp_path / 'subset')
  chosen = slice(images.start, images.stop)
  owned = np.repeat(np.arange(30), counts)
  InvertedIndex.build(
    [own for own, image in zip(descriptors, owned, strict=True) if image in images],
    names[chosen],
    **BUILD,
    **regional(counts[chosen], is_regional),
    directory=tmp_path / 'built',
  )
  assert directory_bytes(tmp_path / 'subset') == directory_bytes(tmp_path / 'built')
  InvertedIndex.merge([subset], directory=tmp_path / 'merged')
  assert directory_bytes(tmp_path / 'merged') == directory_bytes(tmp_path / 'built')


@pytest.mark.parametrize('images', [range(2, 4), range(0, 3, 2), range(-1, 2), range(2, 1)])
def test_a_subset_is_one_of_images_of_the_index(images):
  index = InvertedIndex.build(random_descriptors(9, 3, **OPTIONS), list('abc'), **BUILD)
  with pytest.raises(ValueError, match='images: expected consecutive ones of 0 to 3, found range'):
    index.subset(images)


def test_searches_go_on_while_a_copy_is_changed_and_saved(tmp_path):
  descriptors = random_descriptors(9, 4, **OPTIONS)
  InvertedIndex.build(descriptors, list('abcd'), **BUILD, directory=tmp_path / 'x')
  index = InvertedIndex.load(tmp_path / 'x')
  changed = index.copy_on_write()
  changed.remove(['a'])
  changed.save()
  assert index.search(descriptors[0], top_k=1).image_ids.tolist() == [0]
  assert (len(index), len(changed), len(InvertedIndex.load(tmp_path / 'x'))) == (4, 3, 3)


def test_files_have_the_permissions_of_other_files(tmp_path):
  umask = os.umask(0o020)
  try:
    InvertedIndex.build(random_descriptors(9, 2, **OPTIONS), list('ab'), **BUILD, directory=tmp_path / 'x')
  finally:
    os.umask(umask)
  assert {path.stat().st_mode & 0o777 for path in (tmp_path / 'x').iterdir()} == {0o646}


def test_a_save_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
  InvertedIndex.build(random_descriptors(9, 3, **OPTIONS), list('abc'), **BUILD, directory=tmp_path / 'x')
  before = directory_bytes(tmp_path / 'x')
  index = InvertedIndex.load(tmp_path / 'x')

  def full(descriptor):
    raise OSError(errno.ENOSPC, 'No space left on device')

  with monkeypatch.context() as context:
    context.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match='No space left'):
      index.remove(['a'])
  assert directory_bytes(tmp_path / 'x') == before


def saved_index(directory):
  descriptors = random_descriptors(9, 4, **OPTIONS)
  InvertedIndex.build(descriptors[:3], list('abc'), **BUILD, directory=directory)
  return descriptors


def test_a_change_that_fails_leaves_no_lock_though_its_exception_is_kept(tmp_path, monkeypatch):
  descriptors = saved_index(tmp_path / 'x')
  index = InvertedIndex.load(tmp_path / 'x')

  def full(descriptor):
    raise OSError(errno.ENOSPC, 'No space left on device')

  kept = []
  changes = [
    lambda index: index.remove(['a']),
    lambda index: index.add(descriptors[3:], ['d']),
    lambda index: index.add([], ['e']),
    lambda index: index.remove(['nobody']),
  ]
  for number, change in enumerate(changes):
    with monkeypatch.context() as context:
      if number < 2:
        context.setattr(os, 'fsync', full)
      with pytest.raises((OSError, ValueError, KeyError)) as found:
        change(index)
    kept.append(found.value)
    other = InvertedIndex.load(tmp_path / 'x')
    with other.updating():
      pass
  # A second change that fails does not end the lock of the first, which is not saved yet.
  index.remove(['a'])
  with pytest.raises(KeyError):
    index.remove(['nobody'])
  with pytest.raises(BlockingIOError, match='another update of the index is not finished'):
    InvertedIndex.load(tmp_path / 'x').remove(['b'])
  index.save()
  InvertedIndex.load(tmp_path / 'x').remove(['b'])
  assert len(kept) == len(changes)


def test_a_save_that_fails_can_be_repeated(tmp_path, monkeypatch):
  saved_index(tmp_path / 'x')
  index = InvertedIndex.load(tmp_path / 'x')
  index.remove(['a'])

  def full(descriptor):
    raise OSError(errno.ENOSPC, 'No space left on device')

  with monkeypatch.context() as context:
    context.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match='No space left'):
      index.save()
  assert list(InvertedIndex.load(tmp_path / 'x').image_names) == list('abc')
  with pytest.raises(BlockingIOError):  # The change is not lost to another process.
    InvertedIndex.load(tmp_path / 'x').remove(['b'])
  index.save()
  assert list(InvertedIndex.load(tmp_path / 'x').image_names) == list('bc')


@pytest.mark.parametrize('name', ['fsync', 'unlink'])
@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt])
def test_what_fails_after_the_new_index_is_in_place(tmp_path, monkeypatch, caplog, name, error):
  saved_index(tmp_path / 'x')
  index = InvertedIndex.load(tmp_path / 'x')
  index.remove(['a'])
  replace = os.replace

  def fail(*args):
    raise error('late')

  def replace_and_fail_later(source, target):
    replace(source, target)
    if os.path.basename(target) == 'index.json':
      context.setattr(os, name, fail)

  with monkeypatch.context() as context:
    context.setattr(os, 'replace', replace_and_fail_later)
    if error is OSError:
      index.save()
      assert 'the index is saved' in caplog.text
    else:
      with pytest.raises(KeyboardInterrupt):
        index.save()
  assert not index.has_changed
  assert index.checksum == InvertedIndex.load(tmp_path / 'x').checksum
  index.remove(['b'])
  index.save()
  assert list(InvertedIndex.load(tmp_path / 'x', verify=True).image_names) == ['c']
  InvertedIndex.load(tmp_path / 'x').remove(['c'])


def test_another_directory_in_the_same_place_is_not_written_to(tmp_path):
  saved_index(tmp_path / 'x')
  index = InvertedIndex.load(tmp_path / 'x')
  index.remove(['a'])
  (tmp_path / 'x').rename(tmp_path / 'moved')
  saved_index(tmp_path / 'x')
  before = directory_bytes(tmp_path / 'x')
  with pytest.raises(ValueError, match='load it again'):
    index.save()
  assert {name: directory_bytes(tmp_path / 'x')[name] for name in before} == before


def test_a_forked_process_does_not_keep_the_lock(tmp_path):
  """Like a copy of the descriptor, which a forked process has."""
  saved_index(tmp_path / 'x')
  index = InvertedIndex.load(tmp_path / 'x')
  index.remove(['a'])
  copied = os.dup(index._storage._writer._lock)
  try:
    with pytest.raises(BlockingIOError):
      InvertedIndex.load(tmp_path / 'x').remove(['b'])
    index.save()
    InvertedIndex.load(tmp_path / 'x').remove(['b'])
  finally:
    os.close(copied)


def test_an_index_that_nobody_uses_any_more_is_not_locked(tmp_path):
  descriptors = saved_index(tmp_path / 'x')
  gc.disable()
  try:
    index = InvertedIndex.load(tmp_path / 'x')
    index.remove(['a'])
    index.search(descriptors[1])
    del index
    InvertedIndex.load(tmp_path / 'x').remove(['b'])
  finally:
    gc.enable()


@pytest.mark.parametrize('shape', [(0, 5), (1, 5), (3000, 2)])
def test_scratch_is_in_a_file_without_a_name(tmp_path, shape):
  directory = Directory(str(tmp_path))
  array = directory.scratch('some', np.dtype(np.float32), shape)
  assert (array.shape, array.dtype) == (shape, np.float32)
  array[:] = 7
  assert list(tmp_path.iterdir()) == []
  if array.size and os.path.exists('/proc/self/maps'):
    with open('/proc/self/maps') as maps:
      assert str(tmp_path) in maps.read()
  directory.close()


def test_bytes_are_counted_alike_in_memory_and_on_the_disk(small_segments, tmp_path):
  index = InvertedIndex.build(random_descriptors(9, 20, **OPTIONS), list(map(str, range(20))), **BUILD)
  in_memory = index.nbytes
  index.save(tmp_path / 'x')
  assert index.nbytes == in_memory > 0


def test_the_checksum_is_that_of_what_lies_on_the_disk(tmp_path):
  index = InvertedIndex.build(random_descriptors(9, 3, **OPTIONS), list('abc'), **BUILD)
  assert index.checksum is None
  index.save(tmp_path / 'x')
  saved = index.checksum
  assert saved == json.loads((tmp_path / 'x' / 'index.json').read_text())['checksum']
  index.remove(['a'])
  assert index.checksum == InvertedIndex.load(tmp_path / 'x').checksum == saved
  index.save()
  assert index.checksum == InvertedIndex.load(tmp_path / 'x').checksum != saved


def test_indexes_of_different_kinds_do_not_merge():
  one = InvertedIndex.build(random_descriptors(9, 2, **OPTIONS), ['a', 'b'], **BUILD)
  other = InvertedIndex.build([], [], **{**BUILD, 'num_words': 13})
  with pytest.raises(ValueError, match='num_words: expected 12 as in the first index, found 13'):
    InvertedIndex.merge([one, other])
  with pytest.raises(ValueError, match="found 'a' twice"):
    InvertedIndex.merge([one, one])
  with pytest.raises(ValueError, match='found none'):
    InvertedIndex.merge([])


UPDATE = """
import sys
from delf_d2r.index import InvertedIndex
from oracles.index_inputs import random_descriptors
from delf_d2r.kernels.aggregation import Kernel
options = {'num_words': 12, 'dimensions': 70, 'kernel': Kernel.ASMK_STAR}
descriptors = random_descriptors(1, 400, **options)
index = InvertedIndex.load(sys.argv[1])
print('ready', flush=True)
while True:
  index.add(descriptors[200:], [str(m) for m in range(200, 400)])
  index.save()
  index.remove([str(m) for m in range(200, 400)])
  index.save()
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_the_old_index_or_the_new(tmp_path):
  descriptors = random_descriptors(1, 400, **OPTIONS)
  names = [str(m) for m in range(400)]
  InvertedIndex.build(descriptors[:200], names[:200], **BUILD, directory=tmp_path / 'x')
  InvertedIndex.build(descriptors, names, **BUILD, directory=tmp_path / 'new')
  old, new = directory_bytes(tmp_path / 'x'), directory_bytes(tmp_path / 'new')
  manifests = {old['index.json']: old, new['index.json']: new}
  environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path), 'DELF_D2R_NO_NUMBA': '1'}
  leftovers = 0
  for trial in range(6):
    worker = subprocess.Popen(
      [sys.executable, '-c', UPDATE, tmp_path / 'x'], env=environment, stdout=subprocess.PIPE
    )
    with worker.stdout:
      assert worker.stdout.readline() == b'ready\n'
      time.sleep(0.003 + 0.013 * trial)
      worker.send_signal(signal.SIGKILL)
      worker.wait()
    found = directory_bytes(tmp_path / 'x')
    expected = manifests[found['index.json']]
    assert {name: found[name] for name in expected} == expected
    leftovers += found.keys() != expected.keys()
    index = InvertedIndex.load(tmp_path / 'x', verify=True)
    assert len(index) in (200, 400)
    if len(index) == 400:
      index.remove(names[200:])
    index.save(overwrite=True)
    assert directory_bytes(tmp_path / 'x') == old
  assert leftovers, 'no kill came while files were being written; the test shows nothing'


def test_the_manifest_is_readable(tmp_path):
  InvertedIndex.build(random_descriptors(1, 3, **OPTIONS), list('abc'), **BUILD, directory=tmp_path)
  manifest = json.loads((tmp_path / 'index.json').read_text())
  assert (manifest['version'], manifest['column_bits']) == (5, 32)
  assert (manifest['kernel'], manifest['num_words'], manifest['dimensions']) == ('ASMK_STAR', 12, 70)
  assert np.load(next(tmp_path.glob('segment-00000-offsets-*.npy'))).shape == (13,)


def test_layout_bytes():
  assert Layout(65536, 128, True).posting_bytes == 18
  assert Layout(65536, 100, True).posting_bytes == 18
  assert Layout(65536, 64, True).posting_bytes == 10
  assert Layout(65536, 96, True).posting_bytes == 14
  assert Layout(65536, 32, True).posting_bytes == 6
  assert Layout(65536, 40, False).posting_bytes == 162


def test_an_odd_number_of_images_and_then_more_than_a_batch(tmp_path):
  """The descriptors are so long that no two numbers for their length are the same object."""
  descriptors = random_descriptors(11, 200, **{**OPTIONS, 'dimensions': int('300')})
  names, build = list(map(str, range(200))), {**BUILD, 'dimensions': int('300')}
  index = InvertedIndex.build(descriptors[:65], names[:65], **build)
  index.add(descriptors[65:], names[65:])
  index.save(tmp_path / 'added')
  InvertedIndex.build(descriptors, names, **build, directory=tmp_path / 'fresh')
  assert directory_bytes(tmp_path / 'added') == directory_bytes(tmp_path / 'fresh')


def test_a_string_is_not_a_list_of_names():
  descriptor = AggregatedDescriptor(np.array([1], np.uint32), np.ones((1, 4), np.float32), 4)
  index = InvertedIndex.build([descriptor] * 3, ['a', 'b', 'ab'], num_words=2, kernel=Kernel.VLAD)
  with pytest.raises(TypeError, match="'ab'"):
    index.remove('ab')
  with pytest.raises(TypeError, match="'xy'"):
    index.add([descriptor] * 2, 'xy')
  with pytest.raises(TypeError, match="'xy'"):
    InvertedIndex.build([descriptor] * 2, 'xy', num_words=2, kernel=Kernel.VLAD)
  with pytest.raises(TypeError, match="'xy'"):
    index.search_batch([descriptor] * 2, names='xy')
  assert list(index.image_names) == ['a', 'b', 'ab']
