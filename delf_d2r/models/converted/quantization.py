"""Eight-bit arithmetic for a converted network: convolutions of uint8 activations and int8 weights.

A tensor x is stored as q = round(x / s) + z with a scale s and a zero z that cover the range that it had on
photos of calibration; a weight has a scale for each output channel and no zero (Jacob et al., CVPR 2018). The
graph says so by pairs of QuantizeLinear and DequantizeLinear, which runtimes turn into integer convolutions.
The first convolutions, whose few channels lose the most, and those of attention alone, which decides an
order, stay in float32.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from delf_d2r.errors import UserError
from delf_d2r.models.converted import network_file
from delf_d2r.models.converted.network_file import ConvertedNetwork
from delf_d2r.protos import onnx_graph_pb2

# The ranges lie beside the file of the network.
CALIBRATION = 'calibration.json'
# Stem, and the first block's depthwise convolution and projection.
_FLOAT_CONVOLUTIONS = 3
_DESCRIPTORS = ('descriptors', 'global_descriptor')
# Shares of values beyond the range on each side; a few outliers would cost all others digits.
_PERCENTILES = (0.01, 99.99)
_LEVELS = 255
_LARGEST_WEIGHT = 127
# Biases are int32 in units of both scales.
_LARGEST_BIAS = 2**30

Ranges = Mapping[str, tuple[float, float]]


def quantized(network: ConvertedNetwork) -> ConvertedNetwork:
  """Returns the network with the ranges of its calibration.

  Raises:
    UserError: there is no calibration beside its file, or that of another network.
  """
  place = network.path.parent / CALIBRATION
  try:
    found = json.loads(place.read_text(encoding='utf-8'))
    ranges = {name: (float(low), float(high)) for name, (low, high) in found['ranges'].items()}
    digest = found['network_sha256']
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(
      f'{place}: the calibration of {network.path} is missing or damaged ({error}). Install the package'
      ' again, or set extraction.precision: FLOAT32'
    ) from None
  if digest != _digest(network.path):
    raise UserError(
      f'{place}: belongs to another network than {network.path}. Calibrate again, or set'
      ' extraction.precision: FLOAT32'
    )
  return with_ranges(network, ranges)


def with_ranges(network: ConvertedNetwork, ranges: Ranges) -> ConvertedNetwork:
  """Returns the network with eight-bit convolutions; `ranges` has those of all `activations`."""
  model = onnx_graph_pb2.OnnxModel()
  model.CopyFrom(network.graph)
  _Quantizer(model.graph, {name: ranges[name] for name in activations(network)}).rewrite()
  return dataclasses.replace(network, graph=model)


def calibrate(
  network: ConvertedNetwork, run: Callable[[np.ndarray], list[np.ndarray]], inputs: Iterable[np.ndarray]
) -> dict[str, tuple[float, float]]:
  """Returns the range of every tensor of `activations` over some inputs of the network.

  Args:
    network: the network.
    run: computes these tensors (see `observed`), in their order.
    inputs: float32 [1, 3, H, W].
  """
  names = activations(network)
  lows, highs = np.full(len(names), np.inf), np.full(len(names), -np.inf)
  for images in inputs:
    found = np.array([np.percentile(value, _PERCENTILES) for value in run(images)])
    lows, highs = np.minimum(lows, found[:, 0]), np.maximum(highs, found[:, 1])
  # Four digits are as good, and the same on every machine.
  return {
    name: (float(f'{low:.4g}'), float(f'{high:.4g}'))
    for name, low, high in zip(names, lows, highs, strict=True)
  }


def observed(network: ConvertedNetwork) -> ConvertedNetwork:
  """Returns the network with the tensors of `activations` as further outputs."""
  model = onnx_graph_pb2.OnnxModel()
  model.CopyFrom(network.graph)
  for name in activations(network):
    info = model.graph.output.add(name=name)
    info.type.tensor_type.elem_type = network_file.FLOAT32
  return dataclasses.replace(network, graph=model)


def write_calibration(network: ConvertedNetwork, ranges: Ranges, *, photos: str) -> None:
  """Writes the calibration beside the file of the network; `photos` says what it was made on."""
  content = {
    'photos': photos,
    'network_sha256': _digest(network.path),
    'ranges': {name: list(ranges[name]) for name in sorted(ranges)},
  }
  place = network.path.parent / CALIBRATION
  place.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')


def activations(network: ConvertedNetwork) -> list[str]:
  """Returns the tensors that are stored in eight bits: what convolutions and sums of blocks return."""
  kept = set(_float_convolutions(network.graph.graph))
  readers = _readers(network.graph.graph)
  found: list[str] = []
  quantized_before: set[str] = set()
  for node in network.graph.graph.node:
    (output,) = node.output
    if node.op_type == 'Conv' and node.name not in kept:
      following = readers.get(output, [])
      is_clipped = len(following) == 1 and following[0].op_type in ('Clip', 'Relu')
      name = following[0].output[0] if is_clipped else output
    elif node.op_type == 'Add' and quantized_before.issuperset(node.input):
      name = output
    else:
      # The output of the last convolution in float32 is the input of the first one in eight bits.
      following = readers.get(output, [])
      if not any(reader.op_type == 'Conv' and reader.name not in kept for reader in following):
        continue
      name = output
    if name not in quantized_before:
      found.append(name)
      quantized_before.add(name)
  return found


def _float_convolutions(graph: onnx_graph_pb2.OnnxGraph) -> list[str]:
  """Returns the names of the convolutions that stay in float32."""
  makers = {output: node for node in graph.node for output in node.output}
  leading: set[str] = set()
  waiting = [output.name for output in graph.output if output.name in _DESCRIPTORS]
  while waiting:
    node = makers.get(waiting.pop())
    if node and node.name not in leading:
      leading.add(node.name)
      waiting += node.input
  convolutions = [node.name for node in graph.node if node.op_type == 'Conv']
  return convolutions[:_FLOAT_CONVOLUTIONS] + [name for name in convolutions if name not in leading]


def _readers(graph: onnx_graph_pb2.OnnxGraph) -> dict[str, list[onnx_graph_pb2.OnnxNode]]:
  readers: dict[str, list[onnx_graph_pb2.OnnxNode]] = {}
  for node in graph.node:
    for name in node.input:
      readers.setdefault(name, []).append(node)
  return readers


class _Quantizer:
  """Rewrites a graph in place."""

  def __init__(self, graph: onnx_graph_pb2.OnnxGraph, ranges: Ranges):
    self._graph, self._ranges = graph, ranges
    self._constants = {
      tensor.name: network_file.value_of(tensor) for tensor in graph.initializer if not tensor.external_data
    }
    self._float = set(_float_convolutions(graph))
    # Tensors in eight bits: their names after a round trip, and their scales.
    self._stored: dict[str, tuple[str, np.float32]] = {}

  def rewrite(self) -> None:
    nodes = [onnx_graph_pb2.OnnxNode.FromString(node.SerializeToString()) for node in self._graph.node]
    del self._graph.node[:]
    replaced = set()
    for node in nodes:
      inputs = list(node.input)
      node.input[:] = [self._stored[name][0] if name in self._stored else name for name in inputs]
      if node.op_type == 'Conv' and node.name not in self._float and inputs[0] in self._stored:
        node.input[1:] = self._weights(inputs, self._stored[inputs[0]][1])
        replaced.update(inputs[1:])
      self._graph.node.add().CopyFrom(node)
      if node.output[0] in self._ranges:
        self._store(node.output[0])
    still_read = {name for node in self._graph.node for name in node.input}
    kept = [
      onnx_graph_pb2.OnnxTensor.FromString(tensor.SerializeToString())
      for tensor in self._graph.initializer
      if tensor.name not in replaced or tensor.name in still_read
    ]
    del self._graph.initializer[:]
    self._graph.initializer.extend(kept)

  def _store(self, name: str) -> None:
    """Adds the round trip of an activation through eight bits, whose range includes 0."""
    low, high = min(self._ranges[name][0], 0.0), max(self._ranges[name][1], 1e-6)
    scale = np.float32((high - low) / _LEVELS)
    zero = np.uint8(np.clip(np.rint(-low / scale), 0, _LEVELS))
    self._round_trip(name, np.array(scale), np.array(zero))
    self._stored[name] = f'{name}/restored', scale

  def _round_trip(self, name: str, scale: np.ndarray, zero: np.ndarray) -> None:
    network_file.add_constant(self._graph, f'{name}/scale', scale)
    network_file.add_constant(self._graph, f'{name}/zero', zero)
    parameters = [f'{name}/scale', f'{name}/zero']
    network_file.add_node(self._graph, 'QuantizeLinear', [name, *parameters], f'{name}/stored')
    network_file.add_node(
      self._graph, 'DequantizeLinear', [f'{name}/stored', *parameters], f'{name}/restored'
    )

  def _weights(self, inputs: list[str], input_scale: np.float32) -> list[str]:
    """Adds the kernel and the bias of a convolution as integers; returns the names of their values."""
    kernel, bias = (self._constants[name] for name in inputs[1:3])
    largest = np.abs(kernel).reshape(len(kernel), -1).max(axis=1)
    # The second keeps the biases of channels without weights within int32.
    scales = np.maximum(largest / _LARGEST_WEIGHT, np.abs(bias) / (input_scale * _LARGEST_BIAS))
    scales = np.maximum(scales, np.finfo(np.float32).tiny).astype(np.float32)
    integers = np.rint(kernel / scales.reshape(-1, 1, 1, 1)).astype(np.int8)
    bias_scales = (scales * input_scale).astype(np.float32)
    biases = np.rint(bias / np.maximum(bias_scales, np.finfo(np.float32).tiny)).astype(np.int32)
    names = []
    for name, value, scale in ((inputs[1], integers, scales), (inputs[2], biases, bias_scales)):
      network_file.add_constant(self._graph, f'{name}/integers', value)
      network_file.add_constant(self._graph, f'{name}/scales', scale)
      network_file.add_constant(self._graph, f'{name}/zeros', np.zeros(len(scale), value.dtype))
      network_file.add_node(
        self._graph,
        'DequantizeLinear',
        [f'{name}/integers', f'{name}/scales', f'{name}/zeros'],
        f'{name}/restored',
        axis=0,
      )
      names.append(f'{name}/restored')
    return names


def _digest(path: pathlib.Path) -> str:
  return hashlib.sha256(path.read_bytes()).hexdigest()
