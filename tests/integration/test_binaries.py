"""The commands from a shell: one after the other, and with wrong flags and inputs."""

import itertools
import json
import os
import pathlib
import pickle
import shlex
import shutil
import subprocess
import sys
from concurrent import futures

import pytest
from PIL import Image
from support import commands

from delf_d2r import command_line

pytestmark = pytest.mark.slow

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def d2r(command, *arguments, check=True, **flags):
  """Runs `python tools/<command>.py`; returns the finished process."""
  arguments = [*arguments, *(f'--{name}={value}' for name, value in flags.items())]
  done = subprocess.run(
    [sys.executable, str(REPOSITORY / 'tools' / f'{command}.py'), *arguments],
    capture_output=True,
    text=True,
    check=False,
    timeout=300,
  )
  if check:
    assert done.returncode == 0, done.stderr
  return done


@pytest.fixture(scope='module')
def forked(tmp_path_factory):
  """Runs commands as `d2r` does, each in a process that is a fork of one that has all imports already.

  That binaries import what they need and end with their exit code is tested with processes of their own: the
  helps, one stage after the other, and the full disk.
  """
  folder = tmp_path_factory.mktemp('folder')
  with commands.Commands(commands.WITHOUT_NETWORKS) as shell:

    def run(command, *arguments, check=True, **flags):
      done = shell.run(
        [command, *arguments, *(f'--{name}={value}' for name, value in flags.items())], folder=folder
      )
      assert done.returncode == 0 or not check, done.stderr
      return done

    yield run


@pytest.fixture
def refused(forked):
  """Returns the standard error of a command that must fail with one message and no traceback."""

  def refused(command, *arguments, **flags):
    done = forked(command, *arguments, check=False, **flags)
    assert done.returncode == 1, (done.returncode, done.stderr)
    assert 'Traceback' not in done.stderr
    assert done.stderr.splitlines()[-1].startswith('error: ') or 'error: ' in done.stderr
    return done.stderr

  return refused


@pytest.fixture
def photos(tmp_path, benchmark):
  """A small folder of photos."""
  folder = tmp_path / 'photos'
  folder.mkdir()
  for file in sorted(benchmark.images_dir.iterdir())[:6]:
    shutil.copy(file, folder)
  return folder


def test_every_command_has_a_binary_and_help():
  assert {f'{command}.py' for command in command_line.COMMANDS} == {
    file.name for file in (REPOSITORY / 'tools').glob('*.py') if file.name != '__init__.py'
  }
  with futures.ThreadPoolExecutor() as pool:
    texts = pool.map(lambda command: d2r(command, '--help').stdout, command_line.COMMANDS)
  for command, text in zip(command_line.COMMANDS, texts, strict=True):
    assert f'd2r {command} ' in text
    lines = text.split('Flags of')[1].splitlines()
    described = [below for line, below in itertools.pairwise(lines) if line.startswith('  --')]
    assert described, command
    # Every flag has a description.
    assert all(line.startswith('      ') for line in described), command


def test_binaries_are_small():
  for file in (REPOSITORY / 'tools').glob('*.py'):
    assert len(file.read_text(encoding='utf-8').splitlines()) <= 120, file


