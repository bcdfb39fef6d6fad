"""Conversion of the network inside a SavedModel of export_delf to ONNX.

The network alone is converted, from normalised images [B, 3, H, W], H and W multiples of its input stride, to
`attention` [B, 1, h, w], `descriptors` [B, C, h, w] and `global_descriptor` [B, G]; not the image pyramid
around it, whose antialiased resizing ONNX lacks. Weights stay where they are: the file refers to those of the
SavedModel (network_file.py). The same SavedModel gives the same bytes.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from google.protobuf import text_format

from delf_d2r.errors import UserError
from delf_d2r.models.converted import network_file
from delf_d2r.models.converted.network_file import FLOAT32
from delf_d2r.models.delf import export
from delf_d2r.models.delf.network import Delf
from delf_d2r.models.saved_models import inspect
from delf_d2r.protos import delf_model_pb2, onnx_graph_pb2

_IR_VERSION, _OPSET = 8, 17
_ENDPOINTS = '__inference__endpoints_'
_VARIABLES = 'variables/variables'
# Outputs of InferenceNetwork, which TensorFlow saves in the order of their names.
_OUTPUTS = ('attention', 'descriptors', 'global_descriptor')
# Of values of rank 4: NHWC to NCHW.
_AXES = {1: 2, 2: 3, 3: 1}
_CALLS = {'StatefulPartitionedCall': 'f', 'PartitionedCall': 'f', 'While': 'body', 'StatelessWhile': 'body'}


def convert(model: str | pathlib.Path) -> onnx_graph_pb2.OnnxModel:
  """Returns the network of a SavedModel of export_delf.

  Args:
    model: its directory.

  Raises:
    UserError: it is no such SavedModel, or has a part that cannot be converted; the message names it.
  """
  directory = pathlib.Path(model)
  graph = inspect.read_graph(str(directory))
  if not (directory / export.CONFIG).is_file():
    raise UserError(f'{directory}: only models of export_delf can be converted; it has no {export.CONFIG}')
  config = text_format.Parse(
    (directory / export.CONFIG).read_text(encoding='utf-8'), delf_model_pb2.DelfModelConfig()
  )
  functions = {function.signature.name: function for function in graph.graph_def.library.function}
  main = _Scope.of_graph(graph.graph_def)
  scopes = [scope for scope in _scopes(main, functions) if scope.name.startswith(_ENDPOINTS)]
  if not scopes:
    raise UserError(f'{directory}: its graph has no function {_ENDPOINTS}*; export it again by export_delf')
  if any(node.op.startswith('NonMaxSuppression') for scope in functions.values() for node in scope.node_def):
    raise UserError(f'{directory}: models with nms_iou below 1 in their graph cannot be converted')
  variables = _Variables(directory, _checkpoint_keys(main, functions))
  emitter = _Emitter(scopes[0], variables, str(directory))
  names = _OUTPUTS[: 3 if config.global_dimensions else 2]
  emitter.emit_outputs(dict(zip(names, sorted(scopes[0].returned), strict=True)))
  network = Delf(config)
  result = onnx_graph_pb2.OnnxModel(ir_version=_IR_VERSION, producer_name='delf_d2r')
  result.opset_import.add(domain='', version=_OPSET)
  result.graph.CopyFrom(emitter.graph)
  field = network.receptive_field
  mean, deviation = network.backbone.normalization
  facts = {
    'antialias': bool(config.antialias),
    'data_sha256': hashlib.sha256(variables.data).hexdigest(),
    'deviation': deviation,
    'graph_sha256': hashlib.sha256((directory / 'saved_model.pb').read_bytes()).hexdigest(),
    'input_stride': network.input_stride,
    'is_bgr': network.backbone.is_bgr,
    'mean': mean,
    'receptive_field': [field.stride, field.low, field.high],
  }
  for key, value in facts.items():
    result.metadata_props.add(key=key, value=json.dumps(value))
  _add_reduction(result, graph.graph_def, directory)
  return result


def write(model: str | pathlib.Path, output: str | pathlib.Path) -> None:
  """Writes the network of a SavedModel of export_delf to a file; errors are those of `convert`."""
  converted = convert(model)
  pathlib.Path(output).parent.mkdir(parents=True, exist_ok=True)
  pathlib.Path(output).write_bytes(converted.SerializeToString(deterministic=True))


@dataclasses.dataclass(frozen=True)
class _Scope:
  """The nodes of a graph or function by name, and what its arguments are in the outermost graph.

  Attributes:
    name: of the function; '' of the graph.
    nodes: by name.
    bindings: names of arguments to names of variables of the outermost graph.
    returned: names of outputs to tensors.
  """

  name: str
  nodes: dict
  bindings: dict[str, str]
  returned: dict[str, str]

  @classmethod
  def of_graph(cls, graph) -> '_Scope':
    nodes = {node.name: node for node in graph.node}
    handles = {name: name for name, node in nodes.items() if node.op == 'VarHandleOp'}
    return cls('', nodes, handles, {})

  @classmethod
  def of_call(cls, function, outer: '_Scope', inputs) -> '_Scope':
    arguments = (argument.name for argument in function.signature.input_arg)
    bindings = {
      argument: outer.bindings[given.split(':')[0]]
      for argument, given in zip(arguments, inputs, strict=True)
      if given.split(':')[0] in outer.bindings
    }
    nodes = {node.name: node for node in function.node_def}
    returned = {name: function.ret[name] for name in (item.name for item in function.signature.output_arg)}
    return cls(function.signature.name, nodes, bindings, returned)


def _scopes(outer: _Scope, functions: dict):
  """Yields the functions that a graph calls, directly or not, in the order of the calls."""
  for name in outer.nodes:
    node = outer.nodes[name]
    if node.op in _CALLS:
      inputs = [given for given in node.input if not given.startswith('^')]
      scope = _Scope.of_call(functions[node.attr[_CALLS[node.op]].func.name], outer, inputs)
      yield scope
      yield from _scopes(scope, functions)


def _checkpoint_keys(main: _Scope, functions: dict) -> dict[str, str]:
  """Returns the keys of the checkpoint by names of variables, as the graph restores them."""
  keys: dict[str, str] = {}
  for scope in _scopes(main, functions):
    restored = [node for node in scope.nodes.values() if node.op == 'RestoreV2']
    if not restored:
      continue
    names = tf.make_ndarray(scope.nodes[_node(restored[0].input[1])].attr['value'].tensor)
    for node in scope.nodes.values():
      if node.op == 'AssignVariableOp':
        value = node.input[1]
        while scope.nodes[_node(value)].op == 'Identity':
          value = scope.nodes[_node(value)].input[0]
        keys[scope.bindings[node.input[0]]] = names[int(value.rpartition(':')[2])].decode()
  return keys


class _Variables:
  """The values of the variables, and where their bytes are.

  Attributes:
    data: the bytes of the file.
  """

  def __init__(self, directory: pathlib.Path, keys: dict[str, str]):
    prefix = directory / _VARIABLES
    (file,) = prefix.parent.glob('variables.data-*')
    self.data = file.read_bytes()
    self.location = f'{prefix.parent.name}/{file.name}'
    reader = tf.train.load_checkpoint(str(prefix))
    self._values = {name: reader.get_tensor(key) for name, key in keys.items()}
    # Its index has no public reader. Any place with the same bytes is as good as another.
    self._offsets = {name: self.data.find(value.tobytes()) for name, value in self._values.items()}
    missing = [keys[name] for name, offset in self._offsets.items() if offset < 0]
    if missing:
      raise UserError(f'{file}: does not hold the variables {missing} as they are; export it again')

  def __getitem__(self, name: str) -> np.ndarray:
    return self._values[name]

  def entries(self, name: str, permutation: list[int]) -> dict[str, str]:
    """Returns what a tensor's external_data says of the place of a variable."""
    value = self._values[name]
    return {
      'location': self.location,
      'offset': str(self._offsets[name]),
      'length': str(value.nbytes),
      'type': value.dtype.name,
      'shape': ' '.join(map(str, value.shape)),
      'permutation': ' '.join(map(str, permutation)),
    }


