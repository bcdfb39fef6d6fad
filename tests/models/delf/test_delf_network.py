"""The network: which endpoints it gives, what gradients reach, and that weights survive a file."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose, assert_array_equal
from support.delf_models import make_model, tiny_model

from delf_d2r.errors import UserError
from delf_d2r.models.delf import heads, pyramid
from delf_d2r.models.delf.inference import InferenceNetwork
from delf_d2r.protos import delf_model_pb2

pytestmark = [
  pytest.mark.slow,
  pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning'),
]
IMAGES = tf.random.stateless_normal((2, 64, 48, 3), seed=(1, 2))
L2_NORM = delf_model_pb2.DelfModelConfig.L2_NORM


def test_endpoints_of_extraction():
  found = tiny_model()(IMAGES)
  shapes = {name: tuple(value.shape) for name, value in found.items()}
  assert shapes == {
    'features': (2, 8, 6, 40),
    'descriptors': (2, 8, 6, 16),
    'reduced': (2, 8, 6, 16),
    'expanded': (2, 8, 6, 40),
    'attention': (2, 8, 6, 1),
  }
  assert np.all(found['attention'].numpy() > 0)
  assert_array_equal(found['descriptors'], found['reduced'])


def test_attention_is_softplus_of_two_1x1_convolutions():
  model = tiny_model()
  outputs = model(IMAGES)
  kernel, bias, gamma, beta, mean, variance, score, score_bias = (
    weight.numpy() for weight in [*model.attention.weights[:2], *model.attention.weights[2:]]
  )
  hidden = outputs['expanded'].numpy() @ kernel[0, 0] + bias
  hidden = np.maximum((hidden - mean) / np.sqrt(variance + 1e-3) * gamma + beta, 0)
  expected = np.log1p(np.exp(hidden @ score[0, 0] + score_bias))
  assert_allclose(outputs['attention'], expected, rtol=1e-4)


def test_heads_of_training_and_of_delg():
  model = make_model(num_classes=5, classifier_endpoint='conv4', global_dimensions=12)
  found = model(IMAGES, training=True, labels=tf.constant([1, 3]))
  for name in ('descriptor_logits', 'attention_logits', 'global_logits'):
    assert found[name].shape == (2, 5)
  assert found['global_descriptor'].shape == (2, 12)
  pooled = heads.attended_mean(found['features'], found['attention'])
  assert_allclose(found['attention_logits'], model.attention_classifier(pooled), rtol=1e-5)
  # The regularisers of the attention head are there for a training loop to add.
  decay = 1e-4 * sum(float(tf.reduce_sum(w**2)) for w in model.attention.weights if 'kernel' in w.path)
  assert_allclose(sum(map(float, model.losses)), decay, rtol=1e-5)


def test_untrained_attention_is_the_length_of_features():
  model = make_model(attention=L2_NORM, reduced_dimensions=0, smoothing=3)
  found = model(IMAGES)
  assert model.dimensions == 40
  assert_allclose(found['attention'][..., 0], np.linalg.norm(found['descriptors'], axis=-1), rtol=1e-5)
  raw = make_model(attention=L2_NORM, reduced_dimensions=0)(IMAGES)['features'].numpy()
  assert_allclose(found['features'][0, 3, 3], raw[0, 2:5, 2:5].mean((0, 1)), rtol=1e-4, atol=1e-6)
  # Cells at the border average over those that exist.
  assert_allclose(found['features'][0, 0, 0], raw[0, :2, :2].mean((0, 1)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('reaches', [False, True])
def test_heads_train_the_backbone_only_if_told(reaches):
  model = make_model(heads_train_backbone=reaches)
  with tf.GradientTape() as tape:
    found = model(IMAGES, training=True)
    loss = tf.reduce_sum(found['attention']) + tf.reduce_sum(found['expanded'])
  gradients = tape.gradient(loss, model.trainable_variables)
  stem = [g for g, v in zip(gradients, model.trainable_variables, strict=True) if 'stem_conv' in v.path]
  assert (stem[0] is not None and float(tf.norm(stem[0])) > 0) == reaches
  head = [g for g, v in zip(gradients, model.trainable_variables, strict=True) if 'hidden_conv' in v.path]
  assert float(tf.norm(head[0])) > 0


def test_arcface_adds_its_margin_to_the_right_class():
  layer = heads.ArcFace(3, margin=0.2, scale=10.0)
  keras.utils.set_random_seed(0)
  embeddings = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
  plain = layer(embeddings).numpy()
  unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
  centers = layer.centers.numpy() / np.linalg.norm(layer.centers.numpy(), axis=0)
  assert_allclose(plain, 10 * unit @ centers, atol=1e-4)
  labels = np.array([0, 1, 2, 1])
  expected = plain.copy()
  rows = np.arange(4)
  expected[rows, labels] = 10 * np.cos(np.arccos(plain[rows, labels] / 10) + 0.2)
  assert_allclose(layer(embeddings, tf.constant(labels)), expected, atol=1e-3)


def test_arcface_leaves_opposite_embeddings_alone():
  layer = heads.ArcFace(2, margin=0.2, scale=1.0)
  layer.build((None, 2))
  layer.centers.assign([[1.0, 0.0], [0.0, 1.0]])
  opposite = tf.constant([[-1.0, 0.0]])
  assert_allclose(layer(opposite, tf.constant([0])), layer(opposite), atol=1e-5)


def test_gem_is_the_generalised_mean():
  features = np.random.default_rng(0).uniform(0, 50, (2, 3, 4, 5)).astype(np.float32)
  expected = (features.astype(float) ** 3).mean((1, 2)) ** (1 / 3)
  assert_allclose(heads.GeneralizedMean(3.0)(features), expected, rtol=1e-5)
  assert np.isfinite(heads.GeneralizedMean(3.0)(np.full((1, 2, 2, 1), 60, np.float16))).all()


def test_inference_network_is_the_same_function_without_what_training_needs():
  model = make_model(num_classes=5, classifier_endpoint='conv4', global_dimensions=12)
  network = InferenceNetwork(model)
  expected, found = model(IMAGES), network(IMAGES)
  assert set(found) == {'attention', 'descriptors', 'global_descriptor'}
  for name, value in found.items():
    assert_allclose(value, expected[name], rtol=1e-4, atol=1e-5 * np.abs(expected[name]).max())
  assert len(network.variables) < len(model.variables)
  with pytest.raises(ValueError, match='cannot be trained'):
    network(IMAGES, training=True)


def test_weights_survive_a_file_and_fit_only_their_config(tmp_path):
  path = tmp_path / 'x.weights.h5'
  model = tiny_model()
  model.save(path)
  other = make_model()
  for variable in other.variables:
    variable.assign(tf.ones_like(variable))
  other.load(path)
  for name, value in model(IMAGES).items():
    assert_array_equal(other(IMAGES)[name], value)
  with pytest.raises(UserError, match='with reduced_dimensions 16, this one has 0'):
    make_model(reduced_dimensions=0).load(path)
  with pytest.raises(UserError, match='not the weights of this model'):
    make_model(num_classes=3, classifier_endpoint='conv3').load(path)
  path.write_bytes(b'no hdf5')
  with pytest.raises(UserError, match='not the weights of this model'):
    other.load(path)
  with pytest.raises(UserError, match='no such file'):
    model.load(tmp_path / 'y.weights.h5')


def test_features_of_two_depths_stand_side_by_side():
  model = make_model(endpoint='conv3', second_endpoint='conv2', reduced_dimensions=0)
  maps = model.backbone(IMAGES)
  found = model(IMAGES)['features'].numpy()
  assert (model.dimensions, found.shape) == (64, (2, 8, 6, 64))
  deep, fine = maps['conv3'].numpy(), maps['conv2'].numpy()
  assert_allclose(found[..., :40], deep / np.linalg.norm(deep, axis=-1, keepdims=True), atol=1e-5)
  assert_allclose(np.linalg.norm(found, axis=-1), 2**0.5, rtol=1e-4)
  # Finer cells are averaged by a triangle that is twice as wide as a cell; inside the borders.
  weights = np.array([1, 3, 3, 1]) / 8
  mean = np.einsum('i,j,bijc->bc', weights, weights, fine[:, 3:7, 5:9])
  assert_allclose(found[:, 2, 3, 40:], mean / np.linalg.norm(mean, axis=-1, keepdims=True), atol=1e-4)


def test_two_depths_at_the_finer_cells_keep_the_geometry_of_the_coarser():
  model = make_model(
    endpoint='conv2',
    second_endpoint='conv3',
    reduced_dimensions=0,
    attention=L2_NORM,
    attention_endpoint='conv3',
  )
  assert (model.receptive_field.stride, model.input_stride) == (4, 8)
  image = tf.random.stateless_uniform((1, 52, 44, 3), (1, 2), maxval=256, dtype=tf.int32)
  found = pyramid.extract(model, tf.cast(image, tf.uint8), tf.constant([1.0]))
  assert found['features'].shape == (1, 13 * 11, 64)
  assert np.all(found['scores'] > 0)
  same = pyramid.extract(InferenceNetwork(model), tf.cast(image, tf.uint8), tf.constant([1.0]))
  assert_allclose(same['features'], found['features'], atol=1e-4)


def test_two_depths_have_no_length_of_their_own():
  with pytest.raises(UserError, match='their length is no attention'):
    make_model(endpoint='conv3', second_endpoint='conv2', attention=L2_NORM)
