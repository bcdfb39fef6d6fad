"""The switch between numba and NumPy, seen from a fresh process."""

import os
import subprocess
import sys

import pytest

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
