"""AlexNet in the form of Krizhevsky, "One weird trick", 2014, and of torchvision.

Radenovic et al. (TPAMI 2019) pool it. Unlike the network of 2012 it has neither groups nor local response
normalisation. Keras Applications has no AlexNet.
"""

import pathlib

import keras
import numpy as np
from keras import layers

from delf_d2r.data.foreign import torch_checkpoint
from delf_d2r.errors import UserError

# Channels, kernel, stride, padding, and whether a pool of 3 x 3 cells and stride 2 follows.
_CONVOLUTIONS = (
  (64, 11, 4, 2, True),
  (192, 5, 1, 2, True),
  (384, 3, 1, 1, False),
  (256, 3, 1, 1, False),
  (256, 3, 1, 1, True),
)
# By stride, as in the other backbones: the last convolution has 16, and GeM pools it.
ENDPOINTS = {'conv2': 'conv1', 'conv3': 'conv2', 'conv4': 'conv5', 'conv5': 'pool5'}
# torchvision numbers the layers in between, too.
_TORCH_NAMES = {'conv1': 0, 'conv2': 3, 'conv3': 6, 'conv4': 8, 'conv5': 10}


def build() -> keras.Model:
  """Returns AlexNet without its classifier, of random weights: float [B, H, W, 3] to [B, H', W', 256]."""
  images = x = keras.Input((None, None, 3), name='images')
  for number, (channels, kernel, stride, padding, pooled) in enumerate(_CONVOLUTIONS, start=1):
    # 'same' would pad by the size of the image; torch always pads alike.
    x = layers.ZeroPadding2D(padding, name=f'pad{number}')(x)
    x = layers.Conv2D(channels, kernel, stride, activation='relu', name=f'conv{number}')(x)
    if pooled:
      x = layers.MaxPooling2D(3, 2, name=f'pool{number}')(x)
  return keras.Model(images, x, name='alexnet')


def load_torch_weights(model: keras.Model, path: str | pathlib.Path) -> None:
  """Fills a model of `build` from torchvision's checkpoint.

  Raises:
    UserError: a tensor is missing or of another shape.
  """
  tensors = torch_checkpoint.load(path)
  for name, number in _TORCH_NAMES.items():
    layer = model.get_layer(name)
    kernel, bias = (_tensor(tensors, f'features.{number}.{kind}', path) for kind in ('weight', 'bias'))
    # OIHW to HWIO.
    values = [kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel, bias]
    for value, weight in zip(values, layer.weights, strict=True):
      if value.shape != tuple(weight.shape):
        raise UserError(
          f'{path}: {name} has shape {value.shape}, expected {tuple(weight.shape)}; give weights of AlexNet'
        )
    layer.set_weights(values)


def _tensor(tensors, name: str, path) -> np.ndarray:
  if name not in tensors:
    raise UserError(f"{path}: has no tensor {name}; expected torchvision's checkpoint of AlexNet")
  return tensors[name]
