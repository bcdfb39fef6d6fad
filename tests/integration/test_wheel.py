"""The package as it is installed: a wheel of this checkout, away from the checkout."""

import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

pytestmark = pytest.mark.slow

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
PARTS = (
  'delf_d2r',
  'protos',
  'configs',
  'tools',
  'setup.py',
  'pyproject.toml',
  'README.md',
  'LICENSE',
  'NOTICE',
  'MANIFEST.in',
)


@pytest.fixture(scope='module')
def installed(tmp_path_factory) -> pathlib.Path:
  """A folder with the contents of a wheel that was built from clean sources."""
  source, target = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('installed')
  for part in PARTS:
    copy = shutil.copytree if (REPOSITORY / part).is_dir() else shutil.copy
    copy(REPOSITORY / part, source / part)
  for generated in (source / 'delf_d2r' / 'protos').glob('*_pb2.py*'):
    generated.unlink()
  # Without isolation: the build's requirements are in the test environment, and nothing is downloaded.
  build = [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--no-build-isolation', str(source)]
  subprocess.run(build, cwd=target, check=True)
  (wheel,) = target.glob('*.whl')
  with zipfile.ZipFile(wheel) as archive:
    archive.extractall(target / 'site')
  return target / 'site'


def test_wheel_has_all_that_the_checkout_has(installed):
  checkout = {
    file.relative_to(REPOSITORY)
    for file in (REPOSITORY / 'delf_d2r').rglob('*')
    if file.is_file() and '__pycache__' not in file.parts
  }
  for part in ('tools', 'configs'):
    checkout |= {
      pathlib.Path('delf_d2r') / file.relative_to(REPOSITORY)
      for file in (REPOSITORY / part).rglob('*')
      if file.suffix in ('.py', '.pbtxt')
    }
  found = {file.relative_to(installed) for file in installed.rglob('*') if file.is_file()}
  assert checkout - found == set()


def test_wheel_has_its_licence_and_types(installed):
  (licences,) = installed.glob('*.dist-info/licenses')
  for name in ('LICENSE', 'NOTICE'):
    assert (licences / name).read_bytes() == (REPOSITORY / name).read_bytes()
  assert (installed / 'delf_d2r' / 'py.typed').is_file()
  generated = {path.stem for path in (installed / 'delf_d2r' / 'protos').glob('*_pb2.py')}
  assert generated == {path.stem for path in (installed / 'delf_d2r' / 'protos').glob('*_pb2.pyi')} != set()


def test_main_job_runs_from_the_wheel(installed, benchmark, tmp_path):
  code = 'import delf_d2r, sys; from delf_d2r.command_line import main; print(delf_d2r.__file__); main()'
  arguments = [
    'run_experiment',
    '--config_path=configs/experiments/sift_asmk_star.pbtxt',
    f'--images={benchmark.images_dir}',
    f'--query_images={benchmark.queries_dir}',
    f'--ground_truth={benchmark.ground_truth_path}',
    f'--output={tmp_path / "out"}',
    '--override=codebook.num_words: 64',
    '--override=extraction.max_image_size: 320',
    '--workers=1',
  ]
  done = subprocess.run(
    [sys.executable, '-c', code, *arguments],
    cwd=tmp_path,
    env={**os.environ, 'PYTHONPATH': str(installed)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith(str(installed))
  assert 'mAP medium' in done.stdout
