"""Files of converted networks: ONNX whose weights are those of the SavedModel that it was converted from.

A weight's `external_data` says where in a file of the SavedModel its bytes are, of which type and shape, and
how its axes are permuted; `load` fills it in. So the package holds every weight once. The file also has what
is known about the network beside its graph: metadata_props, each value in JSON.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from delf_d2r.errors import UserError
from delf_d2r.protos import onnx_graph_pb2

FLOAT32, UINT8, INT8, INT32, INT64 = 1, 2, 3, 6, 7
_DTYPES: dict[int, type] = {
  FLOAT32: np.float32, UINT8: np.uint8, INT8: np.int8, INT32: np.int32, INT64: np.int64
}  # fmt: skip
# Constants of the file that no node of its graph reads: the matrix [C, D] and the offset [D] of the PCA.
REDUCTION = ('reduction/matrix', 'reduction/offset')
_EXTERNAL = 1


@dataclasses.dataclass(frozen=True)
class ReceptiveField:
  """The pixels that cell i of a feature map sees; models/backbones/receptive_field.py without Keras."""

  stride: int
  low: int
  high: int

  @property
  def size(self) -> int:
    return self.high - self.low + 1

  @property
  def center(self) -> float:
    """The centre of cell 0, in pixels from the image's edge."""
    return (self.low + self.high + 1) / 2


@dataclasses.dataclass(frozen=True)
class ConvertedNetwork:
  """A network with its weights.

  Attributes:
    path: of the file.
    graph: ONNX, from `images` float32 [B, 3, H, W], normalised, to `attention`, `descriptors` and maybe
      `global_descriptor` (convert.py).
    receptive_field: geometry of the cells.
    input_stride: H and W must be multiples of it.
    mean, deviation: float32 [3], of the normalisation, in the channels' order of the network.
    is_bgr: whether that order is BGR.
    antialias: whether images are resized with antialiasing.
    reduction: the matrix [C, D] and offset [D] of the PCA of normalised descriptors; None: there is none.
  """

  path: pathlib.Path
  graph: onnx_graph_pb2.OnnxModel
  receptive_field: ReceptiveField
  input_stride: int
  mean: np.ndarray
  deviation: np.ndarray
  is_bgr: bool
  antialias: bool
  reduction: tuple[np.ndarray, np.ndarray] | None

  @property
  def outputs(self) -> tuple[str, ...]:
    return tuple(output.name for output in self.graph.graph.output)

  def with_outputs(self, *names: str) -> onnx_graph_pb2.OnnxModel:
    """Returns the part of the graph that some outputs depend on."""
    model = onnx_graph_pb2.OnnxModel()
    model.CopyFrom(self.graph)
    graph = model.graph
    makers = {output: node for node in graph.node for output in node.output}
    needed, waiting = set(names), list(names)
    while waiting:
      node = makers.get(waiting.pop())
      for name in node.input if node else ():
        if name not in needed:
          needed.add(name)
          waiting.append(name)
    _keep(graph.node, lambda node: bool(needed.intersection(node.output)))
    _keep(graph.initializer, lambda tensor: tensor.name in needed)
    _keep(graph.output, lambda output: output.name in names)
    return model


def _keep(field: Any, is_kept: Callable[[Any], bool]) -> None:
  """Removes those messages of a repeated field that are not to be kept."""
  for position in reversed(range(len(field))):
    if not is_kept(field[position]):
      del field[position]


def load(path: str | pathlib.Path, model: str | pathlib.Path) -> ConvertedNetwork:
  """Reads the network that was converted from a SavedModel, with the weights of the latter.

  Args:
    path: the file.
    model: the directory of the SavedModel.

  Raises:
    UserError: the file is missing or damaged, or was converted from another SavedModel.
  """
  path, model = pathlib.Path(path), pathlib.Path(model)
  if not path.is_file():
    raise UserError(
      f'{path}: the converted form of {model} is missing. Install the package again, or set'
      ' extraction.runtime: TENSORFLOW'
    )
  try:
    graph = onnx_graph_pb2.OnnxModel.FromString(path.read_bytes())
    facts = {item.key: json.loads(item.value) for item in graph.metadata_props}
    _fill(graph, facts, model, path)
    return _of(path, graph, facts)
  except (DecodeError, KeyError, TypeError, ValueError, OSError) as error:
    raise UserError(
      f'{path}: damaged, or its SavedModel {model} is ({type(error).__name__}: {error}). Install the package'
      ' again, or set extraction.runtime: TENSORFLOW'
    ) from None


