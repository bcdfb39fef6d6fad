"""What a command that answers one photo imports: counted in modules, in a process of its own."""

import subprocess
import sys

import pytest

from delf_d2r.config import loading
from delf_d2r.data.artefacts import single_query
from delf_d2r.kernels import compiled

CODE = """
import sys
from delf_d2r import command_line
from delf_d2r.tools import search_index
assert not {'numpy', 'google'} & set(sys.modules), 'the command imports before it knows its flags'
try:
  command_line.run(search_index.main, ['search_index', *sys.argv[1:]])
finally:
  heavy = {'keras', 'matplotlib', 'numba', 'onnxruntime', 'scipy', 'skimage', 'sklearn', 'tensorflow', 'tqdm'}
  print(*sorted(heavy & set(sys.modules)), file=sys.stderr)
"""


def imported(*arguments):
  """Returns the answer to a search and the heavy libraries that it took."""
  process = subprocess.run(
    [sys.executable, '-c', CODE, *arguments], capture_output=True, text=True, check=True
  )
  return process.stdout, set(process.stderr.split())


def test_one_photo_of_a_small_index_takes_numpy_alone(index_dir, query_path):
  answer, heavy = imported(f'--index={index_dir}', f'--query={query_path}', '--format=json')
  assert '"rank": 1' in answer
  assert not heavy


def test_help_imports_no_library(index_dir):
  text, heavy = imported('--help')
  assert '--top_k' in text
  assert not heavy


@pytest.fixture
def switched(monkeypatch):
  """Whether the NumPy path was selected, without effect on this process."""
  calls = []
  monkeypatch.setattr(compiled, 'use_numpy', lambda: calls.append(True))
  return calls


@pytest.mark.parametrize('folder', ['inverted', 'index/inverted', 'other/index/inverted'])
def test_a_large_index_is_searched_with_numba(tmp_path, switched, monkeypatch, folder):
  (tmp_path / folder).mkdir(parents=True)
  (tmp_path / folder / 'postings.npy').write_bytes(bytes(100))
  monkeypatch.setattr(single_query, '_SMALL_BYTES', 99)
  single_query.use_numpy_where_cheaper(tmp_path, verify=False)
  assert not switched
  monkeypatch.setattr(single_query, '_SMALL_BYTES', 100)
  single_query.use_numpy_where_cheaper(tmp_path, verify=None)
  assert switched


def test_verification_takes_numba(tmp_path, switched):
  single_query.use_numpy_where_cheaper(tmp_path, verify=True)
  run = tmp_path / single_query.RUN_CONFIG
  config = loading.load('configs/experiments/sift_asmk_star_sp.pbtxt')
  assert config.HasField('verification')
  run.write_text(str(config), 'utf-8')
  single_query.use_numpy_where_cheaper(tmp_path, verify=None)
  assert not switched
  single_query.use_numpy_where_cheaper(tmp_path, verify=False)
  assert switched


def test_a_damaged_config_is_reported_by_the_search(tmp_path, switched):
  (tmp_path / single_query.RUN_CONFIG).write_text('search {', 'utf-8')
  single_query.use_numpy_where_cheaper(tmp_path, verify=None)
  assert not switched
