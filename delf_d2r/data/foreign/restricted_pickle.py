"""Reads pickles of plain containers and NumPy arrays without executing anything that they name.

A pickle is a program that may import and call any function. The annotations of Revisited are published as
pickles, so this reader admits numbers, text, bytes, lists, tuples, dicts, sets, and the few globals by which
the arrays, dtypes and scalars of NumPy are pickled (NumPy 1 and 2, Python 2 and 3). Even these are not passed
to NumPy: substitutes check shape, dtype and number of bytes before an array is filled.
"""

import io
import math
import pickle
import pickletools
import re
import types
from typing import BinaryIO

import numpy as np

_SIMPLE_DTYPE = re.compile(r'[<>|=]?(b1|[iu][1248]|f[248]|[SU]\d{1,6}|O8?)')
_MEMO_WRITES = frozenset(('PUT', 'BINPUT', 'LONG_BINPUT'))


class RefusedError(Exception):
  """The pickle contains something that is not admitted."""


def loads(data: bytes) -> object:
  """Returns the object pickled in `data`.

  NumPy arrays are instances of a subclass, which `np.asarray` converts. Text pickled by Python 2 is decoded
  as Latin-1.

  Raises:
    ValueError: the pickle names a global that is not admitted, or is damaged or truncated.
  """
  try:
    check_opcodes(data, len(data))
    return _Unpickler(data).load()
  except RefusedError as error:
    raise ValueError(str(error)) from error
  except Exception as error:  # A damaged pickle raises nearly any exception.
    raise ValueError(
      f'the pickle is damaged or cut short ({type(error).__name__}: {error}); download the file again'
    ) from error


def check_opcodes(data: bytes | BinaryIO, size: int) -> None:
  """Checks the opcodes of one pickle: it ends with STOP, and no slot of its memo is greater than `size`.

  The unpickler of CPython allocates a memo for the greatest slot that is written, up to 64 GiB.

  Args:
    data: the pickle.
    size: number of bytes of the file that it comes from.

  Raises:
    RefusedError: a slot is greater.
    ValueError: the pickle is damaged.
  """
  for opcode, argument, position in pickletools.genops(data):
    if opcode.name in _MEMO_WRITES and argument is not None and argument > size:
      raise RefusedError(
        f'the pickle is damaged: byte {position} writes memo slot {argument} of a file of {size}'
        ' bytes; download the file again'
      )


class _Unpickler(pickle.Unpickler):
  def __init__(self, data: bytes):
    super().__init__(io.BytesIO(data), encoding='latin1')

  def find_class(self, module: str, name: str):
    try:
      return _ADMITTED[module, name]
    except KeyError:
      raise RefusedError(
        f'refused the global {module}.{name}: only plain containers and NumPy arrays are admitted, and'
        ' nothing was executed; get the file from a source you trust, or write the ground truth as JSON'
      ) from None


class _Global:
  """The substitute of an admitted global: it can be called, but the opcode BUILD cannot change it."""

  __slots__ = ('_function',)

  def __init__(self, function=None):
    object.__setattr__(self, '_function', function)

  def __call__(self, *arguments):
    if self._function is None:
      raise RefusedError('refused to call a class')
    return self._function(*arguments)

  def __setattr__(self, name, value):
    raise RefusedError(f'refused to set the attribute {name} of a global')

  def __setstate__(self, state):
    raise RefusedError('refused to set the state of a global')


class _Dtype:
  """A dtype under construction: the pickle names it first, then sets the byte order by BUILD."""

  __slots__ = ('dtype',)

  def __init__(self, text: str):
    if not isinstance(text, str) or not _SIMPLE_DTYPE.fullmatch(text):
      raise RefusedError(f'refused the dtype {text!r}: only numbers, text and objects are admitted')
    self.dtype = np.dtype('O' if 'O' in text else text)

  def __setstate__(self, state):
    _version, order, *compound = state[:5]
    if order not in ('<', '>', '|', '=') or any(part is not None for part in compound):
      raise RefusedError(f'refused a compound dtype of {self.dtype}')
    self.dtype = self.dtype.newbyteorder(order)


class _Array(np.ndarray):
  """An array under construction: BUILD sets shape, dtype and content."""

  def __setstate__(self, state):
    _version, shape, dtype, is_fortran, content = state
    dtype = _checked_dtype(dtype)
    if isinstance(content, str):  # Bytes pickled by Python 2.
      content = content.encode('latin1')
    if not isinstance(content, list if dtype.hasobject else bytes):
      raise RefusedError(f'an array of {dtype} contains {type(content).__name__}')
    _check_size(shape, dtype, len(content) if dtype.hasobject else len(content) / dtype.itemsize)
    super().__setstate__((1, shape, dtype, bool(is_fortran), content))


def _checked_dtype(dtype: object) -> np.dtype:
  if not isinstance(dtype, _Dtype):
    raise RefusedError(f'expected a dtype, found {type(dtype).__name__}')
  if dtype.dtype.itemsize == 0:
    raise RefusedError(f'refused a dtype without bytes: {dtype.dtype}')
  return dtype.dtype


def _check_size(shape: object, dtype: np.dtype, found: float) -> None:
  if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
    raise RefusedError('the shape of an array is not a tuple of sizes')
  if math.prod(shape) != found:
    raise RefusedError(f'an array {shape} of {dtype} needs {math.prod(shape)} items, found {found:g}')


def _reconstruct(_subtype, _shape, _typecode) -> _Array:
  return np.ndarray.__new__(_Array, (0,), np.int8)


def _from_buffer(buffer, dtype, shape, order) -> np.ndarray:
  dtype = _checked_dtype(dtype)
  _check_size(shape, dtype, len(buffer) / dtype.itemsize)
  return np.frombuffer(bytes(buffer), dtype).reshape(shape, order='F' if order == 'F' else 'C')


def _scalar(dtype, content) -> np.generic:
  dtype = _checked_dtype(dtype)
  content = content.encode('latin1') if isinstance(content, str) else content
  _check_size((), dtype, len(content) / dtype.itemsize)
  return np.frombuffer(content, dtype)[0]


def _encode(text: str, encoding: str) -> bytes:
  if encoding not in ('latin1', 'latin-1'):
    raise RefusedError(f'refused the encoding {encoding!r}: expected latin1')
  return text.encode('latin1')


_ADMITTED = types.MappingProxyType(
  {
    ('numpy', 'ndarray'): _Global(),
    ('numpy', 'dtype'): _Global(lambda text, _align=False, _copy=True: _Dtype(text)),
    ('_codecs', 'encode'): _Global(_encode),
    # Protocols 0 to 2 represent b'' by a call without arguments.
    ('__builtin__', 'bytes'): _Global(lambda: b''),
    **{
      (f'numpy.{core}.{module}', name): _Global(function)
      for core in ('core', '_core')
      for module, name, function in (
        ('multiarray', '_reconstruct', _reconstruct),
        ('multiarray', 'scalar', _scalar),
        ('numeric', '_frombuffer', _from_buffer),
      )
    },
  }
)