def _of(path: pathlib.Path, graph: onnx_graph_pb2.OnnxModel, facts: dict[str, Any]) -> ConvertedNetwork:
  constants = {tensor.name: tensor for tensor in graph.graph.initializer if tensor.name in REDUCTION}
  reduction = None
  if constants:
    matrix, offset = (value_of(constants[name]) for name in REDUCTION)
    reduction = matrix, offset
  return ConvertedNetwork(
    path,
    graph,
    ReceptiveField(*facts['receptive_field']),
    int(facts['input_stride']),
    np.array(facts['mean'], np.float32),
    np.array(facts['deviation'], np.float32),
    bool(facts['is_bgr']),
    bool(facts['antialias']),
    reduction,
  )


def _fill(
  graph: onnx_graph_pb2.OnnxModel, facts: dict[str, Any], model: pathlib.Path, path: pathlib.Path
) -> None:
  """Writes the weights into their tensors."""

  @functools.cache
  def content(location: str) -> bytes:
    data = (model / location).read_bytes()
    _require_digest(model / location, data, facts['data_sha256'], path)
    return data

  _require_digest(
    model / 'saved_model.pb', (model / 'saved_model.pb').read_bytes(), facts['graph_sha256'], path
  )
  for tensor in graph.graph.initializer:
    if tensor.data_location != _EXTERNAL:
      continue
    place = {entry.key: entry.value for entry in tensor.external_data}
    start, length = int(place['offset']), int(place['length'])
    stored = np.frombuffer(content(place['location'])[start : start + length], np.dtype(place['type']))
    value = stored.reshape([int(side) for side in place['shape'].split()])
    value = value.transpose([int(axis) for axis in place['permutation'].split()])
    tensor.raw_data = np.ascontiguousarray(value, np.float32).tobytes()
    del tensor.external_data[:]
    tensor.ClearField('data_location')


def _require_digest(file: pathlib.Path, data: bytes, expected: str, path: pathlib.Path) -> None:
  found = hashlib.sha256(data).hexdigest()
  if found != expected:
    raise UserError(
      f'{path}: was converted from a SavedModel whose {file.name} has the SHA-256 {expected[:16]}..., but'
      f' {file} has {found[:16]}... Convert the model again, or set extraction.runtime: TENSORFLOW'
    )


def value_of(tensor: onnx_graph_pb2.OnnxTensor) -> np.ndarray:
  """Returns the value of a constant."""
  return np.frombuffer(tensor.raw_data, _DTYPES[tensor.data_type]).reshape(list(tensor.dims))


def add_constant(graph: onnx_graph_pb2.OnnxGraph, name: str, value: np.ndarray) -> None:
  """Adds a constant of one of the types above to a graph."""
  kinds = [kind for kind, dtype in _DTYPES.items() if value.dtype == dtype]
  if not kinds:
    raise ValueError(f'{name}: constants of type {value.dtype} are not converted')
  graph.initializer.add(
    name=name, dims=value.shape, data_type=kinds[0], raw_data=np.ascontiguousarray(value).tobytes()
  )


def add_node(
  graph: onnx_graph_pb2.OnnxGraph,
  operator: str,
  inputs: list[str],
  output: str,
  **attributes: int | list[int],
) -> None:
  """Adds a node with one output, which gives it its name."""
  node = graph.node.add(op_type=operator, name=output, input=inputs, output=[output])
  for key, value in sorted(attributes.items()):
    if isinstance(value, int):
      node.attribute.add(name=key, i=value, type=2)
    else:
      node.attribute.add(name=key, ints=value, type=7)