def test_one_stage_after_the_other(tmp_path, benchmark, config_path):
  data = {'images': benchmark.images_dir, 'ground_truth': benchmark.ground_truth_path}
  data['query_images'] = benchmark.queries_dir
  out = tmp_path / 'out'
  d2r('detect_boxes', config_path=config_path, output=out / 'boxes', **data)
  d2r('extract_features', config_path=config_path, output=out / 'features', boxes=out / 'boxes', **data)
  d2r('extract_features', '--queries', config_path=config_path, output=out / 'query_features', **data)
  d2r('train_codebook', config_path=config_path, features=out / 'features', output=out / 'codebook')
  made = {'features': out / 'features', 'codebook': out / 'codebook'}
  d2r('aggregate_features', config_path=config_path, output=out / 'descriptors', **made)
  made = {'descriptors': out / 'descriptors', 'codebook': out / 'codebook'}
  d2r('build_index', config_path=config_path, output=out / 'index', **made)
  made = {'index': out / 'index', 'query_features': out / 'query_features'}
  d2r('search_index', output=out / 'rankings', **made)
  made = {'rankings': out / 'rankings', 'ground_truth': benchmark.ground_truth_path}
  scores = d2r('evaluate_retrieval', output=out / 'metrics', **made).stdout
  assert scores.startswith('hard\n  mAP=')
  page = d2r('make_report', experiment=out, output=out / 'report', **data).stdout.strip()
  assert pathlib.Path(page).read_text(encoding='utf-8').count('<article') + 1 > 0

  whole = d2r('run_experiment', config_path=config_path, output=tmp_path / 'whole', **data).stdout
  assert 'mAP medium' in whole
  assert (tmp_path / 'whole/metrics/metrics.txt').read_text() == (out / 'metrics/metrics.txt').read_text()


def test_a_folder_of_ones_own_without_ground_truth(tmp_path, photos, config_path, forked):
  (photos / 'sub dir').mkdir()
  shutil.copy(next(photos.glob('*.jpg')), photos / 'sub dir' / 'Église Saint-Étienne.jpg')
  out = tmp_path / 'my run'
  printed = forked('run_experiment', config_path=config_path, images=photos, output=out).stdout
  assert 'index images: 7' in printed
  # The command can be copied from the output.
  last = printed.splitlines()[-1].removeprefix('search: ')
  assert shlex.split(last) == ['d2r', 'search_index', f'--index={out}', '--query=PHOTO']
  assert (out / 'report' / 'index.html').is_file()
  assert not (out / 'metrics').exists()

  query = photos / 'sub dir' / 'Église Saint-Étienne.jpg'
  text = forked('search_index', index=out, query=query, top_k=3).stdout
  assert 'sub dir/Église Saint-Étienne.jpg' in text
  answer = json.loads(d2r('search_index', index=out, query=query, format='json', box='0,0,1,1').stdout)
  assert len(answer['results']) == 7
  assert {result['name'] for result in answer['results'][:2]} >= {'sub dir/Église Saint-Étienne.jpg'}
  page = tmp_path / 'answer.html'
  forked('search_index', index=out, query=query, html=page, box='0.1,0.1,0.9,0.9')
  assert 'Église Saint-Étienne.jpg' in page.read_text(encoding='utf-8')


def test_flags_are_printed_to_be_copied(tmp_path):
  script = f"""
import runpy
from delf_d2r.data.scenes import mini_benchmark
mini_benchmark.generate = lambda root, **_: mini_benchmark.MiniBenchmark(
  *(root / name for name in ('index', 'queries', 'truth.json', 'boxes.csv'))
)
runpy.run_path({str(REPOSITORY / 'tools/make_mini_benchmark.py')!r}, run_name='__main__')
"""
  root = tmp_path / "one's own"
  command = [sys.executable, '-c', script, f'--output={root}']
  done = subprocess.run(command, capture_output=True, text=True, check=True)
  places = {
    'images': 'index',
    'query_images': 'queries',
    'ground_truth': 'truth.json',
    'boxes_file': 'boxes.csv',
  }
  assert shlex.split(done.stdout) == [f'--{flag}={root / name}' for flag, name in places.items()]


