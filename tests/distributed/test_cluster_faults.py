"""Stages on a cluster of several processes where things go wrong: nothing is lost, nothing is there twice.

Whatever happens, the finished artefact has the bytes of an undisturbed run of one process.
"""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys

import pytest
from support import clusters, processes
from support.run_files import contents

from delf_d2r import config
from delf_d2r.data.artefacts import artefact_writer, records
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.errors import ImageError, UserError
from delf_d2r.stages import aggregate_features, detect_boxes, extract_features
from delf_d2r.stages.detect_boxes import BoxSource

pytestmark = pytest.mark.slow

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
DEADLY = '13.png'


@pytest.fixture
def disturbed(pool, tmp_path):
  """The cluster with a log of its work, slow enough for a fault to fall into it."""
  (tmp_path / 'log').mkdir()
  return clusters.Disturbed(pool, tmp_path / 'log', seconds=0.05)


@pytest.fixture
def extracted(settings, dataset):
  """Runs the stage into a folder."""
  return lambda output, **options: extract_features.run(settings, dataset, output, boxes=None, **options)


def test_stages_make_the_bytes_of_one_process(pool, settings, extracted, undisturbed, tmp_path):
  features = extracted(tmp_path / 'features', workers=pool)
  codebook = Artefact.open(undisturbed / 'codebook', 'codebook')
  aggregate_features.run(settings, features, codebook, tmp_path / 'descriptors', workers=pool)
  assert contents(tmp_path / 'features') == contents(undisturbed / 'features')
  assert contents(tmp_path / 'descriptors') == contents(undisturbed / 'descriptors')


def test_detection_makes_the_bytes_of_one_process(pool, dataset, monkeypatch, tmp_path):
  source = BoxSource(lambda: clusters.detecting, (), images_per_shard=8, photos_at_once=3, uses_network=True)
  monkeypatch.setattr(detect_boxes, 'build_source', lambda *arguments, **options: source)
  regions = config.default('regions')
  for name, workers in (('here', 1), ('there', pool)):
    made = detect_boxes.run(regions, dataset, tmp_path / name, workers=workers)
  assert made.counts['boxes'] == sum(number % 5 for number in range(32))
  assert contents(tmp_path / 'there') == contents(tmp_path / 'here')


def test_worker_that_is_killed(disturbed, extracted, undisturbed, tmp_path):
  with disturbed.after(9, lambda: os.kill(disturbed.workers()[-1], signal.SIGKILL)):
    extracted(tmp_path / 'features', workers=disturbed)
  assert len(disturbed.workers()) == 3
  assert contents(tmp_path / 'features') == contents(undisturbed / 'features')


def test_machine_that_is_lost(nodes, disturbed, extracted, undisturbed, tmp_path):
  node = next(node for node in nodes.worker_nodes)
  with disturbed.after(9, lambda: nodes.remove_node(node, allow_graceful=False)):
    extracted(tmp_path / 'features', workers=disturbed)
  nodes.add_node(**clusters.NODE)
  assert len(disturbed.workers()) == 2
  assert contents(tmp_path / 'features') == contents(undisturbed / 'features')


def test_photo_that_kills_every_worker(pool, extracted, undisturbed, tmp_path):
  (tmp_path / 'log').mkdir()
  poisoned = clusters.Disturbed(pool, tmp_path / 'log', deadly=DEADLY)
  made = extracted(tmp_path / 'features', workers=poisoned)
  expected = list(Artefact.open(undisturbed / 'features', 'features').records())
  assert list(made.records()) == [
    record for record in expected if records.decode_features(record).name != DEADLY
  ]
  [error] = artefact_writer.read_errors(made)
  assert error['name'] == DEADLY
  assert f'{DEADLY}: killed each of 3 workers that it was given to' in error['error']
  with pytest.raises(ImageError, match=rf'{DEADLY}: killed each of 3 workers .* because of --strict'):
    extracted(tmp_path / 'strict', workers=poisoned, strict=True)


@pytest.fixture
def small_disk(tmp_path):
  """A folder on a disk of 256 KiB, and what makes it larger."""
  place = tmp_path / 'disk'
  place.mkdir()

  def mount(*options):
    return subprocess.run(
      ['mount', '-t', 'tmpfs', '-o', *options, 'tmpfs', place], capture_output=True, check=False
    )

  if mount('size=256k').returncode:
    pytest.skip('mounting a small file system needs rights that this user does not have')
  yield place, lambda: mount('remount,size=64m').check_returncode()
  subprocess.run(['umount', place], check=True)


def test_disk_that_is_full(small_disk, pool, extracted, undisturbed):
  disk, enlarge = small_disk
  with pytest.raises(UserError, match=r'No space left on device.*What was finished before is kept'):
    extracted(disk / 'features', workers=pool)
  finished = set((disk / 'features').glob('*.tfrecord'))
  assert finished
  times = {file: file.stat().st_mtime_ns for file in finished}
  enlarge()
  extracted(disk / 'features', workers=pool)
  assert {file: file.stat().st_mtime_ns for file in finished} == times
  assert contents(disk / 'features') == contents(undisturbed / 'features')


def test_command_that_is_killed(settings, dataset, undisturbed, tmp_path):
  """Its cluster ends with it; the next run, without one, goes on to the same bytes."""
  pytest.importorskip('ray', reason='Ray, the extra `cluster`, is not installed')
  (tmp_path / 'config.pbtxt').write_text(f'extraction {{ {settings.extraction} }}')
  command = [
    sys.executable,
    str(REPOSITORY / 'tools' / 'extract_features.py'),
    f'--config_path={tmp_path / "config.pbtxt"}',
    f'--images={dataset.images.root}',
    f'--output={tmp_path / "features"}',
  ]
  environment = {name: value for name, value in os.environ.items() if not name.startswith('RAY_')}
  process = subprocess.Popen(
    [*command, '--cluster=local', '--workers=1'], env=environment, stderr=subprocess.DEVNULL
  )
  with contextlib.ExitStack() as stack:
    stack.callback(process.wait)
    stack.callback(process.kill)
    processes.wait_until(lambda: any((tmp_path / 'features').glob('*.tfrecord')))
    # Two helpers of Ray's notice after a minute only that the rest is gone.
    servers = {
      server: name
      for server, name in processes.descendants(process.pid).items()
      if not name.endswith('Agent')
    }
  assert {'gcs_server', 'raylet', 'ray::Worker'} <= set(servers.values())
  assert not (tmp_path / 'features' / 'manifest.pbtxt').exists()
  processes.wait_until(lambda: not any(map(processes.is_running, servers)))
  subprocess.run([*command, '--workers=1'], check=True, capture_output=True)
  assert contents(tmp_path / 'features') == contents(undisturbed / 'features')
