"""What workers share with each other, and what they have from the process that starts them."""

import os
import subprocess
import sys
import textwrap

import pytest

from delf_d2r.runtime import worker_pool

HELPERS = """
import os, sys
from delf_d2r.runtime import fork_server, worker_pool

def loaded(item):
  threads = len(os.listdir('/proc/%d/task' % os.getppid()))
  return item in sys.modules, os.environ.get('NEW'), os.getppid(), threads, os.getcwd()

def make():
  return loaded

def facts(item='colorsys', workers=2):
  return list(worker_pool.map_ordered(make, [item] * 3, workers=workers, preload=PRELOAD))[-1]
"""


def run(tmp_path, code, preload=('colorsys',)):
  (tmp_path / 'helpers.py').write_text(f'PRELOAD = {preload!r}\n{HELPERS}', 'utf-8')
  script = tmp_path / 'script.py'
  script.write_text(
    f'from helpers import *\nif __name__ == "__main__":\n{textwrap.indent(code, "  ")}', 'utf-8'
  )
  environment = {name: value for name, value in os.environ.items() if name != 'NEW'}
  return subprocess.run(
    [sys.executable, script], env=environment, check=True, capture_output=True, text=True, timeout=120
  )


def test_workers_have_what_the_server_imported_and_the_surroundings_of_the_parent(tmp_path):
  run(
    tmp_path,
    """
worker_pool.start_ahead(PRELOAD)
os.environ['NEW'] = 'value'
os.chdir('/')
found, value, parent, threads, folder = facts()
assert found and value == 'value' and folder == '/', (found, value, folder)
assert parent != os.getpid() and threads == 1, threads
assert facts()[2] == parent, 'there is one server for all stages'
assert 'colorsys' not in sys.modules and fork_server.VARIABLE not in os.environ
""",
  )


def test_workers_start_afresh_where_the_server_does_not_fit_any_more(tmp_path):
  run(
    tmp_path,
    """
assert facts()[2] != os.getpid()
os.environ['DELF_D2R_NO_NUMBA'] = '1'
found, _, parent, *_ = facts()
assert not found and parent == os.getpid()
""",
  )


def test_a_module_that_cannot_be_imported_is_left_to_the_workers(tmp_path):
  (tmp_path / 'broken.py').write_text('raise ValueError("broken")', 'utf-8')
  process = run(tmp_path, 'assert facts()[0]', preload=('broken', 'no_such_module', 'colorsys'))
  assert not process.stderr


def test_a_forked_process_has_a_server_of_its_own(tmp_path):
  run(
    tmp_path,
    """
parent = facts()[2]
child = os.fork()
if not child:
  os._exit(0 if facts()[0] and facts()[2] != parent else 1)
assert os.waitpid(child, 0)[1] == 0
assert facts()[2] == parent
""",
  )


@pytest.mark.parametrize('has_gpu', [False, True])
def test_networks_are_not_imported_ahead_where_there_is_a_gpu(monkeypatch, has_gpu):
  asked = []
  monkeypatch.setattr(worker_pool, '_has_gpu', lambda: has_gpu)
  monkeypatch.setattr(worker_pool.fork_server, 'context', asked.append)
  worker_pool.start_ahead(['delf_d2r.models.saved_models.detections', 'colorsys'])
  (modules,) = asked
  assert 'colorsys' in modules
  assert ('delf_d2r.models.saved_models.detections' in modules) == (not has_gpu)