def test_photos_without_features_and_unreadable_photos(tmp_path, photos, config_path, forked, refused):
  Image.new('RGB', (64, 64), 'white').save(photos / 'blank.png')
  (photos / 'empty.jpg').write_bytes(b'')
  (photos / 'text.jpg').write_text('this is no photo')
  whole = next(photos.glob('scene*.jpg')).read_bytes()
  (photos / 'truncated.jpg').write_bytes(whole[: len(whole) // 3])
  out = tmp_path / 'out'
  done = forked('run_experiment', config_path=config_path, images=photos, output=out)
  errors = [json.loads(line) for line in (out / 'index' / 'errors.jsonl').read_text().splitlines()]
  assert {error['name'] for error in errors} == {'empty.jpg', 'text.jpg', 'truncated.jpg'}
  assert '3 could not be read' in done.stderr
  assert 'index images: 7' in done.stdout
  answer = forked('search_index', index=out, query=photos / 'blank.png', top_k=0).stdout
  assert '0 features' in answer
  assert len(answer.strip().splitlines()) == 2 + 7

  stopped = refused(
    'run_experiment', '--strict', config_path=config_path, images=photos, output=tmp_path / 'strict'
  )
  assert 'empty.jpg' in stopped
  assert not (tmp_path / 'strict' / 'features' / 'manifest.pbtxt').exists()


def test_revisited_ground_truth_on_a_folder(tmp_path, photos, config_path, forked):
  names = sorted(file.stem for file in photos.iterdir())
  queries = [{'bbx': [10, 20, 300, 300], 'easy': [1], 'hard': [2], 'junk': [0]}]
  truth = tmp_path / 'gnd_small.pkl'
  truth.write_bytes(pickle.dumps({'gnd': queries, 'imlist': names[1:], 'qimlist': names[:1]}, protocol=2))
  out = tmp_path / 'out'
  printed = forked(
    'run_experiment', config_path=config_path, images=photos, ground_truth=truth, output=out
  ).stdout
  assert 'index images: 5' in printed
  assert 'mAP hard' in printed


def test_bad_folders(tmp_path, config_path, refused):
  arguments = {'config_path': config_path, 'output': tmp_path / 'out'}
  assert 'no such folder' in refused('run_experiment', images=tmp_path / 'absent', **arguments)
  (tmp_path / 'empty').mkdir()
  assert 'empty' in refused('run_experiment', images=tmp_path / 'empty', **arguments)
  (tmp_path / 'letters').mkdir()
  (tmp_path / 'letters' / 'a.txt').write_text('a')
  assert 'no photos' in refused('run_experiment', images=tmp_path / 'letters', **arguments)
  assert not (tmp_path / 'out').exists()


def test_bad_configs(tmp_path, photos, refused):
  arguments = {'images': photos, 'output': tmp_path / 'out'}
  cases = {
    'codebook { num_wrds: 3 }': ('bad.pbtxt:1', 'num_words'),
    'num_words: 100': ('another stage', 'CodebookConfig'),
    'aggregation { regions: REGIONAL_SEARCH }': ('bad.pbtxt:1', 'regions.source'),
    'extraction {\n  max_features: 0\n}': ('bad.pbtxt:2', 'at least 1'),
  }
  for text, expected in cases.items():
    (tmp_path / 'bad.pbtxt').write_text(text)
    message = refused('run_experiment', config_path=tmp_path / 'bad.pbtxt', **arguments)
    for part in expected:
      assert part in message
  assert not (tmp_path / 'out').exists()


def test_codebook_larger_than_the_data(tmp_path, photos, config_path, refused):
  message = refused(
    'run_experiment',
    config_path=config_path,
    images=photos,
    output=tmp_path / 'out',
    override='codebook.num_words: 65536',
  )
  assert 'num_words is 65536' in message
  assert 'Lower codebook.num_words' in message
  assert not (tmp_path / 'out' / 'codebook').exists()


def test_ground_truth_that_names_absent_photos(tmp_path, photos, config_path, refused):
  truth = tmp_path / 'truth.json'
  truth.write_text(
    json.dumps(
      {'version': 1, 'queries': [{'image': sorted(photos.iterdir())[0].name, 'easy': ['nowhere.jpg']}]}
    )
  )
  message = refused(
    'run_experiment', config_path=config_path, images=photos, ground_truth=truth, output=tmp_path / 'out'
  )
  assert 'nowhere.jpg' in message
  assert not (tmp_path / 'out').exists()


def test_bad_searches(tmp_path, finished_dir, benchmark, refused):
  photo = next(benchmark.images_dir.glob('*.jpg'))
  assert 'no finished artefact' in refused('search_index', index=tmp_path, query=photo)
  assert 'no such file' in refused('search_index', index=finished_dir, query=tmp_path / 'absent.jpg')
  assert 'shares of height and width' in refused(
    'search_index', index=finished_dir, query=photo, box='0,0,640,480'
  )
  assert 'four numbers' in refused('search_index', index=finished_dir, query=photo, box='0,0,1')
  assert 'either --query' in refused('search_index', index=finished_dir)


def test_boxes_files(tmp_path, photos, config_path, refused):
  name = sorted(photos.iterdir())[0].name
  arguments = {
    'config_path': config_path,
    'images': photos,
    'output': tmp_path / 'boxes',
    'override': 'regions { source: FILE uniform { } }',
  }
  cases = {
    'image,ymin,xmin,ymax\n': 'lacks xmax',
    f'image,ymin,xmin,ymax,xmax\n{name},0,0,1,1.5\n': 'boxes.csv:2',
    f'image,ymin,xmin,ymax,xmax\n{name},0,0,high,1\n': 'must be numbers',
    'image,ymin,xmin,ymax,xmax\nother.jpg,0,0,1,1\n': 'none of its 1 images',
  }
  config = tmp_path / 'regions.pbtxt'
  config.write_text('source: FILE')
  arguments = {'config_path': config, 'images': photos, 'output': tmp_path / 'boxes'}
  assert 'there is no file' in refused('detect_boxes', **arguments)
  for text, expected in cases.items():
    (tmp_path / 'boxes.csv').write_text(text)
    assert expected in refused('detect_boxes', boxes_file=tmp_path / 'boxes.csv', **arguments)
  assert not (tmp_path / 'boxes').exists()


@pytest.mark.skipif(not pathlib.Path('/dev/full').exists(), reason='no /dev/full on this system')
def test_output_that_cannot_be_written(tmp_path, photos, config_path, refused):
  file = tmp_path / 'file'
  file.write_text('not a directory')
  message = refused('run_experiment', config_path=config_path, images=photos, output=file / 'out')
  assert 'cannot write' in message
  occupied = tmp_path / 'occupied'
  occupied.mkdir()
  (occupied / 'thesis.tex').write_text('precious')
  message = refused('detect_boxes', config_path=config_path, images=photos, output=occupied)
  assert 'nothing was touched' in message
  assert [file.name for file in occupied.iterdir()] == ['thesis.tex']


def test_full_disk(tmp_path, photos, config_path):
  # A limit on the size of files simulates a full disk: the kernel refuses the write.
  code = (
    'import resource, signal, sys, runpy;'
    'signal.signal(signal.SIGXFSZ, signal.SIG_IGN);'
    'resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000));'
    'sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name="__main__")'
  )
  arguments = [f'--config_path={config_path}', f'--images={photos}', f'--output={tmp_path / "features"}']
  binary = str(REPOSITORY / 'tools' / 'extract_features.py')
  command = [sys.executable, '-c', code, binary, *arguments, '--workers=1']
  done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
  assert done.returncode == 1
  assert 'cannot write' in done.stderr
  assert 'Traceback' not in done.stderr
  left = [file.name for file in (tmp_path / 'features').rglob('*') if file.is_file()]
  assert not [name for name in left if name.endswith('.tfrecord') or name == 'manifest.pbtxt']
  d2r('extract_features', config_path=config_path, images=photos, output=tmp_path / 'features')


def test_installed_command_lists_all(tmp_path):
  done = subprocess.run(
    [sys.executable, '-c', 'from delf_d2r.command_line import main; main()'],
    capture_output=True,
    text=True,
    check=True,
    cwd=tmp_path,
    env={**os.environ, 'PYTHONSAFEPATH': '1'},
  )
  for command in command_line.COMMANDS:
    assert f'  {command}' in done.stdout
  assert all(len(line) < 110 for line in done.stdout.splitlines())
