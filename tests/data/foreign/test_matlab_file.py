"""MATLAB files: the same content as by the reader of SciPy, and errors where that one crashes."""

import io
import struct
import zlib

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from delf_d2r.data.foreign import matlab_file


def saved(content, **options) -> bytes:
  file = io.BytesIO()
  scipy.io.savemat(file, content, **options)
  return file.getvalue()


def read(tmp_path, data):
  path = tmp_path / 'x.mat'
  path.write_bytes(data)
  return matlab_file.read(path)


def cell(values):
  array = np.empty(len(values), object)
  array[:] = values
  return array


CONTENT = {
  'doubles': np.arange(6.0).reshape(2, 3),
  'deep': np.arange(24, dtype=np.int16).reshape(2, 3, 4),
  'empty': np.zeros((0, 3)),
  'small': np.array([[1, 2]], np.uint8),
  'large': np.array([[2**62]], np.int64),
  'single': np.float32(0.1),
  'yes': np.array([[True, False]]),
  'text': 'K\u00e4fer',
  'texts': np.array(['ab', 'c']),
  'cells': cell(['a', np.arange(3.0), cell(['b'])]),
  'structs': np.array([(1.0, 'x'), (2.0, 'y')], [('first_field', object), ('b', object)]),
}


def assert_equal(found, expected):
  """Converts the content as read by SciPy, where structs are records, to dicts."""
  names = expected.dtype.names
  if names:
    assert found.shape == expected.shape
    for ours, theirs in zip(found.ravel(), expected.ravel(), strict=True):
      assert list(ours) == list(names)
      for name in names:
        assert_equal(ours[name], theirs[name])
  elif expected.dtype == object:
    assert found.shape == expected.shape
    for ours, theirs in zip(found.ravel(), expected.ravel(), strict=True):
      assert_equal(ours, theirs)
  else:
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('compressed', [False, True])
@pytest.mark.parametrize('name', CONTENT)
def test_content_is_that_of_scipy(tmp_path, name, compressed):
  data = saved({name: CONTENT[name], 'other': np.ones((1, 1))}, do_compression=compressed)
  found = read(tmp_path, data)
  expected = scipy.io.loadmat(io.BytesIO(data))
  assert found.keys() == {name, 'other'}
  assert_equal(found[name], expected[name])


def element(kind, data, order='<'):
  return struct.pack(f'{order}II', kind, len(data)) + data + bytes(-len(data) % 8 if kind != 15 else 0)


def variable(kind, shape, *parts, order='<', flags=0):
  """Writes a variable `v` of a class by hand."""
  head = element(6, struct.pack(f'{order}II', kind | flags, 0), order)
  head += element(5, struct.pack(f'{order}{len(shape)}i', *shape), order) + element(1, b'v', order)
  return element(14, head + b''.join(parts), order)


def file_of(*elements, order='<', version=0x0100):
  header = b'MATLAB'.ljust(124) + struct.pack(f'{order}H', version) + (b'IM' if order == '<' else b'MI')
  return header + b''.join(elements)


def test_big_endian_file(tmp_path):
  numbers = element(9, struct.pack('>2d', 1.5, -2), '>')
  (found,) = read(tmp_path, file_of(variable(6, (1, 2), numbers, order='>'), order='>')).values()
  np.testing.assert_array_equal(found, [[1.5, -2]])


def nested(depth):
  return variable(1, (1, 1), nested(depth - 1)) if depth else variable(6, (1, 1), element(9, bytes(8)))


@pytest.mark.parametrize(
  ('data', 'message'),
  [
    (b'', 'expected the header of versions 5 to 7.2'),
    (file_of(version=0x0300), 'expected the header'),
    (file_of(version=0x0200), r'save it with save\(\.\.\., "-v7"\)'),
    (file_of(element(9, bytes(8))), 'expected a variable, found kind 9'),
    (file_of(struct.pack('<II', 14, 2**31)), 'an element of 2147483648 bytes'),
    (file_of(struct.pack('<HHI', 1, 9, 0)), 'cut short'),
    (file_of(variable(6, (2, 2), element(9, bytes(8)))), r'1 values for an array \(2, 2\)'),
    (file_of(variable(6, (-1, -1), element(9, bytes(8)))), r'shape \[-1, -1\]'),
    (file_of(variable(6, (1, 1), element(9, bytes(7)))), 'expected numbers, found 7 bytes'),
    (file_of(variable(1, (2**30, 2**30), element(14, b''))), 'arrays in'),
    (file_of(variable(2, (2**30, 1), element(5, bytes([4, 0, 0, 0])), element(1, b'abc\0'))), 'arrays in'),
    (file_of(variable(2, (1, 1), element(5, bytes(4)), element(1, b'abc\0'))), 'field names of 0 bytes'),
    (file_of(variable(1, (1, 1), element(9, bytes(8)))), 'expected an array in an array'),
    (file_of(variable(4, (1, 1), element(9, bytes(8)))), 'expected text, found kind 9'),
    (file_of(variable(4, (1, 1), element(16, b'\xff'))), "can't decode"),
    (file_of(variable(5, (1, 1))), 'is of class 5; expected real numbers'),
    (file_of(variable(6, (1, 1), element(9, bytes(8)), flags=0x800)), 'is of class 6; expected real'),
    (file_of(nested(20)), 'nested deeper than 16'),
    (file_of(element(15, zlib.compress(variable(6, (1, 1), element(9, bytes(8))))[:-3])), 'do not end'),
    (file_of(element(15, b'no zlib')), 'incorrect header check'),
  ],
)  # fmt: skip
def test_damaged_files_are_refused(tmp_path, data, message):
  with pytest.raises(ValueError, match=message):
    read(tmp_path, data)


@pytest.mark.parametrize('sizes', [[2**24], [2**23, 2**23]])
def test_size_is_that_of_what_is_unpacked(tmp_path, sizes):
  bombs = [element(15, zlib.compress(nested(0) + bytes(size), 1)) for size in sizes]
  with pytest.raises(ValueError, match='it unpacks to over 16,777,216 bytes'):
    read(tmp_path, file_of(*bombs))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('matlab')


WHOLE = saved(CONTENT)


@settings(deadline=None)
@given(st.data())
def test_any_damage_gives_values_or_an_error(folder, data):
  content = bytearray(WHOLE)
  for _ in range(data.draw(st.integers(1, 3))):
    content[data.draw(st.integers(128, len(content) - 1))] = data.draw(st.integers(0, 255))
  path = folder / 'x.mat'
  path.write_bytes(content)
  try:
    found = matlab_file.read(path)
  except ValueError as error:
    assert str(error)  # noqa: PT017
  else:
    assert all(isinstance(value, np.ndarray) for value in found.values())
