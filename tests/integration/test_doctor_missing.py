"""d2r doctor on runs with missing manifests, artefacts, config, report or shards of a split index."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from google.protobuf import text_format

from delf_d2r.data.artefacts.artefact import MANIFEST, read_manifest
from delf_d2r.data.artefacts.artefact_writer import PARTIAL_MANIFEST
from delf_d2r.data.photos import distractor_list
from delf_d2r.doctor import inspect
from delf_d2r.doctor.findings import Finding, Severity
from delf_d2r.experiments import distractors, experiment
from delf_d2r.stages import split_index

pytestmark = pytest.mark.slow


@pytest.fixture
def run_dir(finished_dir, tmp_path) -> pathlib.Path:
  """A copy of a finished run, to remove something from."""
  shutil.copytree(finished_dir, tmp_path / 'run')
  return tmp_path / 'run'


def found(path: pathlib.Path, least: Severity = Severity.NOTE) -> list[Finding]:
  return [f for f in inspect.diagnose(path).findings if f.severity.value >= least.value]


def told(path: pathlib.Path, least: Severity = Severity.NOTE) -> list[tuple[Severity, str, str]]:
  """Returns severity, place below `path` and problem of each finding."""
  return [(f.severity, os.path.relpath(f.place, path), f.problem) for f in found(path, least)]


@pytest.mark.parametrize('kind', ['boxes', 'features', 'codebook', 'index', 'rankings', 'metrics'])
def test_artefact_without_its_manifest(run_dir, kind):
  (run_dir / kind / MANIFEST).unlink()
  for path in (run_dir, run_dir / kind):
    (finding,) = found(path, Severity.WARNING)
    assert (finding.severity, finding.place) == (Severity.ERROR, str(run_dir / kind))
    assert MANIFEST in finding.problem


CAME_OF_IT = {
  'boxes': (Severity.WARNING, 'features'),
  'features': (Severity.WARNING, 'codebook, descriptors'),
  'codebook': (Severity.WARNING, 'descriptors, index'),
  'descriptors': (Severity.WARNING, 'index'),
  'query_features': (Severity.WARNING, 'rankings'),
  'index': (Severity.ERROR, 'rankings'),
  'rankings': (Severity.WARNING, 'metrics'),
}


@pytest.mark.parametrize('empties', [False, True])
@pytest.mark.parametrize('kind', CAME_OF_IT)
def test_what_artefacts_of_a_run_were_made_from_is_gone(run_dir, kind, empties):
  severity, users = CAME_OF_IT[kind]
  shutil.rmtree(run_dir / kind)
  if empties:
    (run_dir / kind).mkdir()
  assert told(run_dir) == [(severity, kind, f'missing, but {users} in this run was made from it')]


def test_places_are_called_as_the_run_is(run_dir, monkeypatch):
  shutil.rmtree(run_dir / 'features')
  (run_dir / 'report' / 'index.html').unlink()
  monkeypatch.chdir(run_dir.parent)
  assert {f.place for f in found(pathlib.Path('run'))} == {'run/features', 'run/report/index.html'}


def test_nothing_is_gone_from_a_place_that_nobody_knows(run_dir):
  shutil.rmtree(run_dir / 'boxes')
  manifest = read_manifest(run_dir / 'features' / MANIFEST)
  for item in manifest.inputs:
    # Relative to the folder that the command ran in, as in old manifests.
    item.path = item.path.replace('../', 'outputs/run/')
  (run_dir / 'features' / MANIFEST).write_text(text_format.MessageToString(manifest, as_utf8=True))
  assert [(severity, place) for severity, place, _ in told(run_dir)] == [(Severity.NOTE, 'features')]


def test_results_of_a_finished_run_are_gone(run_dir):
  for kind in ('index', 'rankings', 'metrics'):
    shutil.rmtree(run_dir / kind)
  problem = 'missing, but config.pbtxt says that the run was finished'
  assert told(run_dir, Severity.WARNING) == [
    (Severity.ERROR, 'index', problem),
    (Severity.WARNING, 'rankings', problem),
    (Severity.WARNING, 'metrics', problem),
  ]
  for path in run_dir.iterdir():
    if path.is_dir() and path.name != 'report':
      shutil.rmtree(path)
  ((severity, place, problem),) = told(run_dir)
  assert (severity, place) == (Severity.ERROR, '.')
  assert 'has no artefacts' in problem


def test_an_artefact_that_was_copied_alone_misses_nothing(finished_dir, tmp_path):
  shutil.copytree(finished_dir / 'index', tmp_path / 'index')
  assert {finding.severity for finding in found(tmp_path)} <= {Severity.NOTE}


def test_a_run_that_was_moved_misses_nothing(run_dir, tmp_path):
  run_dir.rename(tmp_path / 'elsewhere')
  assert found(tmp_path / 'elsewhere') == []


def test_folder_behind_a_link(run_dir, tmp_path):
  shutil.move(run_dir / 'features', tmp_path / 'disk')
  (run_dir / 'features').symlink_to(tmp_path / 'disk')
  diagnosis = inspect.diagnose(run_dir)
  assert diagnosis.findings == ()
  assert run_dir / 'features' in [path for path, _ in diagnosis.inspected]
  shard = next((tmp_path / 'disk').glob('*.tfrecord'))
  shard.write_bytes(shard.read_bytes()[:-1])
  assert [place for _, place, _ in told(run_dir)] == [f'features/{shard.name}']


def test_edited_config(run_dir):
  config = run_dir / 'config.pbtxt'
  config.write_text(config.read_text().replace('num_words: 256', 'num_words: 999'))
  ((severity, place, problem),) = told(run_dir)
  assert (severity, place) == (Severity.WARNING, 'config.pbtxt')
  assert problem.endswith('1 (codebook.num_words is 999, in codebook 256)')
  config.write_text('aggregation { nonsense }')
  ((severity, place, problem),) = told(run_dir)
  assert (severity, place) == (Severity.ERROR, 'config.pbtxt')
  assert problem.startswith('cannot be used: 1:')
  config.unlink()
  assert [(severity, place) for severity, place, _ in told(run_dir)] == [(Severity.NOTE, 'config.pbtxt')]


def test_a_config_of_the_users_own_is_none_of_a_run(finished_dir, tmp_path):
  shutil.copytree(finished_dir / 'boxes', tmp_path / 'boxes')
  (tmp_path / 'config.pbtxt').write_text('regions { source: NONE }')
  assert found(tmp_path) == []


@pytest.mark.parametrize('damage', [pathlib.Path.unlink, lambda page: page.write_text('')])
def test_missing_report(run_dir, damage):
  damage(run_dir / 'report' / 'index.html')
  assert told(run_dir) == [(Severity.WARNING, 'report/index.html', 'missing or empty')]


@pytest.fixture
def split_dir(finished, tmp_path) -> pathlib.Path:
  split_index.run(finished.artefacts['index'], tmp_path / 'split', shards=3)
  return tmp_path / 'split'


def test_missing_shards_of_a_split(split_dir, tmp_path):
  shutil.move(split_dir / 'shard-00001-of-00003', tmp_path / 'machine')
  assert told(split_dir, Severity.WARNING) == [
    (Severity.ERROR, '.', '1 of the 4 parts of a split index are missing: shard-00001-of-00003')
  ]
  # Parts may be moved to machines of their own.
  shutil.move(split_dir / 'front', tmp_path / 'front')
  problem = '2 of the 4 parts of a split index are missing: front, shard-00001-of-00003'
  assert (Severity.NOTE, '.', problem) in told(split_dir)
  for alone in ('machine', 'front'):
    assert 'of a split index' not in str(found(tmp_path / alone))


def test_distractors_are_looked_for_in_their_own_folder(load, benchmark, finished, run_dir, tmp_path):
  folder = tmp_path / 'beside' / 'few'
  (folder / 'deep').mkdir(parents=True)
  for number, photo in enumerate(sorted(benchmark.images_dir.iterdir())[:4]):
    shutil.copy(photo, folder / 'deep' if number else folder)
  unrelated = folder.with_name('unrelated')
  shutil.copytree(folder, unrelated)
  distractors.run(
    load(),
    finished,
    distractor_list.load(folder),
    run_dir,
    ground_truth=benchmark.ground_truth_path,
    options=experiment.Options(workers=1),
  )
  assert found(run_dir) == []
  shutil.copy(next(unrelated.glob('*.jpg')), folder / 'new.jpg')
  assert {(f.severity, os.path.basename(f.place)) for f in found(run_dir)} == {
    (Severity.NOTE, 'boxes'),
    (Severity.NOTE, 'features'),
  }
  assert all('few/new.jpg' in problem for _, _, problem in told(run_dir))
  (folder / 'new.jpg').unlink()
  next(folder.glob('*.jpg')).unlink()
  assert {f.severity for f in found(run_dir)} == {Severity.ERROR}
  assert all('1 of its photos are missing' in problem for _, _, problem in told(run_dir))


def test_findings_say_place_and_remedy_once(run_dir):
  for kind in ('boxes', 'features'):
    shard = next((run_dir / kind).glob('*.tfrecord'))
    shard.write_bytes(shard.read_bytes()[:-1])
  (run_dir / 'codebook' / MANIFEST).write_text('kind: "code')
  (run_dir / 'metrics' / 'metrics.json').unlink()
  os.replace(run_dir / 'index' / MANIFEST, run_dir / 'index' / PARTIAL_MANIFEST)
  findings = found(run_dir)
  assert len(findings) >= 5
  for finding in findings:
    assert str(run_dir) not in finding.problem
    assert 'elete' not in finding.problem
    assert finding.remedy.count('elete') <= 1
  assert 'unfinished index: the work was stopped' in [finding.problem for finding in findings]


def doctor(*arguments: str) -> subprocess.CompletedProcess:
  binary = str(pathlib.Path(__file__).parents[2] / 'tools' / 'doctor.py')
  return subprocess.run([sys.executable, binary, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(('arguments', 'word'), [([], 'no directory given'), (['--fromat=json'], 'fromat')])
def test_a_wrong_command_line_has_an_exit_code_of_its_own(arguments, word):
  process = doctor(*arguments)
  assert (process.returncode, process.stdout) == (64, '')
  assert process.stderr.startswith('error: ')
  assert word in process.stderr


def test_a_failure_of_the_doctor_has_an_exit_code_of_its_own(tmp_path):
  code = (
    'from delf_d2r.doctor import inspect; from delf_d2r.command_line import main; import sys;'
    'inspect.diagnose = lambda path: 1 / 0; sys.argv = ["d2r", "doctor", "x"]; main()'
  )
  process = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
  assert process.returncode == 70
  assert 'ZeroDivisionError' in process.stderr
