"""Compilation by numba where it is there, plain Python where it is not.

Every compiled function of the project has a NumPy twin that gives the same bytes; callers choose by
`HAVE_NUMBA`. Setting the environment variable `DELF_D2R_NO_NUMBA=1` before the first import takes
the NumPy path, for comparison and for machines where numba misbehaves.
"""

import os

NO_NUMBA_VARIABLE = 'DELF_D2R_NO_NUMBA'

try:
  if os.environ.get(NO_NUMBA_VARIABLE, '0') not in ('', '0'):
    raise ImportError(f'numba is switched off by {NO_NUMBA_VARIABLE}')
  import numba
except ImportError:
  numba = None

HAVE_NUMBA = numba is not None


def njit(function=None, **options):
  """`numba.njit(cache=True, nogil=True)`, with and without arguments; without numba, no change.

  The cache of machine code is a convenience: where no place for it can be written (a read-only
  installation without a home directory), the function is compiled in each process instead.
  """
  if function is None:
    return lambda f: njit(f, **options)
  if not HAVE_NUMBA:
    return function
  options.setdefault('nogil', True)
  try:
    return numba.njit(function, cache=options.pop('cache', True), **options)
  except RuntimeError:  # numba: "cannot cache function ...: no locator available for file ..."
    return numba.njit(function, **options)


# Loops over `prange` run in parallel inside functions compiled with `parallel=True`.
prange = numba.prange if HAVE_NUMBA else range
