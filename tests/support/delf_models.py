"""Small networks and SavedModels for tests of DELF."""

import functools

import keras
import numpy as np

from delf_d2r.models.delf import export, network
from delf_d2r.protos import delf_model_pb2

# The first five blocks of EfficientNet-Lite0, random weights: stride 8.
TINY = {'endpoint': 'conv3', 'reduced_dimensions': 16, 'attention_channels': 8}


def make_model(**fields) -> network.Delf:
  """Returns a network with nontrivial batch normalisation and varying attention."""
  keras.utils.set_random_seed(1)
  model = network.Delf(delf_model_pb2.DelfModelConfig(**{**TINY, **fields}))
  generator = np.random.default_rng(2)
  for layer in model._flatten_layers():
    if isinstance(layer, keras.layers.BatchNormalization):
      layer.set_weights([generator.uniform(0.8, 1.2, weight.shape) for weight in layer.get_weights()])
  return model


@functools.cache
def tiny_model() -> network.Delf:
  return make_model()


@functools.cache
def tiny_module() -> export.LocalFeatureModule:
  return export.LocalFeatureModule(tiny_model())


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
  """Returns smooth noise, which resizing changes little: uint8 [height, width, 3]."""
  generator = np.random.default_rng(seed)
  coarse = generator.uniform(0, 256, (-(-height // 8) + 1, -(-width // 8) + 1, 3))
  fine = np.kron(coarse, np.ones((8, 8, 1)))
  return fine[:height, :width].astype(np.uint8)
