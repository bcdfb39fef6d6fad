"""Compilation by numba where it is installed, plain Python where it is not.

Every compiled function of the package has a NumPy twin that gives the same bytes; callers choose by
`HAVE_NUMBA`. The environment variable `DELF_D2R_NO_NUMBA=1`, set before the first import, selects the NumPy
path, for comparison and for machines where numba misbehaves.

numba's decorators have no types: `njit` and `intrinsic` are the only places that call them.
"""

import os
from collections.abc import Callable
from typing import Any, TypeVar, overload

NO_NUMBA_VARIABLE = 'DELF_D2R_NO_NUMBA'

try:
  if os.environ.get(NO_NUMBA_VARIABLE, '0') not in ('', '0'):
    raise ImportError(f'numba is switched off by {NO_NUMBA_VARIABLE}')
  import numba
  import numba.extending

  HAVE_NUMBA = True
except ImportError:
  HAVE_NUMBA = False

Function = TypeVar('Function', bound=Callable[..., Any])


@overload
def njit(function: Function) -> Function: ...
@overload
def njit(**options: Any) -> Callable[[Function], Function]: ...
def njit(function: Callable[..., Any] | None = None, **options: Any) -> Any:
  """Compiles a function by `numba.njit(cache=True, nogil=True)`; returns it unchanged without numba.

  The cache of machine code is a convenience: where no place for it can be written (a read-only
  installation without a home directory), the function is compiled in each process instead.

  Args:
    function: the function, where the decorator is used without arguments.
    **options: of `numba.njit`.
  """
  if function is None:
    return lambda decorated: njit(decorated, **options)
  if not HAVE_NUMBA:
    return function
  options.setdefault('nogil', True)
  try:
    return numba.njit(function, cache=options.pop('cache', True), **options)
  except RuntimeError:  # numba: "cannot cache function ...: no locator available for file ..."
    return numba.njit(function, **options)


def intrinsic(generator: Callable[..., Any]) -> Callable[..., Any]:
  """Makes a function for compiled code of one that generates machine code, by `numba.extending.intrinsic`.

  Args:
    generator: takes numba's typing context and the types of the arguments, and returns the signature and
      the function that generates the code.

  Returns:
    The function, to be called with the arguments alone and in compiled code only. Without numba there is no
    compiled code; the generator is returned then.
  """
  return numba.extending.intrinsic(generator) if HAVE_NUMBA else generator
