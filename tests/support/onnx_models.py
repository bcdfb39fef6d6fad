"""Writes small ONNX files field by field: tests do not need the package onnx.

The field numbers are those of onnx.proto (ONNX 1.16, IR version 9).
"""

import pathlib

import numpy as np

FLOAT = 1
INTS = 7


def _varint(value: int) -> bytes:
  data = b''
  while value > 127:
    data, value = data + bytes([value & 127 | 128]), value >> 7
  return data + bytes([value])


def _number(field: int, value: int) -> bytes:
  return _varint(field << 3) + _varint(value)


def _message(field: int, data: bytes | str) -> bytes:
  data = data.encode() if isinstance(data, str) else data
  return _varint(field << 3 | 2) + _varint(len(data)) + data


def _tensor(name: str, array: np.ndarray) -> bytes:
  sizes = b''.join(_number(1, size) for size in array.shape)
  kind = {'float32': FLOAT, 'int64': INTS}[array.dtype.name]
  return sizes + _number(2, kind) + _message(8, name) + _message(9, array.tobytes())


def _value(name: str, shape) -> bytes:
  """Encodes a ValueInfoProto; a string instead of a size stands for any size."""
  sizes = b''.join(
    _message(1, _message(2, size) if isinstance(size, str) else _number(1, size)) for size in shape
  )
  return _message(1, name) + _message(2, _message(1, _number(1, FLOAT) + _message(2, sizes)))


def _node(kind: str, inputs, output: str) -> bytes:
  return b''.join(_message(1, name) for name in inputs) + _message(2, output) + _message(4, kind)


def write_linear(path: pathlib.Path, matrix: np.ndarray, *, input_shape) -> pathlib.Path:
  """Writes a model that flattens each of N patches and multiplies it by `matrix`, float32 [S * S, D]."""
  size, dimensions = matrix.shape
  graph = (
    _message(1, _node('Reshape', ('patches', 'shape'), 'flat'))
    + _message(1, _node('MatMul', ('flat', 'matrix'), 'descriptors'))
    + _message(2, 'linear')
    + _message(5, _tensor('shape', np.array([-1, size], np.int64)))
    + _message(5, _tensor('matrix', matrix.astype(np.float32)))
    + _message(11, _value('patches', input_shape))
    + _message(12, _value('descriptors', ('N', dimensions)))
  )
  path.write_bytes(_number(1, 9) + _message(7, graph) + _message(8, _number(2, 17)))
  return path
