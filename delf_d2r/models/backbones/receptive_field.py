"""The pixels that a cell of a feature map sees.

Layer by layer from the input on (Araujo, Norris and Sim, Distill 2019): if cell i of a layer's input sees the
pixels s i + low .. s i + high, then with kernel k, dilation d, stride t and padding p before, cell i of its
output sees s t i + low - s p .. s t i + high + s (d (k - 1) - p).
"""

import dataclasses

from keras import layers


@dataclasses.dataclass(frozen=True)
class ReceptiveField:
  """The pixels that cell i of a feature map sees, the same for rows and columns.

  Attributes:
    stride: pixels between neighbouring cells.
    low, high: first and last pixel that cell 0 sees; pixel 0 is the first of the image.
  """

  stride: int
  low: int
  high: int

  @property
  def size(self) -> int:
    return self.high - self.low + 1

  @property
  def center(self) -> float:
    """The centre of cell 0, in pixels from the image's edge: the centre of pixel 0 is at 0.5."""
    return (self.low + self.high + 1) / 2


def of(tensor) -> ReceptiveField:
  """Returns the receptive field of a symbolic Keras tensor on its model's only image input.

  'same' padding puts p = (k - t) // 2 before inputs of even size. The images must be padded to a multiple of
  the stride for that: otherwise p depends on their size.

  Raises:
    ValueError: a layer on the way is none of those that backbones have.
  """
  return _of(tensor, {})


def _of(tensor, known: dict[int, ReceptiveField]) -> ReceptiveField:
  if id(tensor) not in known:
    layer, node, _ = tensor._keras_history
    sources = [_of(source, known) for source in layer._inbound_nodes[node].input_tensors]
    known[id(tensor)] = _after(layer, sources)
  return known[id(tensor)]


def _after(layer, sources: list[ReceptiveField]) -> ReceptiveField:
  if isinstance(layer, layers.InputLayer):
    return ReceptiveField(1, 0, 0)
  if isinstance(layer, layers.Add | layers.Concatenate):
    strides = {source.stride for source in sources}
    if len(strides) != 1:
      raise ValueError(f'{layer.name}: joins feature maps of strides {sorted(strides)}')
    return ReceptiveField(
      strides.pop(), min(source.low for source in sources), max(source.high for source in sources)
    )
  (field,) = sources
  if isinstance(layer, layers.ZeroPadding2D):
    before = layer.padding[0][0]
    return ReceptiveField(field.stride, field.low - field.stride * before, field.high - field.stride * before)
  if isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D):
    return _slide(field, layer.kernel_size[0], layer.strides[0], layer.dilation_rate[0], layer.padding)
  if isinstance(layer, layers.MaxPooling2D | layers.AveragePooling2D):
    return _slide(field, layer.pool_size[0], layer.strides[0], 1, layer.padding)
  if isinstance(layer, layers.BatchNormalization | layers.ReLU | layers.Activation):
    return field
  raise ValueError(f'{layer.name}: the receptive field of a {type(layer).__name__} is not known')


def _slide(field: ReceptiveField, kernel: int, stride: int, dilation: int, padding: str) -> ReceptiveField:
  reach = dilation * (kernel - 1)
  before = max(reach + 1 - stride, 0) // 2 if padding == 'same' else 0
  return ReceptiveField(
    field.stride * stride,
    field.low - field.stride * before,
    field.high + field.stride * (reach - before),
  )
