"""The detector's network: backbones, weights, what is frozen, and the way from photos to boxes."""

import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose, assert_array_equal
from support import tiny_detector_training

from delf_d2r.errors import UserError
from delf_d2r.models.backbones import efficientnet_lite, zoo
from delf_d2r.models.detector import detector_backbones, model_garden, network

tiny_detector_training.require_official()

pytestmark = [
  pytest.mark.slow,
  pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning'),
]


def build(*changes, **options):
  model_garden.keras().utils.set_random_seed(1)
  return network.Detector(
    tiny_detector_training.load(tiny_detector_training.TINY, *changes).detector_training.model, **options
  )


@pytest.fixture(scope='module')
def tiny():
  return build()


@pytest.mark.parametrize('module', ['official.vision.tasks.retinanet', 'tf_keras'])
def test_missing_package_is_named(monkeypatch, module):
  monkeypatch.setitem(__import__('sys').modules, module, None)
  with pytest.raises(UserError, match=r"tf-models-official.*pip install 'delf_d2r\[detector\]'"):
    build()


def test_backbone_computes_what_that_of_delf_does():
  tiny_detector_training.require_wheel()
  built = build('model { backbone_weights: "imagenet" }')
  ours = zoo.build('EFFICIENTNET_LITE0', endpoints=('conv3', 'conv5'), weights='imagenet')
  images = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)
  found = built.network.backbone(detector_backbones.normalize(built.config, images), training=False)
  expected = ours(ours.normalize(tf.constant(images)))
  for level, endpoint in (('3', 'conv3'), ('5', 'conv5')):
    assert_allclose(found[level], expected[endpoint], atol=1e-4)


@pytest.mark.parametrize('levels, first_trained', [(0, 'stem_conv'), (3, 'block_5_expand_conv'), (5, None)])
def test_frozen_levels(levels, first_trained):
  whole = efficientnet_lite.build(framework=model_garden.keras())
  outputs = {
    level: whole.get_layer(name).output
    for level, name in (('3', 'block_4_add'), ('5', 'block_15_project_bn'))
  }
  backbone = model_garden.keras().Model(whole.input, outputs)
  detector_backbones.freeze(backbone, levels=levels, batch_norm=True)
  trained = [layer.name for layer in backbone.layers if layer.trainable_weights]
  assert (trained or [None])[0] == first_trained
  assert not any(name.endswith('_bn') for name in trained)


@pytest.mark.parametrize('weights', ['imagenet', '/nowhere/ckpt-1'])
def test_weights_that_are_not_there(weights):
  config = tiny_detector_training.load(
    tiny_detector_training.TINY, f'model {{ backbone: RESNET50 backbone_weights: "{weights}" }}'
  )
  with pytest.raises(UserError, match='no weights for RESNET50'):
    detector_backbones.load_weights(None, config.detector_training.model)
  config = tiny_detector_training.load(
    tiny_detector_training.TINY, f'model {{ backbone_weights: "{weights}x" }}'
  )
  with pytest.raises(UserError, match='no such file of weights for EFFICIENTNET_LITE0'):
    detector_backbones.load_weights(None, config.detector_training.model)


# Weights.


def test_weights_round_trip_whatever_is_frozen(tiny, tmp_path):
  detector_backbones.freeze(tiny.network.backbone, levels=3, batch_norm=True)
  tiny.save(tmp_path / 'x.weights.npz')
  tiny.network.backbone.trainable = True
  other = build('model { min_score: 0.2 max_detections: 3 }')
  other.network.variables[0].assign_add(tf.ones_like(other.network.variables[0]))
  other.load(tmp_path / 'x.weights.npz')
  for a, b in zip(tiny.network.variables, other.network.variables, strict=True):
    assert_array_equal(a.numpy(), b.numpy())


def test_weights_of_another_detector_are_refused(tiny, tmp_path):
  tiny.save(tmp_path / 'x.weights.npz')
  other = build('model { pyramid_filters: 8 }')
  with pytest.raises(UserError, match='a detector with pyramid_filters 16, this one has 8'):
    other.load(tmp_path / 'x.weights.npz')
  for content in (b'', b'no zip file', (tmp_path / 'x.weights.npz').read_bytes()[:-100]):
    (tmp_path / 'bad.weights.npz').write_bytes(content)
    with pytest.raises(UserError, match='not the weights of this detector'):
      tiny.load(tmp_path / 'bad.weights.npz')
  with pytest.raises(UserError, match='no such file'):
    tiny.load(tmp_path / 'nowhere.weights.npz')


# From photos to boxes.


@pytest.mark.parametrize('shape, expected', [((96, 48), (64, 32)), ((20, 40), (32, 64)), ((1, 500), (1, 64))])
def test_photos_are_fitted_into_the_square(tiny, shape, expected):
  images = np.full((1, *shape, 3), 255, np.uint8)
  squares, size = tiny.letterbox(images)
  assert size.numpy().tolist() == list(expected)
  colours = detector_backbones.denormalize(tiny.config, squares).numpy()
  h, w = expected
  assert_allclose(colours[0, :h, :w], 255, atol=1e-3)
  # The padding is the mean colour.
  assert_allclose(colours[0, h:], 127, atol=1e-3)
  assert_allclose(colours[0, :, w:], 127, atol=1e-3)


def test_boxes_are_relative_to_the_photo_and_have_an_area(tiny, monkeypatch):
  # A photo twice as high as wide fills the left half of the square of 64 pixels.
  found = {
    'boxes': tf.constant([[[0, 0, 64, 32], [10, 32, 20, 64], [16, 8, 32, 40], [1, 1, 2, 2]]], tf.float32),
    'scores': tf.constant([[0.9, 0.8, 0.7, 0.6]]),
    'counts': tf.constant([3]),
  }
  monkeypatch.setattr(tiny.architecture, 'detect', lambda images, shapes: found)
  result = tiny.detect(np.zeros((1, 200, 100, 3), np.uint8))
  assert result['counts'].numpy().tolist() == [2]
  assert_allclose(result['boxes'][0], [[0, 0, 1, 1], [0.25, 0.25, 0.5, 1], [0] * 4, [0] * 4])
  assert_allclose(result['scores'][0], [0.9, 0.7, 0, 0])
