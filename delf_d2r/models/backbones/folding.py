"""Batch normalisation folded into the convolutions before it: the same function in fewer passes over memory.

With the moving statistics m, v, scale g and offset b, (w x + c - m) g / sqrt(v + e) + b is the convolution by
w' = w g / sqrt(v + e) with the bias c' = (c - m) g / sqrt(v + e) + b.
"""

import keras
import numpy as np
from keras import layers


def fold(model: keras.Model, outputs: dict) -> keras.Model:
  """Returns a functional model for inference that shares no convolution with `model`.

  Args:
    model: with one input.
    outputs: symbolic tensors of it, by the names that the new model gives them.
  """
  inputs = keras.Input(model.input.shape[1:], name='images')
  rebuilt = {id(model.input): inputs}
  consumers = _count_consumers(list(outputs.values()))
  folded = {name: _rebuild(tensor, rebuilt, consumers) for name, tensor in outputs.items()}
  return keras.Model(inputs, folded, name=f'{model.name}_folded')


def layers_until(tensor) -> list[keras.layers.Layer]:
  """Returns the layers that a symbolic tensor depends on."""
  found: dict[int, keras.layers.Layer] = {}
  waiting = [tensor]
  while waiting:
    layer, sources = _source(waiting.pop())
    if id(layer) not in found:
      found[id(layer)] = layer
      waiting += sources
  return list(found.values())


def _source(tensor):
  layer, node, _ = tensor._keras_history
  return layer, layer._inbound_nodes[node].input_tensors


def _count_consumers(tensors: list) -> dict[int, int]:
  """Returns how many layers read each tensor that leads to `tensors`; these count as read once more."""
  counts: dict[int, int] = {}
  waiting = list(tensors)
  while waiting:
    tensor = waiting.pop()
    counts[id(tensor)] = counts.get(id(tensor), 0) + 1
    if counts[id(tensor)] == 1:
      waiting += _source(tensor)[1]
  return counts


def _rebuild(tensor, rebuilt: dict, consumers: dict[int, int]):
  if id(tensor) not in rebuilt:
    layer, sources = _source(tensor)
    if isinstance(layer, layers.BatchNormalization):
      before, before_sources = _source(sources[0])
      if _is_linear_convolution(before) and consumers[id(sources[0])] == 1:
        start = _rebuild(before_sources[0], rebuilt, consumers)
        rebuilt[id(tensor)] = _folded(before, layer, start)
        return rebuilt[id(tensor)]
    inputs = [_rebuild(source, rebuilt, consumers) for source in sources]
    rebuilt[id(tensor)] = layer(inputs if len(inputs) > 1 else inputs[0])
  return rebuilt[id(tensor)]


def _is_linear_convolution(layer) -> bool:
  is_convolution = isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D)
  return is_convolution and layer.activation is keras.activations.linear


def _folded(convolution, norm: layers.BatchNormalization, inputs):
  config = {**convolution.get_config(), 'use_bias': True}
  layer = type(convolution).from_config(config)
  outputs = layer(inputs)
  kernel, *bias = convolution.get_weights()
  factor = 1 / np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
  if norm.scale:
    factor = factor * norm.gamma.numpy()
  offset = (sum(bias) - norm.moving_mean.numpy()) * factor
  if norm.center:
    offset = offset + norm.beta.numpy()
  # A depthwise kernel [h, w, C, 1] has its output channels second to last.
  is_depthwise = isinstance(convolution, layers.DepthwiseConv2D)
  layer.set_weights([kernel * (factor[:, None] if is_depthwise else factor), offset])
  return outputs
