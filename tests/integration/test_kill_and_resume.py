"""SIGKILL at many moments: the run that goes on ends with the bytes of an undisturbed run."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from support import processes
from support.run_files import contents

pytestmark = pytest.mark.slow

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def start(benchmark, config_path, output, workers):
  command = [
    sys.executable,
    str(REPOSITORY / 'tools' / 'run_experiment.py'),
    f'--config_path={config_path}',
    f'--images={benchmark.images_dir}',
    f'--query_images={benchmark.queries_dir}',
    f'--ground_truth={benchmark.ground_truth_path}',
    f'--output={output}',
    f'--workers={workers}',
  ]
  return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_until(condition, process, seconds=120):
  """Waits for a moment in the run; returns False if the run ended before."""
  deadline = time.monotonic() + seconds
  while not condition():
    if process.poll() is not None:
      return False
    assert time.monotonic() < deadline
    time.sleep(0.002)
  return True


MOMENTS = {
  'first shard of features': lambda out: any((out / 'features').glob('features-*.tfrecord')),
  'third shard of features': lambda out: len([*(out / 'features').glob('features-*.tfrecord')]) >= 3,
  'codebook begun': lambda out: (out / 'codebook' / 'manifest.partial.pbtxt').exists(),
  'descriptors begun': lambda out: any((out / 'descriptors').glob('.*')),
  'index begun': lambda out: (out / 'index' / 'parts').exists(),
  'rankings begun': lambda out: (out / 'rankings').exists(),
}


def test_killed_run_resumes_to_the_same_bytes(benchmark, config_path, finished_dir, tmp_path):
  """Each process goes on from where the one before was killed, and is killed at the next moment."""
  out = tmp_path / 'run'
  shards: dict[pathlib.Path, int] = {}
  for moment, has_come in MOMENTS.items():
    assert not has_come(out), f'{moment}: come before the process that is killed there'
    process = start(benchmark, config_path, out, workers=2 if 'features' in moment else 1)
    assert wait_until(lambda has_come=has_come: has_come(out), process), moment
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / 'metrics' / 'manifest.pbtxt').exists()
    assert_kept(shards)
    shards = {file: file.stat().st_mtime_ns for file in (out / 'features').glob('features-*.tfrecord')}
    # Up to here it is the undisturbed run.
    finished = {file.parent.name for file in out.glob('*/manifest.pbtxt')}
    ours, theirs = contents(out), contents(finished_dir)
    for name, data in theirs.items():
      if name.split('/')[0] in finished:
        assert ours[name] == data, (moment, name)

  last = start(benchmark, config_path, out, workers=1)
  assert last.wait(timeout=120) == 0
  assert contents(out) == contents(finished_dir)
  assert_kept(shards)


def assert_kept(shards):
  """Finished shards are not written again."""
  assert all(file.stat().st_mtime_ns == time for file, time in shards.items())


def test_workers_end_with_their_parent(benchmark, config_path, tmp_path):
  process = start(benchmark, config_path, tmp_path / 'run', workers=2)
  assert wait_until(lambda: any((tmp_path / 'run' / 'features').glob('.*.tmp')), process)
  time.sleep(1)
  children = processes.descendants(process.pid)
  assert children
  os.kill(process.pid, signal.SIGKILL)
  process.wait()
  processes.wait_until(lambda: not any(map(processes.is_running, children)), seconds=20)