class _Emitter:
  """Writes nodes of ONNX for those of a function of TensorFlow."""

  def __init__(self, scope: _Scope, variables: _Variables, place: str):
    self.graph = onnx_graph_pb2.OnnxGraph(name='network')
    self._scope, self._variables, self._place = scope, variables, place
    self._emitted: dict[str, str] = {}
    self._ranks: dict[str, int] = {}
    (images,) = (name for name in _arguments(scope) if name not in scope.bindings)
    self._images = images
    self._emitted[images], self._ranks[images] = 'images', 4
    _declare(self.graph.input, 'images', [None, 3, None, None])

  def emit_outputs(self, outputs: dict[str, str]) -> None:
    """Emits all that leads to the outputs, ONNX's names to those of the function."""
    for name, given in outputs.items():
      tensor = self._emit(self._scope.returned[given])
      self._node('Identity', [tensor], output=name)
      rank = self._ranks[_node(self._scope.returned[given])]
      _declare(self.graph.output, name, [None] * rank)

  def _emit(self, tensor: str) -> str:
    """Emits the node of a tensor of TensorFlow; returns the name of ONNX's."""
    name = _node(tensor)
    if name not in self._emitted:
      node = self._scope.nodes[name]
      handler: Callable | None = getattr(self, f'_{node.op.lower()}', None)
      if handler is None:
        raise UserError(f'{self._place}: its network has a node {node.op} ({name}), which is not converted')
      self._emitted[name] = handler(node)
    return self._emitted[name]

  # What a node of TensorFlow becomes; values of rank 4 are NCHW.

  def _conv2d(self, node, bias: np.ndarray | None = None) -> str:
    kernel = self._weights(node.input[1], [3, 2, 0, 1])
    shape = self._value(node.input[1]).shape
    return self._convolution(node, kernel, shape, 1, bias)

  def _depthwiseconv2dnative(self, node, bias: np.ndarray | None = None) -> str:
    shape = self._value(node.input[1]).shape
    if shape[3] != 1:
      raise UserError(f'{self._place}: {node.name} has several outputs for a channel, which is not converted')
    return self._convolution(node, self._weights(node.input[1], [2, 3, 0, 1]), shape, shape[2], bias)

  def _convolution(self, node, kernel: str, shape, groups: int, bias: np.ndarray | None) -> str:
    strides, dilations = (list(node.attr[name].list.i)[1:3] or [1, 1] for name in ('strides', 'dilations'))
    pads = [0, 0, 0, 0]
    if node.attr['padding'].s == b'SAME':
      # Sides are multiples of the input stride, hence of this one: the same padding for every size.
      totals = [
        max(dilation * (size - 1) + 1 - stride, 0)
        for size, stride, dilation in zip(shape[:2], strides, dilations, strict=True)
      ]
      pads = [total // 2 for total in totals] + [total - total // 2 for total in totals]
    elif node.attr['padding'].s != b'VALID':
      raise UserError(f'{self._place}: {node.name} has explicit padding, which is not converted')
    inputs = [self._emit(node.input[0]), kernel]
    if bias is not None:
      inputs.append(self._constant(f'{node.name}/bias', bias.reshape(-1)))
    self._ranks[node.name] = 4
    return self._node(
      'Conv', inputs, name=node.name, dilations=dilations, group=groups, kernel_shape=list(shape[:2]),
      pads=pads, strides=strides,
    )  # fmt: skip

  def _biasadd(self, node) -> str:
    return self._with_bias(node) or self._binary('Add', node)

  def _addv2(self, node) -> str:
    return self._with_bias(node) or self._binary('Add', node)

  def _with_bias(self, node) -> str:
    """Returns the output of a convolution with its bias; '' if the node adds something else."""
    before = self._scope.nodes.get(_node(node.input[0]))
    bias = self._constant_value(node.input[1])
    if bias is None or before is None or before.op not in ('Conv2D', 'DepthwiseConv2dNative'):
      return ''
    channels = self._value(before.input[1]).shape[3 if before.op == 'Conv2D' else 2]
    if bias.size != channels:
      return ''
    self._ranks[node.name] = 4
    return self._conv2d(before, bias) if before.op == 'Conv2D' else self._depthwiseconv2dnative(before, bias)

  def _mul(self, node) -> str:
    return self._binary('Mul', node)

  def _sub(self, node) -> str:
    return self._binary('Sub', node)

  def _maximum(self, node) -> str:
    return self._binary('Max', node)

  def _pow(self, node) -> str:
    return self._binary('Pow', node)

  def _binary(self, operator: str, node) -> str:
    inputs = []
    ranks = []
    for tensor in node.input[:2]:
      if self._constant_value(tensor) is None:
        inputs.append(self._emit(tensor))
        ranks.append(self._ranks[_node(tensor)])
    rank = max(ranks)
    inputs = [
      self._emit(tensor)
      if self._constant_value(tensor) is None
      else self._constant(f'{node.name}/{k}', _broadcast(self._value(tensor), rank))
      for k, tensor in enumerate(node.input[:2])
    ]
    self._ranks[node.name] = rank
    return self._node(operator, inputs, name=node.name)

  def _unary(self, operator: str, node) -> str:
    result = self._node(operator, [self._emit(node.input[0])], name=node.name)
    self._ranks[node.name] = self._ranks[_node(node.input[0])]
    return result

  def _relu(self, node) -> str:
    return self._unary('Relu', node)

  def _relu6(self, node) -> str:
    for name, value in (('zero', 0.0), ('six', 6.0)):
      if all(item.name != name for item in self.graph.initializer):
        self._constant(name, np.array(value, np.float32))
    result = self._node('Clip', [self._emit(node.input[0]), 'zero', 'six'], name=node.name)
    self._ranks[node.name] = self._ranks[_node(node.input[0])]
    return result

  def _softplus(self, node) -> str:
    return self._unary('Softplus', node)

  def _identity(self, node) -> str:
    self._ranks[node.name] = 4
    result = self._emit(node.input[0])
    self._ranks[node.name] = self._ranks[_node(node.input[0])]
    return result

  _stopgradient = _identity

  def _square(self, node) -> str:
    tensor = self._emit(node.input[0])
    self._ranks[node.name] = self._ranks[_node(node.input[0])]
    return self._node('Mul', [tensor, tensor], name=node.name)

  def _rsqrt(self, node) -> str:
    root = self._node('Sqrt', [self._emit(node.input[0])], name=f'{node.name}/sqrt')
    self._ranks[node.name] = self._ranks[_node(node.input[0])]
    return self._node('Reciprocal', [root], name=node.name)

  def _mean(self, node) -> str:
    axes, keep, tensor = self._reduced(node)
    return self._node('ReduceMean', [tensor], name=node.name, axes=axes, keepdims=keep)

  def _sum(self, node) -> str:
    axes, keep, tensor = self._reduced(node)
    place = self._constant(f'{node.name}/axes', np.array(axes, np.int64))
    return self._node('ReduceSum', [tensor, place], name=node.name, keepdims=keep)

  def _reduced(self, node) -> tuple[list[int], int, str]:
    tensor = self._emit(node.input[0])
    rank = self._ranks[_node(node.input[0])]
    axes = [int(axis) % rank for axis in np.atleast_1d(self._value(node.input[1]))]
    keep = int(node.attr['keep_dims'].b)
    self._ranks[node.name] = rank if keep else rank - len(axes)
    if rank == 4:
      axes = sorted(_AXES[axis] for axis in axes)
    return axes, keep, tensor

  def _matmul(self, node) -> str:
    if node.attr['transpose_a'].b or node.attr['transpose_b'].b:
      raise UserError(f'{self._place}: {node.name} transposes a matrix, which is not converted')
    inputs = [self._emit(node.input[0]), self._weights(node.input[1], [0, 1])]
    self._ranks[node.name] = 2
    return self._node('MatMul', inputs, name=node.name)

  # Constants.

  def _constant_value(self, tensor: str) -> np.ndarray | None:
    """Returns the value of a tensor that does not depend on the images; None if it does."""
    name = _node(tensor)
    if name == self._images:
      return None
    if name in self._scope.bindings:
      return self._variables[self._scope.bindings[name]]
    node = self._scope.nodes[name]
    if node.op == 'Const':
      return tf.make_ndarray(node.attr['value'].tensor)
    inputs = []
    for given in node.input:
      if not given.startswith('^'):
        value = self._constant_value(given)
        if value is None:
          return None
        inputs.append(value)
    return _evaluate(node, inputs, self._place)

  def _value(self, tensor: str) -> np.ndarray:
    value = self._constant_value(tensor)
    if value is None:
      raise UserError(f'{self._place}: {tensor} is no constant, which is not converted')
    return value

  def _weights(self, tensor: str, permutation: list[int]) -> str:
    """Adds a weight as a reference to the variable that it is a cast of; returns its name."""
    name = _node(tensor)
    value = self._value(tensor)
    while name not in self._scope.bindings:
      node = self._scope.nodes[name]
      if node.op not in ('Cast', 'ReadVariableOp', 'Identity'):
        return self._constant(_node(tensor), value.transpose(permutation))
      name = _node(node.input[0])
    variable = self._scope.bindings[name]
    if all(item.name != variable for item in self.graph.initializer):
      stored = self.graph.initializer.add(name=variable, data_type=FLOAT32, data_location=1)
      stored.dims.extend(value.shape[axis] for axis in permutation)
      for key, text in self._variables.entries(variable, permutation).items():
        stored.external_data.add(key=key, value=text)
    return variable

  def _constant(self, name: str, value: np.ndarray) -> str:
    network_file.add_constant(self.graph, name, value)
    return name

  def _node(self, operator: str, inputs: list[str], *, name: str = '', output: str = '', **attributes) -> str:
    output = output or name
    network_file.add_node(self.graph, operator, inputs, output, **attributes)
    return output


def _evaluate(node, inputs: list[np.ndarray], place: str) -> np.ndarray:
  """Returns the value of a node of constants."""
  one = np.float32(1)
  simple: dict[str, Callable] = {
    'ReadVariableOp': lambda value: value,
    'Identity': lambda value: value,
    'Cast': lambda value: value.astype(tf.dtypes.as_dtype(node.attr['DstT'].type).as_numpy_dtype),
    'Reshape': lambda value, shape: value.reshape(shape),
    'Squeeze': lambda value: value.squeeze(tuple(node.attr['squeeze_dims'].list.i) or None),
    'AddV2': lambda a, b: a + b,
    'Sub': lambda a, b: a - b,
    'Mul': lambda a, b: a * b,
    'Rsqrt': lambda value: one / np.sqrt(value),
  }
  if node.op not in simple:
    raise UserError(f'{place}: a constant of its network has a node {node.op}, which is not converted')
  return np.asarray(simple[node.op](*inputs))


def _add_reduction(model: onnx_graph_pb2.OnnxModel, graph, place: pathlib.Path) -> None:
  """Adds the PCA of the graph, matrix [C, D] and offset [D], if there is one, as constants of no node.

  They are the only constants of numbers outside its functions.
  """
  values = [tf.make_ndarray(node.attr['value'].tensor) for node in graph.node if node.op == 'Const']
  values = sorted((value for value in values if value.dtype == np.float32), key=lambda value: -value.ndim)
  if not values:
    return
  shapes = [value.shape for value in values]
  if [len(shape) for shape in shapes] != [2, 1] or shapes[0][1:] != shapes[1]:
    raise UserError(f'{place}: expected the matrix and the offset of a PCA, found constants of {shapes}')
  for name, value in zip(network_file.REDUCTION, values, strict=True):
    network_file.add_constant(model.graph, name, value)


def _arguments(scope: _Scope) -> list[str]:
  """Returns the names of arguments that nodes of a function refer to."""
  given = (_node(name) for node in scope.nodes.values() for name in node.input if not name.startswith('^'))
  return list(dict.fromkeys(name for name in given if name not in scope.nodes))


def _broadcast(value: np.ndarray, rank: int) -> np.ndarray:
  """Returns a constant in the order of axes that values of a rank have in ONNX."""
  if rank != 4 or value.ndim == 0:
    return value
  return value.reshape((1,) * (4 - value.ndim) + value.shape).transpose(0, 3, 1, 2)


def _declare(values, name: str, shape: list[int | None]) -> None:
  info = values.add(name=name)
  info.type.tensor_type.elem_type = FLOAT32
  for axis, length in enumerate(shape):
    if length is None:
      info.type.tensor_type.shape.dim.add(dim_param=f'{name}_{axis}')
    else:
      info.type.tensor_type.shape.dim.add(dim_value=length)


def _node(tensor: str) -> str:
  """Returns the node of a tensor, `node`, `node:output:0` or `^node`."""
  return tensor.removeprefix('^').split(':')[0]
