"""Damaged files are refused, by name, and never crash the process."""

import io
import json
import os
import shutil
import subprocess
import sys

import google_crc32c
import numpy as np
import pytest
from oracles.index_inputs import random_descriptors

from delf_d2r.index import IndexFormatError, InvertedIndex
from delf_d2r.index.directory import (
  array_header,
  array_path,
  check_checksum,
  check_offsets,
  read_sequentially,
)
from delf_d2r.index.images import NameTable
from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.kernels.compiled import HAVE_NUMBA

OPTIONS = {'num_words': 9, 'dimensions': 70, 'kernel': Kernel.ASMK_STAR}
ARRAYS = ['offsets', 'entry_ids', 'values', 'word_counts']
PATHS = [False, True] if HAVE_NUMBA else [False]


def save_index(directory, kernel=Kernel.ASMK_STAR, dimensions=70):
  options = {**OPTIONS, 'kernel': kernel, 'dimensions': dimensions}
  InvertedIndex.build(
    random_descriptors(1, 20, **options),
    [f'image {m}' for m in range(8)],
    num_words=9,
    kernel=kernel,
    entry_images=np.minimum(np.arange(20) // 2, 7),
    directory=directory,
  )
  return random_descriptors(2, 1, present=8, **options)[0]


def only(directory, pattern):
  (path,) = directory.glob(pattern)
  return path


def use(directory, query):
  """Does everything that a reader does."""
  index = InvertedIndex.load(directory)
  for compiled in PATHS:
    for use_idf in (False, True):
      index.search(query, use_idf=use_idf, compiled=compiled, top_k=3)
  list(index.image_names)
  index.image_names[-1]
  index.list_sizes()
  index.verify()


def rewrite_manifest(directory, change):
  """Changes the manifest and corrects its checksum."""
  path = directory / 'index.json'
  manifest = json.loads(path.read_text())
  del manifest['checksum']
  change(manifest)
  manifest['checksum'] = google_crc32c.value(json.dumps(manifest, sort_keys=True).encode())
  path.write_text(json.dumps(manifest))


def replace_array(directory, stem, change):
  """Replaces the content of an array and all its checksums, as a faulty writer would."""
  path = only(directory, f'{stem}-????????.npy')
  array = np.load(path)
  change(array)
  content = array_header(array.dtype, array.shape) + array.tobytes()
  path.unlink()
  checksum = google_crc32c.value(content)
  with open(array_path(directory, stem, checksum), 'wb') as file:
    file.write(content)

  def place(manifest):
    if stem.startswith('segment'):
      _, number, name = stem.split('-')
      manifest['segments'][int(number)]['arrays'][name] = checksum
    else:
      manifest['arrays'][stem] = checksum

  rewrite_manifest(directory, place)


@pytest.mark.parametrize(
  'name', ['segment-00000-' + name for name in ARRAYS] + ['names_utf8', 'entry_offsets']
)
def test_missing_truncated_and_altered_files(tmp_path, name):
  query = save_index(tmp_path / 'good')
  use(tmp_path / 'good', query)
  for damage in ('missing', 'truncated', 'longer', 'empty', 'dtype', 'content'):
    shutil.copytree(tmp_path / 'good', tmp_path / damage)
    path = only(tmp_path / damage, f'{name}-*')
    content = path.read_bytes()
    if damage == 'missing':
      path.unlink()
    elif damage == 'truncated':
      path.write_bytes(content[:-1])
    elif damage == 'longer':
      path.write_bytes(content + b'\0')
    elif damage == 'empty':
      path.write_bytes(b'')
    elif damage == 'dtype':
      path.write_bytes(content.replace(b"'<", b"'>").replace(b"'|u1", b"'|i1"))
    else:
      path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    if damage in ('missing', 'truncated', 'longer', 'empty'):
      with pytest.raises(IndexFormatError, match=path.name):
        InvertedIndex.load(tmp_path / damage)
    if damage == 'dtype':
      with pytest.raises(IndexFormatError, match=f'{path.name}: the header is not that of'):
        InvertedIndex.load(tmp_path / damage).search(query)
    with pytest.raises(IndexFormatError, match=path.name):
      InvertedIndex.load(tmp_path / damage, verify=True)


@pytest.mark.parametrize('digits', range(1, 13))
def test_arrays_begin_at_multiples_of_64_bytes(digits):
  shape = (10 ** (digits - 1), 0)
  header = array_header(np.dtype('<f4'), shape)
  assert len(header) in (64, 128)
  assert np.load(io.BytesIO(header)).shape == shape


@pytest.mark.parametrize(
  ('offsets', 'message'),
  [
    ([1, 2, 5], 'found 1 to 5 with 0 descents'),
    ([0, 2, 4], 'found 0 to 4 with 0 descents'),
    ([0, 4, 2, 5], 'found 0 to 5 with 1 descents'),
  ],
)
def test_offsets_rise_from_0_to_the_end(offsets, message):
  with pytest.raises(IndexFormatError, match=f'some file: expected offsets that rise from 0 to 5, {message}'):
    check_offsets(np.array(offsets, np.uint64), 5, 'some file')
  check_offsets(np.array([0, 2, 2, 5], np.uint64), 5, 'some file')


def test_a_file_that_vanishes_before_it_is_read_is_named(tmp_path):
  for read in (lambda path: check_checksum(path, 0), lambda path: list(read_sequentially([path]))):
    with pytest.raises(IndexFormatError, match='nowhere: No such file'):
      read(str(tmp_path / 'nowhere'))


def test_offsets_that_fall_are_refused_before_any_list_is_read(tmp_path):
  query = save_index(tmp_path / 'x')
  replace_array(tmp_path / 'x', 'segment-00000-offsets', lambda a: a.__setitem__(3, a[-1] + 1000))
  with pytest.raises(
    IndexFormatError, match=r'segment-00000-offsets.*with 1 descents; build the index again'
  ):
    InvertedIndex.load(tmp_path / 'x').search(query)


@pytest.mark.parametrize(
  'stem, change, message',
  [
    ('segment-00000-entry_ids', lambda a: a.__setitem__(-1, 65535), 'expected ids below 20, found 65535'),
    ('segment-00000-entry_ids', lambda a: a.__setitem__(1, 0), 'ids do not ascend'),
    ('segment-00000-word_counts', lambda a: a.__setitem__(0, 9999), 'word counts differ'),
    ('entry_offsets', lambda a: a.__setitem__(1, 99), 'expected offsets that rise'),
    ('names_offsets', lambda a: a.__setitem__(1, 9999), 'expected offsets that rise'),
  ],
)
def test_arrays_that_contradict_each_other(tmp_path, stem, change, message):
  """The checksums are right, so only the content shows the fault."""
  query = save_index(tmp_path / 'x')
  replace_array(tmp_path / 'x', stem, change)
  message = f'{stem}.*: {message}'
  with pytest.raises(IndexFormatError, match=message):
    InvertedIndex.load(tmp_path / 'x', verify=True)
  index = InvertedIndex.load(tmp_path / 'x')
  with pytest.raises(IndexFormatError, match=message):
    index.verify()
  for compiled in PATHS:
    if stem == 'entry_offsets':
      with pytest.raises(IndexFormatError, match=message):
        index.search(query, compiled=compiled)
      for change in (lambda: InvertedIndex.merge([index]), lambda: index.subset(range(2))):
        with pytest.raises(IndexFormatError, match=message):
          change()
    else:
      index.search(query, compiled=compiled, use_idf=True)  # no crash
  list(index.image_names)


@pytest.mark.parametrize(
  'change, message',
  [
    (lambda m: m.update(version=6), 'version: expected 1 or 2 or 3 or 4 or 5, found 6; use the release'),
    (lambda m: m.update(version=5), 'not a manifest'),
    (lambda m: m.update(version=4), 'not a manifest'),
    (lambda m: m.update(version=4, region_masks=0, codebook='x'), 'region_masks 0'),
    (lambda m: m.update(version=4, region_masks=False, codebook=''), "codebook ''"),
    (lambda m: m.update(format='other'), 'format: expected'),
    (lambda m: m.update(kernel='BOW'), 'not a manifest'),
    (lambda m: m.update(num_words=10), 'expected .* bytes, found'),
    (lambda m: m.update(num_words=-1), 'num_words: expected an integer'),
    (lambda m: m.update(num_words=2**70), 'num_words: expected an integer'),
    (lambda m: m.update(dimensions=True), 'dimensions: expected an integer'),
    (lambda m: m.update(dimensions=1000), 'expected .* bytes, found'),
    (lambda m: m.update(num_images=9), 'expected .* bytes, found'),
    (lambda m: m.update(regional=False), '8 images, 20 entries'),
    (lambda m: m.update(regional=False, num_images=21), '21 images, 20 entries'),
    (lambda m: m.update(segments=m['segments'] * 2), 'not full'),
    (lambda m: m['segments'][0].update(entries=70000), 'entries: expected an integer from 0 to 65536'),
    (lambda m: m['segments'][0].update(entries=19), 'expected .* bytes, found'),
    (lambda m: m['segments'][0].update(arrays=[]), 'not a manifest'),
    (lambda m: m['segments'][0]['arrays'].update(values='../../etc/passwd'), 'values: expected an integer'),
    (lambda m: m.pop('arrays'), 'not a manifest'),
    (lambda m: m.update(segments=7), 'not a manifest'),
  ],
)
def test_wrong_manifests_with_a_right_checksum(tmp_path, change, message):
  save_index(tmp_path / 'x', dimensions=128)
  rewrite_manifest(tmp_path / 'x', change)
  with pytest.raises(IndexFormatError, match=message):
    InvertedIndex.load(tmp_path / 'x')


@pytest.mark.parametrize(
  'content', [b'', b'{', b'[]', b'null', b'7', b'\xff\xfe', b'{"checksum": 1}', b'[' * 100_000]
)
def test_files_that_are_no_manifest(tmp_path, content):
  (tmp_path / 'index.json').write_bytes(content)
  with pytest.raises(IndexFormatError, match=r'index\.json'):
    InvertedIndex.load(tmp_path)


def test_a_directory_without_an_index(tmp_path):
  with pytest.raises(IndexFormatError, match='no index was saved here, build one'):
    InvertedIndex.load(tmp_path)


FUZZ = """
import pathlib, sys
import numpy as np
sys.path[:0] = sys.argv[2].split(':')
from delf_d2r.index import updates
from index.test_index_files import IndexFormatError, Kernel, InvertedIndex, save_index, use, PATHS
updates.SMALL_BYTES = 0  # removed images leave their postings
rng = np.random.default_rng(int(sys.argv[3]))
refused = 0
for kernel, dimensions in ((Kernel.ASMK_STAR, 70), (Kernel.ASMK_STAR, 128), (Kernel.ASMK, 70)):
  directory = pathlib.Path(sys.argv[1]) / f'{kernel.name} {dimensions}'
  query = save_index(directory, kernel, dimensions)
  if dimensions == 128:
    with InvertedIndex.load(directory) as index:
      index.remove(['image 0'])
      index.save()
      assert index.num_removed == 2
  files = sorted(directory.iterdir())
  for trial in range(100):
    path = files[rng.integers(len(files))]
    good = path.read_bytes()
    bad = bytearray(good)
    kind = rng.integers(4)
    if kind == 0:
      for _ in range(rng.integers(1, 9)):
        bad[rng.integers(len(bad))] = rng.integers(256)
    elif kind == 1:
      del bad[rng.integers(len(bad)):]
    elif kind == 2:
      start = rng.integers(len(bad))
      bad[start:start + 8] = b'\\xff' * len(bad[start:start + 8])
    else:
      start, stop = np.sort(rng.integers(0, len(bad), 2))
      bad[start:stop] = bytes(reversed(bad[start:stop]))
    if bytes(bad) == good:
      continue
    path.write_bytes(bytes(bad))
    try:
      use(directory, query)
    except IndexFormatError as error:
      refused += 1
    else:
      sys.exit(f'{path.name}: a change of kind {kind} was not noticed')
    finally:
      path.write_bytes(good)
  use(directory, query)
print(refused)
"""


@pytest.mark.slow
def test_mutated_files_are_all_refused_and_none_crashes(tmp_path, request):
  """verify() notices every change, and no search leaves its arrays, which numba checks here.

  In a process of its own, so that a crash is a failure of this test.
  """
  tests = request.config.rootpath / 'tests'
  environment = {**os.environ, 'NUMBA_BOUNDSCHECK': '1', 'NUMBA_CACHE_DIR': str(tmp_path / 'numba')}
  result = subprocess.run(
    [
      sys.executable,
      '-W',
      'ignore::RuntimeWarning',
      '-c',
      FUZZ,
      tmp_path / 'x',
      f'{tests}:{request.config.rootpath}',
      '1',
    ],
    capture_output=True,
    text=True,
    env=environment,
  )
  assert result.returncode == 0, result.stderr
  assert int(result.stdout) > 250


def test_an_index_that_another_process_updated_is_refused(tmp_path):
  query = save_index(tmp_path / 'x')
  stale = InvertedIndex.load(tmp_path / 'x')
  index = InvertedIndex.load(tmp_path / 'x')
  index.remove(['image 3'])
  index.save()
  with pytest.raises(IndexFormatError, match='load it again'):
    stale.search(query)


def test_an_open_index_goes_on_after_an_update(tmp_path):
  query = save_index(tmp_path / 'x')
  with InvertedIndex.load(tmp_path / 'x') as open_index:
    before = open_index.search(query)
    index = InvertedIndex.load(tmp_path / 'x')
    index.remove(['image 3'])
    index.save()
    after = open_index.search(query)
  assert before.scores.tobytes() == after.scores.tobytes()


def test_a_closed_index_is_not_mapped_any_more(tmp_path):
  if not os.path.exists('/proc/self/maps'):
    pytest.skip('what is mapped is known on Linux')
  query = save_index(tmp_path / 'x')

  def is_mapped():
    with open('/proc/self/maps') as maps:
      return str(tmp_path / 'x' / 'segment-') in maps.read()

  with InvertedIndex.load(tmp_path / 'x') as index:
    index.search(query)
    assert is_mapped()
  assert not is_mapped()


def test_names_are_decoded_when_asked_for():
  names = ['', 'a b', 'ä/ö.jpg', 'not utf8 \udcff', '写真']
  table = NameTable.from_names(names)
  assert list(table) == names
  assert table[-1] == '写真'
  assert table[::2] == names[::2]
  assert 'a b' in table
  with pytest.raises(IndexError):
    table[5]
  assert list(table + table) == names + names
  assert list(NameTable.from_names([])) == []


def test_preloading_reads_every_byte_and_reports_its_progress(tmp_path):
  save_index(tmp_path / 'index')
  size = sum(path.stat().st_size for path in (tmp_path / 'index').glob('*.npy'))
  seen = []
  with InvertedIndex.load(tmp_path / 'index') as index:
    assert index.preload(lambda done, total: seen.append((done, total))) == size
  assert seen[-1] == (size, size)
  assert [done for done, _ in seen] == sorted(done for done, _ in seen)
  only(tmp_path / 'index', 'segment-00000-values-*').unlink()
  with pytest.raises(IndexFormatError, match='segment-00000-values'):
    index.preload()


def test_an_index_in_memory_has_nothing_to_preload_or_verify():
  descriptors = random_descriptors(1, 3, **OPTIONS)
  with InvertedIndex.build(descriptors, ['a', 'b', 'c'], num_words=9, kernel=OPTIONS['kernel']) as index:
    assert index.preload() == 0
    index.verify()
