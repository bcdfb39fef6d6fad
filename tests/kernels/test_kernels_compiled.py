"""The switch between numba and NumPy, seen from a fresh process."""

import os
import subprocess
import sys

import pytest

from delf_d2r.errors import UserError
from delf_d2r.kernels import compiled

PROGRAM = """
import numpy as np
from delf_d2r.kernels import compiled
from delf_d2r.kernels.aggregation import Kernel, aggregate

@compiled.njit
def double(x):
  return 2 * x

@compiled.njit(inline='never')
def triple(x):
  return 3 * x

rng = np.random.default_rng(0)
values = aggregate(
  rng.normal(size=(50, 9)), rng.integers(0, 7, (50, 2)), rng.normal(size=(7, 9)), kernel=Kernel.ASMK
).values
print(compiled.HAVE_NUMBA, hasattr(double, 'py_func'), double(4), triple(4), values.tobytes().hex())
"""


def run(tmp_path, **environment):
  # The program runs outside the checkout: numba's cache depends on the location of the package alone.
  root = os.path.dirname(os.path.dirname(os.path.dirname(compiled.__file__)))
  result = subprocess.run(
    [sys.executable, '-W', 'error', '-c', PROGRAM],
    cwd=tmp_path,
    env=os.environ | {'PYTHONPATH': root} | environment,
    capture_output=True,
    text=True,
    check=True,
  )
  return result.stdout.split()


@pytest.mark.slow
@pytest.mark.skipif(not compiled.HAVE_NUMBA, reason='numba is not installed or switched off')
def test_the_variable_switches_numba_off_and_changes_no_byte(tmp_path):
  with_numba = run(tmp_path, DELF_D2R_NO_NUMBA='0')
  without = run(tmp_path, DELF_D2R_NO_NUMBA='1')
  assert with_numba[:4] == ['True', 'True', '8', '12']
  assert without[:4] == ['False', 'False', '8', '12']
  assert with_numba[4] == without[4]


@pytest.mark.skipif(not compiled.HAVE_NUMBA, reason='numba is not installed or switched off')
def test_no_place_for_the_cache_is_not_fatal():
  def add_one(x):
    return x + 1

  namespace = {}
  exec(compile('def add_two(x):\n  return x + 2', '<nowhere>', 'exec'), namespace)
  assert compiled.njit(namespace['add_two'])(1) == 3  # numba finds no file to cache beside
  assert compiled.njit(add_one)(1) == 2


LAZY_PROGRAM = """
import sys
import numpy as np
from delf_d2r.kernels import assignment, compiled
from delf_d2r.index import search

@compiled.njit
def single(x):
  return x

@compiled.njit
def is_even(n):
  return True if n == 0 else is_odd(n - 1)

@compiled.njit
def is_odd(n):
  return False if n == 0 else is_even(n - 1)

def closed(inner):
  @compiled.njit
  def outer(x):
    return inner(x) + single(x)
  return outer

assert not {'numba', 'llvmlite', 'scipy'} & set(sys.modules)
assert single.__name__ == 'single' and single.py_func(3) == 3
twice = closed(single)
assert twice(2) == 4 and is_even(3) is False
assert 'numba' in sys.modules
assert len(twice.signatures) == 1
"""


@pytest.mark.skipif(not compiled.HAVE_NUMBA, reason='numba is not installed or switched off')
def test_numba_is_imported_at_the_first_call():
  environment = os.environ | {'PYTHONPATH': os.pathsep.join(sys.path), 'DELF_D2R_NO_NUMBA': '0'}
  subprocess.run([sys.executable, '-c', LAZY_PROGRAM], env=environment, check=True)


def test_numpy_is_used_where_numba_does_not_pay():
  code = (
    'import sys; from delf_d2r.kernels import compiled; compiled.use_numpy();'
    'import numpy as np; from delf_d2r.kernels import aggregation, assignment;'
    'assert not (assignment.HAVE_NUMBA or aggregation.HAVE_NUMBA);'
    'assignment.assign(np.eye(9), np.eye(9)); sys.exit("numba" in sys.modules)'
  )
  environment = os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)}
  subprocess.run([sys.executable, '-c', code], env=environment, check=True)


@pytest.mark.skipif(not compiled.HAVE_NUMBA, reason='numba is not installed or switched off')
def test_a_numba_that_cannot_be_imported_is_named_with_the_remedy(monkeypatch):
  monkeypatch.setitem(sys.modules, 'numba', None)
  with pytest.raises(UserError, match=r'numba cannot be imported.*DELF_D2R_NO_NUMBA=1'):
    compiled.njit(lambda x: x)(1)
