"""Networks of patches: files of ONNX and SavedModels of both layouts, and what is none."""

import sys

import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose
from support.onnx_models import write_linear

from delf_d2r.errors import UserError
from delf_d2r.models.saved_models import patches as patch_network

MATRIX = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)
PATCHES = np.random.default_rng(1).uniform(size=(600, 8, 8)).astype(np.float32)


@pytest.fixture
def linear(tmp_path):
  pytest.importorskip('onnxruntime', reason='files of ONNX need the package onnxruntime')
  return lambda shape: str(write_linear(tmp_path / 'linear.onnx', MATRIX, input_shape=shape))


def write_saved_model(path, shape, function=lambda x: tf.reshape(x, (-1, 64)) @ MATRIX):
  served = tf.function(lambda patches: {'descriptors': function(patches)})
  concrete = served.get_concrete_function(tf.TensorSpec(shape, tf.float32, name='patches'))
  tf.saved_model.save(tf.Module(), str(path), signatures={'serving_default': concrete})
  return str(path)


@pytest.mark.parametrize('shape', [('N', 1, 8, 8), ('N', 8, 8, 1), ('N', 1, 'S', 'S')])
def test_onnx(linear, shape):
  network = patch_network.load(linear(shape), patch_size=8)
  assert (network.patch_size, network.dimensions) == (8, 5)
  assert_allclose(network(PATCHES), PATCHES.reshape(-1, 64) @ MATRIX, rtol=1e-4, atol=1e-5)
  assert network(PATCHES[:0]).shape == (0, 5)


@pytest.mark.parametrize('shape', [(None, 1, 8, 8), (None, None, None, 1)])
def test_saved_model(tmp_path, shape):
  network = patch_network.load(write_saved_model(tmp_path / 'model', shape), patch_size=8)
  assert (network.patch_size, network.dimensions) == (8, 5)
  assert_allclose(network(PATCHES), PATCHES.reshape(-1, 64) @ MATRIX, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  ('shape', 'message'),
  [
    ((None, 3, 8, 8), r'grey patches, found \[None, 3, 8, 8\]'),
    ((None, 64), r'grey patches, found \[None, 64\]'),
    ((None, 1, 8, 16), 'square patches, found 8 x 16'),
  ],
)
def test_other_inputs_are_refused(tmp_path, shape, message):
  path = write_saved_model(tmp_path / 'model', shape, lambda x: tf.reshape(x, (-1, 1)))
  with pytest.raises(UserError, match=message):
    patch_network.load(path, patch_size=8)


def test_maps_are_no_descriptors(tmp_path):
  path = write_saved_model(tmp_path / 'model', (None, 1, 8, 8), lambda x: x)
  with pytest.raises(UserError, match=r'expected an output \[N, D\], found \[1, 1, 8, 8\]'):
    patch_network.load(path, patch_size=8)


def test_what_is_not_there(tmp_path, linear):
  with pytest.raises(UserError, match='no such file of ONNX'):
    patch_network.load(str(tmp_path / 'x.onnx'), patch_size=8)
  (tmp_path / 'damaged.onnx').write_bytes(b'not a model')
  with pytest.raises(UserError, match='cannot be read as ONNX'):
    patch_network.load(str(tmp_path / 'damaged.onnx'), patch_size=8)
  with pytest.raises(UserError, match='neither a directory nor a handle'):
    patch_network.load(str(tmp_path / 'nowhere'), patch_size=8)


def test_without_onnxruntime(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'onnxruntime', None)
  with pytest.raises(UserError, match='needs the package onnxruntime'):
    patch_network.load(str(tmp_path / 'x.onnx'), patch_size=8)
