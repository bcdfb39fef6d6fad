"""Training of the global head: frozen early stages, its start from photos, sub-centres, the metric loss."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from support import tiny_delf_training
from support.delf_models import make_model

tf = pytest.importorskip('tensorflow')

from delf_d2r.errors import UserError  # noqa: E402
from delf_d2r.models.delf import current_features, global_init, heads, losses, pyramid, training  # noqa: E402
from delf_d2r.protos import training_pb2  # noqa: E402

pytestmark = [
  pytest.mark.slow,
  pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning'),
]


@pytest.fixture(autouse=True)
def eager():
  """No time spent on tracing graphs."""
  tf.config.run_functions_eagerly(True)
  yield
  tf.config.run_functions_eagerly(False)


GLOBAL = (
  'model { num_classes: 3 endpoint: "conv3" classifier_endpoint: "conv3" global_dimensions: 6'
  ' global_input_normalized: true }'
)


def trainer(*changes):
  return training.Trainer(tiny_delf_training.load(tiny_delf_training.TINY, GLOBAL, *changes).training)


def batch():
  images = np.stack([tiny_delf_training.pattern(number, 64) for number in range(4)]).astype(np.float32)
  return {'images': tf.constant(images), 'labels': tf.constant([0, 1, 2, 0], tf.int64)}


# Frozen early stages


def test_layers_until_the_endpoint_keep_weights_and_statistics_and_those_after_it_learn():
  trained = trainer('frozen_endpoint: "conv2"')
  names = [layer.name for layer in trained.model.backbone_model.layers if layer.weights]
  before = {name: trained.model.backbone_model.get_layer(name).get_weights() for name in names}
  trained.step(batch(), 5)
  changed = []
  for name in names:
    after = trained.model.backbone_model.get_layer(name).get_weights()
    if any(np.any(a != b) for a, b in zip(after, before[name], strict=True)):
      changed.append(name)
  border = names.index('block_2_project_bn')
  assert changed == names[border + 1 :]


def test_no_gradient_passes_the_endpoint():
  model = make_model(endpoint='conv3')
  pixels = tf.Variable(tf.random.stateless_normal((1, 64, 64, 3), (1, 2)))

  def gradient():
    with tf.GradientTape() as tape:
      features = model._run_backbone(pixels, False)['conv3']
      loss = tf.reduce_sum(features**2)
    early = model.backbone_model.get_layer('block_1_expand_conv').kernel.value
    late = model.backbone_model.get_layer('block_4_expand_conv').kernel.value
    return tape.gradient(loss, [pixels, early, late])

  assert all(found is not None for found in gradient())
  model.freeze_until('conv2')
  of_pixels, of_early, of_late = gradient()
  assert of_pixels is None
  assert of_early is None
  assert np.abs(of_late).max() > 0


@pytest.mark.parametrize('endpoint', ['conv1', 'conv2', 'conv3'])
def test_frozen_layers_compute_what_they_did(endpoint):
  model = make_model(endpoint='conv2', classifier_endpoint='conv3', global_dimensions=5)
  images = tf.random.stateless_normal((2, 64, 64, 3), (1, 2))
  before, weights = model(images), len(model.weights)
  model.freeze_until(endpoint)
  after = model(images)
  for name in ('descriptors', 'attention', 'global_descriptor'):
    assert_allclose(after[name], before[name], atol=1e-4 * np.abs(before[name]).max())
  # Nothing more is saved with the model.
  assert len(model.weights) == weights


def test_unknown_and_too_deep_endpoints_are_refused():
  with pytest.raises(UserError, match="no endpoint 'conv9'; it has conv1"):
    trainer('frozen_endpoint: "conv9"')
  with pytest.raises(UserError, match="'conv5' is deeper than conv3"):
    trainer('frozen_endpoint: "conv5"')


# Start of the global head


class Photos:
  """Two batches of noise of three classes."""

  def __init__(self, per_class=8):
    rng = np.random.default_rng(4)
    self.labels = np.repeat([0, 1, 2], per_class)
    self.images = rng.uniform(0, 255, (3 * per_class, 64, 64, 3)).astype(np.float32)
    self.images *= rng.uniform(0.2, 1, (3 * per_class, 1, 1, 3)).astype(np.float32)

  def batches(self):
    half = len(self.labels) // 2
    for part in (slice(half), slice(half, None)):
      yield {'images': tf.constant(self.images[part]), 'labels': tf.constant(self.labels[part], tf.int64)}


def embedded(model, photos):
  return model(model.normalize(tf.constant(photos.images)))['global_descriptor'].numpy()


@pytest.mark.parametrize('power', [0, 0.5, 1])
def test_the_dense_layer_whitens_pooled_features(power):
  trained = trainer(f'global_start {{ power: {power} }}')
  photos = Photos()
  global_init.start(trained.model, trained.config, photos)
  found = embedded(trained.model, photos)
  assert_allclose(found.mean(axis=0), 0, atol=1e-4)
  assert np.linalg.norm(found, axis=1).mean() == pytest.approx(1, rel=1e-4)
  covariance = np.cov(found.T)
  assert_allclose(covariance - np.diag(np.diag(covariance)), 0, atol=1e-3 * np.diag(covariance).max())
  pooled = trained.model.pooled_images(trained.model.normalize(tf.constant(photos.images))).numpy()
  assert_allclose(np.linalg.norm(pooled, axis=1), 1, rtol=1e-5)
  variances = np.sort(np.linalg.eigvalsh(np.cov(pooled.T)))[::-1][:6]
  expected = variances ** (1 - power)
  assert_allclose(np.diag(covariance) / np.diag(covariance)[0], expected / expected[0], rtol=1e-2)


def test_class_centres_are_the_means_of_their_photos():
  trained = trainer('global_start { }')
  photos = Photos()
  global_init.start(trained.model, trained.config, photos)
  units = embedded(trained.model, photos)
  units /= np.linalg.norm(units, axis=1, keepdims=True)
  centers = trained.model.global_classifier.centers.numpy()
  for label in range(3):
    mean = units[photos.labels == label].mean(axis=0)
    assert_allclose(centers[:, label], mean / np.linalg.norm(mean), atol=1e-4)


def test_sub_centres_are_groups_of_a_class_and_never_equal():
  rng = np.random.default_rng(0)
  groups = np.eye(4)[[0, 0, 0, 1, 1, 2]] + 0.01 * rng.normal(size=(6, 4))
  units = (groups / np.linalg.norm(groups, axis=1, keepdims=True)).astype(np.float32)
  before = rng.normal(size=(4, 6)).astype(np.float32)
  labels = np.array([0, 0, 0, 0, 0, 1])
  found = global_init.class_centers(units, labels, before, 3, seed=1)
  assert_array_equal(found, global_init.class_centers(units, labels, before, 3, seed=1))
  assert sorted(np.abs(found[:, :2]).argmax(axis=0)) == [0, 1]
  # One photo for two centres: near it, but apart.
  assert np.all(found[2, 2:4] > 0.9)
  assert np.abs(found[:, 2] - found[:, 3]).max() > 1e-3
  # A class without photos.
  assert_allclose(found[:, 4:], before[:, 4:] / np.linalg.norm(before[:, 4:], axis=0), rtol=1e-5)


def test_a_global_head_of_more_dimensions_than_features_is_refused():
  trained = trainer('model { global_dimensions: 41 } global_start { }')
  with pytest.raises(UserError, match='41 dimensions are wanted, but the PCA has 40 components'):
    global_init.start(trained.model, trained.config, Photos())


# Losses


def test_the_nearest_of_the_sub_centres_counts():
  layer = heads.ArcFace(2, margin=0.2, scale=3.0, sub_centers=2)
  embeddings = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
  layer(tf.constant(embeddings))
  centers = layer.centers.numpy()
  assert centers.shape == (4, 4)
  cosines = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True) @ centers
  cosines /= np.linalg.norm(centers, axis=0)
  nearest = np.stack([cosines[:, :2].max(axis=1), cosines[:, 2:].max(axis=1)], axis=1)
  assert_allclose(layer(tf.constant(embeddings)), 3 * nearest, atol=1e-5)
  labels = np.array([0, 1, 1, 0, 0])
  expected = nearest.copy()
  expected[np.arange(5), labels] = np.cos(np.arccos(nearest[np.arange(5), labels]) + 0.2)
  assert_allclose(layer(tf.constant(embeddings), tf.constant(labels)), 3 * expected, atol=1e-5)


@pytest.mark.parametrize(
  ('share', 'expected'),
  [(0.0, [1, 5, 3, 4]), (0.25, [4 / 3, 0, 4, 16 / 3]), (0.49, [4 / 3, 0, 4, 16 / 3]), (0.5, [2, 0, 6, 0])],
)
def test_trimming_leaves_out_the_highest_losses(share, expected):
  assert_allclose(losses.trimmed(tf.constant([1.0, 5.0, 3.0, 4.0]), share), expected, rtol=1e-6)


def test_trimming_belongs_to_training_and_to_cross_entropies():
  plain, trimmed = (
    trainer('freeze_batch_norm: true'),
    trainer('freeze_batch_norm: true loss { trimmed_share: 0.5 }'),
  )
  one, two = plain.step(batch(), 0), trimmed.step(batch(), 0)
  for name in ('descriptor_loss', 'attention_loss', 'global_loss'):
    assert two[name] < one[name]
  assert two['reconstruction_loss'] == pytest.approx(one['reconstruction_loss'], rel=1e-4)


def contrastive_oracle(embeddings, labels, temperature):
  """The loss of each photo, pair by pair."""
  units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
  found = []
  for i in range(len(units)):
    others = [j for j in range(len(units)) if j != i]
    total = sum(np.exp(units[i] @ units[j] / temperature) for j in others)
    positives = [j for j in others if labels[j] == labels[i]]
    logs = [np.log(np.exp(units[i] @ units[j] / temperature) / total) for j in positives]
    found.append(-np.mean(logs) if logs else 0.0)
  return found


def test_supervised_contrastive_is_its_formula():
  embeddings = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
  labels = np.array([0, 0, 1, 2, 1, 0, 3])
  found = losses.supervised_contrastive(tf.constant(embeddings), tf.constant(labels), temperature=0.3)
  assert_allclose(found, contrastive_oracle(embeddings, labels, 0.3), rtol=1e-4)


def test_the_metric_loss_draws_photos_of_a_class_nearer():
  change = 'photos_of_class: 2 loss { descriptor_weight: 0 attention_weight: 0 global_weight: 0 metric { } }'
  trained = trainer(change, 'freeze_batch_norm: true optimizer { kind: ADAM learning_rate: 0.01 }')
  # Features of random weights are nearly the same for all photos until they are whitened.
  photos = Photos()
  trained.config.global_start.power = 1
  global_init.start(trained.model, trained.config, photos)
  chosen = [0, 1, 8, 9]
  drawn = {'images': tf.constant(photos.images[chosen]), 'labels': tf.constant([0, 0, 1, 1], tf.int64)}
  found = [trained.step(drawn, 5)['metric_loss'] for _ in range(6)]
  assert found[-1] < 0.7 * found[0]


def test_decoupled_weight_decay_shrinks_kernels_alone():
  def run(decay):
    trained = trainer(f'optimizer {{ kind: ADAM_W clip_norm: 0 }} loss {{ weight_decay: {decay} }}')
    layer = trained.model.embedding
    before = layer.kernel.numpy(), layer.bias.numpy()
    values = trained.step(batch(), 5)
    return values, before, (layer.kernel.numpy(), layer.bias.numpy())

  plain, before, without = run(0)
  decayed, _, with_decay = run(0.5)
  # The attention's own regulariser stays in the loss.
  assert decayed['loss'] == pytest.approx(plain['loss'], rel=1e-5)
  assert_allclose(with_decay[0] - without[0], -decayed['learning_rate'] * 0.5 * before[0], atol=1e-6)
  assert_array_equal(with_decay[1], without[1])


# Descriptors between two steps


def test_global_descriptors_between_steps_are_those_of_the_pyramid():
  model = make_model(global_dimensions=5, classifier_endpoint='conv3')
  image = tiny_delf_training.pattern(3)
  scales = tf.constant([0.5, 1.0])
  rows = pyramid.extract(model, image[None], scales)['global_descriptors'][0].numpy()
  assert_array_equal(pyramid.extract_global(model, tf.constant(image[None]), scales)[0], rows)
  expected = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).sum(axis=0)
  found = current_features.make_global_descriptor_fn(model, scales=[0.5, 1.0])(image)
  assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-5)
  assert training_pb2.ValidationConfig.GLOBAL_RETRIEVAL_MAP == 3
