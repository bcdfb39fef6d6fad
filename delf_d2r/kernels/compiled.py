"""Compilation by numba where it is installed, plain Python where it is not.

Every compiled function of the package has a NumPy twin that gives the same bytes; callers choose by
`HAVE_NUMBA`. The environment variable `DELF_D2R_NO_NUMBA=1`, set before the first import, selects the NumPy
path, for comparison and for machines where numba misbehaves; `use_numpy` does so for one process.

numba is imported when a compiled function is first called: with its registries and its machine code it costs
0.7 s of CPU and 80 MB, which a command that compiles nothing does not pay.

numba's decorators have no types: `njit` and `intrinsic` are the only places that lead to them.
"""

import functools
import importlib.util
import os
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, overload

from delf_d2r.errors import UserError

NO_NUMBA_VARIABLE = 'DELF_D2R_NO_NUMBA'

# Modules take it over when they are imported.
HAVE_NUMBA = (
  os.environ.get(NO_NUMBA_VARIABLE, '0') in ('', '0') and importlib.util.find_spec('numba') is not None
)

Function = TypeVar('Function', bound=Callable[..., Any])

# Functions call each other, so one lock for all.
_lock = threading.RLock()


def use_numpy() -> None:
  """Selects the NumPy path in this process, for modules that are imported from now on.

  For a process that computes so little that numba would cost more than it saves. Results are the same.
  """
  global HAVE_NUMBA
  HAVE_NUMBA = False


@overload
def njit(function: Function) -> Function: ...
@overload
def njit(**options: Any) -> Callable[[Function], Function]: ...
def njit(function: Callable[..., Any] | None = None, **options: Any) -> Any:
  """Compiles a function by `numba.njit(cache=True, nogil=True)`; returns it unchanged without numba.

  It is compiled when it is first called. The cache of machine code is a convenience: where no place for it
  can be written (a read-only installation without a home directory), the function is compiled in each
  process instead.

  Args:
    function: the function, where the decorator is used without arguments.
    **options: of `numba.njit`.
  """
  if function is None:
    return lambda decorated: njit(decorated, **options)
  return _Compiled(function, options) if HAVE_NUMBA else function


def intrinsic(generator: Callable[..., Any]) -> Callable[..., Any]:
  """Makes a function for compiled code of one that generates machine code, by `numba.extending.intrinsic`.

  Args:
    generator: takes numba's typing context and the types of the arguments, and returns the signature and
      the function that generates the code.

  Returns:
    The function, to be called with the arguments alone and in compiled code only. Without numba there is no
    compiled code; the generator is returned then.
  """
  return _Intrinsic(generator) if HAVE_NUMBA else generator


class _Deferred:
  """What numba will make of a function, made when it is first needed.

  Compiled code refers to other compiled functions by global names (or by variables of an enclosing function),
  behind which numba must find its own objects. They take the place of the deferred ones there.
  """

  def __init__(self, function: Callable[..., Any]) -> None:
    functools.update_wrapper(self, function)
    self._function = function
    self._made: Any = None
    self._is_complete = False

  def __call__(self, *arguments: Any) -> Any:
    return self.made()(*arguments)

  def made(self) -> Any:
    """Returns numba's object; all that its code refers to is numba's, too."""
    if not self._is_complete:
      with _lock:
        # Not None where functions that call each other come back to the first of them.
        if self._made is None:
          self._made = self._make()
          _replace_deferred(self._function)
          self._is_complete = True
    return self._made

  def _make(self) -> Any:
    raise NotImplementedError


class _Compiled(_Deferred):
  """A function that is compiled at its first call; its other attributes are those of numba's dispatcher.

  Attributes:
    py_func: the function.
  """

  def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
    super().__init__(function)
    self.py_func = function
    self._options = {'nogil': True, **options}

  def __getattr__(self, name: str) -> Any:
    if name.startswith('_'):
      raise AttributeError(name)
    return getattr(self.made(), name)

  def _make(self) -> Any:
    numba, options = _numba(), dict(self._options)
    try:
      return numba.njit(self._function, cache=options.pop('cache', True), **options)
    except RuntimeError:  # numba: "cannot cache function ...: no locator available for file ..."
      return numba.njit(self._function, **options)


class _Intrinsic(_Deferred):
  """An intrinsic that is made when a function that calls it is compiled."""

  def _make(self) -> Any:
    return _numba().extending.intrinsic(self._function)


def _numba() -> Any:
  """Imports numba.

  Raises:
    UserError: it is installed and cannot be imported, most likely since it knows no NumPy as new as this one.
  """
  try:
    import numba
    import numba.extending
  except ImportError as error:
    raise UserError(
      f'numba cannot be imported: {error}. Install a version that fits, or set {NO_NUMBA_VARIABLE}=1 to do'
      ' without it, more slowly'
    ) from error
  return numba


def _replace_deferred(function: Callable[..., Any]) -> None:
  """Puts numba's objects in the place of the deferred ones that the code of a function refers to."""
  assert isinstance(function, types.FunctionType), 'numba compiles functions alone'
  for name in _names(function.__code__):
    value = function.__globals__.get(name)
    if isinstance(value, _Deferred):
      function.__globals__[name] = value.made()
  for cell in function.__closure__ or ():
    if isinstance(cell.cell_contents, _Deferred):
      cell.cell_contents = cell.cell_contents.made()


def _names(code: types.CodeType) -> Iterator[str]:
  """Yields the global names in the code of a function, and in that of the functions inside it."""
  yield from code.co_names
  for constant in code.co_consts:
    if isinstance(constant, types.CodeType):
      yield from _names(constant)
