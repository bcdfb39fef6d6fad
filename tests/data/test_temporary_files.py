"""What killed runs leave half written is removed by the next one, and nothing else."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from delf_d2r import config
from delf_d2r.data import files, temporary_files
from delf_d2r.data.artefacts import artefact_writer
from delf_d2r.data.artefacts.artefact import Plan

KILLED = """
import os, pathlib, signal, sys
from delf_d2r.data import files, temporary_files
folder = pathlib.Path(sys.argv[1])
model = temporary_files.temporary_folder(folder, '.model.')
with files.atomic_replace(folder / 'a.html') as path, model as made:
  path.write_text('half')
  (made / 'half').write_text('half')
  if sys.argv[2] == 'killed':
    os.kill(os.getpid(), signal.SIGKILL)
  print('ready', flush=True)
  sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
  """Forgets what this process knows of folders, as a new process does."""
  monkeypatch.setattr(temporary_files, '_FOUND', {})


def run(folder, how):
  return subprocess.Popen(
    [sys.executable, '-c', KILLED, folder, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE
  )


def test_the_next_run_removes_what_a_killed_one_left(tmp_path):
  with run(tmp_path, 'killed') as process:
    assert process.wait() == -signal.SIGKILL
  left = {path.name.rsplit('.', 2)[0] if path.is_file() else path.name[:7] for path in tmp_path.iterdir()}
  assert left == {'.a.html', '.model.'}
  others = ['.b.html.abcdefgh.tmp', '.a.html.tmp', 'a.html.abcdefgh.tmp', '.a.html.ABCDEFGH.tmp', '.models']
  for name in others:
    (tmp_path / name).write_text('of somebody else')
  files.write_atomically(tmp_path / 'a.html', 'whole')
  with temporary_files.temporary_folder(tmp_path, '.model.') as folder:
    assert [path.name for path in tmp_path.glob('.model.*')] == [folder.name]
  assert {path.name for path in tmp_path.iterdir()} == {'a.html', *others}
  assert (tmp_path / 'a.html').read_text() == 'whole'


def test_a_file_that_has_its_content_already(tmp_path):
  (tmp_path / 'a').write_text('same')
  for write in (files.write_if_changed, files.write_output_if_changed):
    (tmp_path / '.a.abcdefgh.tmp').write_text('half')
    temporary_files._FOUND.clear()
    write(tmp_path / 'a', 'same')
    assert [path.name for path in tmp_path.iterdir()] == ['a']


def test_a_finished_artefact_keeps_no_leftovers(tmp_path):
  plan = Plan('codebook', config.default('codebook'), ())
  for _ in range(2):
    with artefact_writer.writing(tmp_path, plan) as writer:
      if writer.finished:
        writer.reuse('codebook')
      else:
        writer.finish()
    names = {path.name for path in tmp_path.iterdir()}
    assert not [name for name in names if name.endswith('.tmp')]
    (tmp_path / '.manifest.pbtxt.abcdefgh.tmp').write_text('half')
    temporary_files._FOUND.clear()


def test_what_a_run_still_writes_is_left_alone(tmp_path):
  with run(tmp_path, 'living') as process:
    assert process.stdout.readline() == b'ready\n'
    files.write_atomically(tmp_path / 'a.html', 'whole')
    with temporary_files.temporary_folder(tmp_path, '.model.'):
      assert len(list(tmp_path.glob('.model.*'))) == 2
    assert len(list(tmp_path.glob('.a.html.*'))) == 1
    process.stdin.close()
    assert process.wait() == 0
  assert [path.name for path in tmp_path.iterdir()] == ['a.html']
  assert (tmp_path / 'a.html').read_text() == 'half'


def test_files_of_others_and_links_are_left_alone(tmp_path, monkeypatch):
  precious = tmp_path / 'precious'
  precious.write_text('precious')
  (tmp_path / '.a.abcdefgh.tmp').symlink_to(precious)
  (tmp_path / '.a.hgfedcba.tmp').write_text('of another user')
  monkeypatch.setattr(os, 'geteuid', lambda: os.getuid() + 1)
  files.write_atomically(tmp_path / 'a', 'whole')
  assert {path.name for path in tmp_path.iterdir()} == {
    'precious',
    'a',
    '.a.abcdefgh.tmp',
    '.a.hgfedcba.tmp',
  }
  assert precious.read_text() == 'precious'


def test_threads_that_write_one_file_at_once(tmp_path):
  path = tmp_path / 'a'
  errors = []

  def write(text):
    try:
      for _ in range(30):
        temporary_files._FOUND.clear()
        files.write_atomically(path, text)
    except Exception as error:
      errors.append(error)

  threads = [threading.Thread(target=write, args=(str(number) * 1000,)) for number in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert errors == []
  assert len(set(path.read_text())) == 1
  assert [left.name for left in tmp_path.iterdir()] == ['a']


def test_a_file_that_another_process_is_about_to_remove_is_not_used(tmp_path):
  path = tmp_path / 'a'
  path.touch()
  remover = temporary_files._locked(path)  # As one that takes it for a leftover holds it.
  assert temporary_files._locked(path) is None
  os.close(remover)
  mine = temporary_files._locked(path)
  assert mine is not None
  os.close(mine)


def test_a_file_system_without_locks(tmp_path, monkeypatch):
  (tmp_path / '.a.abcdefgh.tmp').write_text('perhaps still written')

  def refuse(*_):
    raise OSError(95, 'Operation not supported')

  monkeypatch.setattr(temporary_files.fcntl, 'flock', refuse)
  monkeypatch.setattr(temporary_files.fcntl, 'fcntl', refuse)
  files.write_atomically(tmp_path / 'a', 'whole')
  assert {path.name for path in tmp_path.iterdir()} == {'a', '.a.abcdefgh.tmp'}
