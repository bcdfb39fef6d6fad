"""The folders that are inspected: also behind links, each once, and none silently skipped."""

import os
import pathlib
import tempfile

import pytest

from delf_d2r.doctor import inspect, places
from delf_d2r.doctor.findings import Severity
from delf_d2r.doctor.places import State


def make(*paths: pathlib.Path) -> None:
  for path in paths:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('?')


def found(path: pathlib.Path) -> dict[str, State]:
  return {place.relative_to(path).as_posix(): state for place, state in places.find(path).found}


def test_states_of_folders(tmp_path):
  make(
    tmp_path / 'features' / 'manifest.pbtxt',
    tmp_path / 'rankings' / 'manifest.partial.pbtxt',
    tmp_path / 'bare' / 'index.json',
    tmp_path / 'row' / 'distractors' / 'other' / 'features' / 'manifest.pbtxt',
    tmp_path / '.hidden' / 'manifest.pbtxt',
  )
  assert found(tmp_path) == {
    'bare': State.INDEX,
    'features': State.FINISHED,
    'rankings': State.UNFINISHED,
    'row/distractors/other/features': State.FINISHED,
  }


@pytest.mark.parametrize(
  'file',
  [
    'features-00000-of-00007.tfrecord',
    'rankings-00000-of-00001.tfrecord',
    'codebook.npy',
    'list_sizes.npy',
    'image_ids.npy',
    'per_query.json',
  ],
)
def test_files_of_an_artefact_without_manifest(tmp_path, file):
  make(tmp_path / 'run' / 'place' / file)
  for path in (tmp_path, tmp_path / 'run' / 'place'):
    ((place, state),) = places.find(path).found
    (finding,) = places.find(path).findings
    assert (place, state) == (tmp_path / 'run' / 'place', State.LOST)
    assert (finding.severity, finding.place) == (Severity.ERROR, str(place))
    assert 'without manifest.pbtxt and manifest.partial.pbtxt' in finding.problem


def test_files_of_others_need_no_manifest(tmp_path):
  make(tmp_path / 'data' / 'train-00000-of-00100.tfrecord', tmp_path / 'data' / 'embeddings.npy')
  # A command that was killed before its first file leaves this.
  make(tmp_path / 'boxes' / '.manifest.partial.pbtxt.abc.tmp')
  (tmp_path / 'features').mkdir()
  there = places.find(tmp_path)
  assert (there.found, there.findings) == ([], [])


def test_links_are_followed_once_and_end(tmp_path):
  make(tmp_path / 'disk' / 'moved' / 'manifest.pbtxt', tmp_path / 'run' / 'z' / 'boxes' / 'manifest.pbtxt')
  (tmp_path / 'run' / 'features').symlink_to(tmp_path / 'disk' / 'moved')
  (tmp_path / 'run' / 'again').symlink_to('features')
  (tmp_path / 'run' / 'a_link').symlink_to('z/boxes')
  (tmp_path / 'run' / 'loop').symlink_to('..')
  (tmp_path / 'run' / 'photo.jpg').symlink_to(tmp_path / 'disk' / 'moved' / 'manifest.pbtxt')
  (tmp_path / 'run' / 'broken').symlink_to('nowhere')
  # Not by a link if they are below `run` themselves.
  assert found(tmp_path / 'run') == {'again': State.FINISHED, 'z/boxes': State.FINISHED}
  assert found(tmp_path) == {'disk/moved': State.FINISHED, 'run/z/boxes': State.FINISHED}
  assert places.find(tmp_path / 'run').findings == []


@pytest.fixture
def nobodys():
  """A folder in which this process has no root permissions."""
  with tempfile.TemporaryDirectory() as folder:
    os.chmod(folder, 0o777)
    user = os.geteuid()
    if not user:
      os.seteuid(65534)
    try:
      yield pathlib.Path(folder)
    finally:
      os.seteuid(user)
      for place, _, _ in os.walk(folder):
        os.chmod(place, 0o700)


def test_a_folder_that_may_not_be_read_is_named(nobodys):
  make(nobodys / 'a' / 'boxes' / 'manifest.pbtxt', nobodys / 'b' / 'c' / 'manifest.pbtxt')
  (nobodys / 'link').symlink_to('b/c')
  (nobodys / 'b').chmod(0)
  there = places.find(nobodys)
  assert [place for place, _ in there.found] == [nobodys / 'a' / 'boxes']
  (finding,) = there.findings
  assert finding.severity is Severity.ERROR
  for place in (nobodys / 'b', nobodys / 'link'):
    assert f'{place}: Permission denied' in finding.problem
  (alone,) = inspect.diagnose(nobodys / 'b').findings
  assert 'Permission denied' in alone.problem


@pytest.mark.parametrize('file', ['manifest.pbtxt', 'deep/codebook.npy'])
def test_a_file_that_may_not_be_read_is_not_called_damaged(nobodys, file):
  make(nobodys / 'codebook' / 'manifest.pbtxt', nobodys / 'codebook' / file)
  (nobodys / 'codebook' / file).chmod(0)
  (finding,) = inspect.diagnose(nobodys).findings
  assert finding.severity is Severity.ERROR
  assert f'without read permission: 1 ({nobodys / "codebook" / file})' in finding.problem
  assert 'permissions' in finding.remedy
  assert 'elete' not in finding.remedy
