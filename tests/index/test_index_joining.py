"""Parts that several processes have built, and the index that is made of them."""

import numpy as np
import pytest
from oracles.index_inputs import directory_bytes, random_descriptors

from delf_d2r.index import IndexFormatError, InvertedIndex, joining
from delf_d2r.kernels.aggregation import Kernel

SIZES = {'num_words': 12, 'dimensions': 70, 'kernel': Kernel.ASMK_STAR}
DESCRIPTORS = random_descriptors(1, 19, **SIZES)
NAMES = [str(m) for m in range(19)]


def build_part(path, descriptors, count=None):
  count = len(descriptors) if count is None else count
  joining.build_part(descriptors, count, path, **SIZES, memory_budget=1 << 20)
  return path


@pytest.fixture
def parts(small_segments, tmp_path):
  """19 entries in segments of 8."""
  return [build_part(tmp_path / f'part {start}', DESCRIPTORS[start : start + 8]) for start in (0, 8, 16)]


@pytest.mark.parametrize('owners', [None, np.arange(19) // 2])
def test_parts_become_the_index_of_one_process(parts, tmp_path, owners):
  names = NAMES if owners is None else NAMES[:10]
  joined = joining.join(parts, names, **SIZES, directory=tmp_path / 'joined', entry_images=owners)
  InvertedIndex.build(DESCRIPTORS, names, **SIZES, entry_images=owners, directory=tmp_path / 'built')
  assert directory_bytes(tmp_path / 'joined') == directory_bytes(tmp_path / 'built')
  assert len(joined.search(DESCRIPTORS[3])) == len(names)
  joined.remove(['0'])
  joined.save()
  joined.verify()


def test_only_a_whole_part_is_built(parts):
  assert all(map(joining.is_built, parts))
  next(parts[1].glob('*-values-*')).unlink()
  assert [joining.is_built(part) for part in parts] == [True, False, True]
  assert not joining.is_built(parts[0].parent / 'another')


def test_the_part_of_a_faster_process_stays(parts, tmp_path):
  files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}
  build_part(parts[1], DESCRIPTORS[8:16])
  assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')} == files


def test_other_files_in_the_place_of_a_part_are_no_part(parts, tmp_path):
  next(parts[1].glob('*-values-*')).unlink()
  files = sorted(tmp_path.rglob('*'))
  with pytest.raises(OSError, match='part 8'):
    build_part(parts[1], DESCRIPTORS[8:16])
  assert sorted(tmp_path.rglob('*')) == files


def test_a_part_that_fails_leaves_nothing(tmp_path):
  with pytest.raises(ValueError, match='expected 4 descriptors, one for each entry, found 3'):
    build_part(tmp_path / 'part', DESCRIPTORS[:3], 4)
  assert list(tmp_path.iterdir()) == []


def test_what_does_not_fit_is_refused_and_uses_nothing_up(parts, tmp_path):
  def join(parts=parts, names=NAMES, directory='joined', **options):
    joining.join(parts, names, **SIZES, directory=tmp_path / directory, **options)

  with pytest.raises(ValueError, match='expected 19 entries in 2 parts, found 16'):
    join(parts[:2])
  with pytest.raises(ValueError, match='expected 18 entries in 3 parts, found 19'):
    join(names=NAMES[:18])
  with pytest.raises(ValueError, match="found '0' twice"):
    join(names=['0', *NAMES[:18]])
  with pytest.raises(IndexFormatError, match='another'):
    join([*parts, tmp_path / 'another'])
  InvertedIndex.build(DESCRIPTORS[:1], ['other'], **SIZES, directory=tmp_path / 'taken')
  with pytest.raises(ValueError, match='holds another index'):
    join(directory='taken')
  assert all(map(joining.is_built, parts))
  join()
