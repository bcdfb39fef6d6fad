"""Kills, full and read-only disks, other users, cut shards, jumping clocks, two runs at once.

After each: nothing wrong stands or is served, and the rerun ends with the bytes of an undisturbed run.
fault_injection.py kills more often.
"""

import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import textwrap

import pytest
from support.faulty_runs import FaultInjector

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def injector(tmp_path_factory):
  return FaultInjector(tmp_path_factory.mktemp('faults') / 'injector')


@pytest.fixture
def out(tmp_path):
  return tmp_path / 'run'


def can(*command):
  """Returns whether the system permits a command."""
  return (
    shutil.which(command[0]) and subprocess.run(command, capture_output=True, check=False).returncode == 0
  )


needs_mounts = pytest.mark.skipif(
  not can('unshare', '-m', 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt'), reason='mounting is not permitted'
)


def test_kills_and_a_cut_shard(injector, out):
  # The manifest of boxes, its shard, and half of the features: those of a photo are a shard and its account.
  assert injector.kill(out, files=10, delay=0)
  cut = injector.cut_unfinished(out)
  assert cut.parent.name == 'features'
  assert injector.random_kills(out, 2, seed=5)
  injector.check_resumes(out)


def test_cut_shard_of_a_finished_artefact_is_refused_until_it_is_deleted(injector, out):
  shutil.copytree(injector.reference, out)
  shard = out / 'features' / 'features-00002-of-00008.tfrecord'
  os.truncate(shard, shard.stat().st_size - 1)
  message = injector.fails(out)
  assert str(shard) in message
  assert f'Delete {out / "features"} and run its stage again' in message
  shutil.rmtree(out / 'features')
  injector.check_resumes(out)


@needs_mounts
def test_full_disk(injector, out, tmp_path):
  """A small file system in its own mount namespace, which is enlarged later."""
  out.mkdir()
  command = ' '.join(injector.command(out))
  script = f"""
    mount -t tmpfs -o size=500k tmpfs {out} || exit 9
    {command} 2>{tmp_path}/stderr
    test $? = 1 || exit 8
    mount -o remount,size=64m {out}
    {command} 2>&1 || exit 7
    cp -a {out}/. {tmp_path}/kept
  """
  process = subprocess.run(['unshare', '-m', 'sh', '-c', script], capture_output=True, text=True, check=False)
  assert process.returncode == 0, process.stdout + process.stderr
  message = (tmp_path / 'stderr').read_text()
  assert 'No space left on device' in message
  assert 'run the same command again' in message
  assert 'Traceback' not in message
  injector.check_same(tmp_path / 'kept')


def read_only(out):
  """Returns the command prefix with which a command sees the directory in that state."""
  script = f'mount --bind {out} {out} && mount -o remount,ro,bind {out} && exec "$@"'
  return ['unshare', '-m', 'sh', '-c', script, 'sh']


@needs_mounts
def test_finished_run_is_confirmed_where_nothing_can_be_written(injector, out):
  shutil.copytree(injector.reference, out)
  command = [*read_only(out), *injector.command(out)]
  process = subprocess.run(command, capture_output=True, text=True, check=False)
  assert process.returncode == 0, process.stderr
  assert f'report: {out}/report/index.html' in process.stdout


@needs_mounts
def test_read_only_output(injector, out):
  shutil.copytree(injector.reference, out)
  shutil.rmtree(out / 'rankings')
  message = injector.fails(out, before=read_only(out))
  assert 'Read-only file system' in message
  injector.check_resumes(out)


@pytest.mark.skipif(
  not can('setpriv', '--reuid=65534', '--clear-groups', sys.executable, '-c', 'import delf_d2r'),
  reason='cannot become another user',
)
def test_permission_denied(injector, out):
  shutil.copytree(injector.reference, out)
  shutil.rmtree(out / 'rankings')
  for folder in out.parents:
    if folder.is_relative_to(tempfile.gettempdir()) and folder != pathlib.Path(tempfile.gettempdir()):
      folder.chmod(0o755)
  message = injector.fails(out, before=['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'])
  assert 'Permission denied' in message
  injector.check_nothing_wrong_is_served(out)


def test_clock_that_jumps(injector, out, tmp_path, monkeypatch):
  """The clock jumps by years at every call, and files have arbitrary times."""
  (tmp_path / 'site').mkdir()
  (tmp_path / 'site' / 'sitecustomize.py').write_text(
    textwrap.dedent("""
      import random, time
      clock, years = time.time, 365 * 86400
      time.time = lambda: clock() + random.uniform(-20, 20) * years
    """)
  )
  monkeypatch.setenv('PYTHONPATH', str(tmp_path / 'site'))
  assert injector.kill(out, files=injector.num_files // 2, delay=0)
  rng = random.Random(1)
  for file in sorted(out.rglob('*')):
    os.utime(file, (rng.uniform(0, 4e9),) * 2)
  injector.check_resumes(out)


def test_two_runs_on_one_directory(injector, out):
  processes = [
    subprocess.Popen(injector.command(out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    for _ in range(2)
  ]
  messages = [process.communicate(timeout=300)[1] for process in processes]
  codes = [process.returncode for process in processes]
  assert 0 in codes
  for code, message in zip(codes, messages, strict=True):
    assert code == 0 or 'another process is writing this artefact. Wait for it' in message
    assert 'Traceback' not in message
  injector.check_same(out)
