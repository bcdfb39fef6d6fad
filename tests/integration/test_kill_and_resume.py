"""SIGKILL at any moment: the next run ends with the bytes of an undisturbed run."""

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


@pytest.mark.parametrize('moment', MOMENTS)
def test_killed_run_resumes_to_the_same_bytes(benchmark, config_path, finished_dir, tmp_path, moment):
  out = tmp_path / 'run'
  process = start(benchmark, config_path, out, workers=2 if 'features' in moment else 1)
  assert wait_until(lambda: MOMENTS[moment](out), process)
  os.kill(process.pid, signal.SIGKILL)
  process.wait()
  assert not (out / 'metrics' / 'manifest.pbtxt').exists()
  shards = {file: file.stat().st_mtime_ns for file in (out / 'features').glob('features-*.tfrecord')}

  again = start(benchmark, config_path, out, workers=1)
  assert again.wait(timeout=120) == 0
  assert contents(out) == contents(finished_dir)
  # Finished artefacts are kept.
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
