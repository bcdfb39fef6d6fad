"""One step of training: what learns, what stays, and that many devices do what one does."""

import os
import pathlib
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from support import tiny_delf_training

tf = pytest.importorskip('tensorflow')
keras = pytest.importorskip('keras')

from delf_d2r.errors import UserError  # noqa: E402
from delf_d2r.models.delf import encoder_init, losses, training  # noqa: E402
from delf_d2r.models.training import distributed_training  # noqa: E402

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
# Keras 3 with NumPy 2: no concern of ours.
pytestmark = [
  pytest.mark.slow,
  pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning'),
]
HEADS_ONLY = 'loss { descriptor_weight: 0 weight_decay: 0 }'


@pytest.fixture(autouse=True)
def eager():
  """No time spent on tracing graphs."""
  tf.config.run_functions_eagerly(True)
  yield
  tf.config.run_functions_eagerly(False)


def trainer(*changes):
  return training.Trainer(
    tiny_delf_training.load(tiny_delf_training.TINY, 'model { num_classes: 3 }', *changes).training
  )


def batch():
  images = np.stack([tiny_delf_training.pattern(number, 64) for number in range(4)]).astype(np.float32)
  return {'images': tf.constant(images), 'labels': tf.constant([0, 1, 2, 0], tf.int64)}


def pairs_batch():
  views = {'images': batch()['images'], 'second_images': batch()['images']}
  return {**views, 'homographies': tf.eye(3, batch_shape=[4]), 'positions': tf.range(4, dtype=tf.int64)}


def backbone_difference(trained, data=None):
  before = [variable.numpy() for variable in trained.model.backbone_model.variables]
  trained.step(batch() if data is None else data, 5)
  return [
    np.abs(variable.numpy() - old).max()
    for variable, old in zip(trained.model.backbone_model.variables, before, strict=True)
  ]


def test_same_seed_same_weights():
  first, second = trainer(), trainer()
  for a, b in zip(first.model.variables, second.model.variables, strict=True):
    np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_the_loss_is_the_sum_of_its_weighted_parts():
  changes = 'loss { descriptor_weight: 0.5 attention_weight: 2 reconstruction_weight: 3 weight_decay: 0.1 }'
  values = trainer(changes).step(batch(), 0)
  parts = {'descriptor': 0.5, 'attention': 2, 'reconstruction': 3}
  expected = sum(factor * values[f'{name}_loss'] for name, factor in parts.items()) + values['weight_decay']
  assert values['loss'] == pytest.approx(expected, rel=1e-5)


def test_weight_decay_enters_loss_and_gradient():
  def run(decay):
    trained = trainer(f'loss {{ weight_decay: {decay} }} optimizer {{ clip_norm: 0 }}')
    kernel = trained.model.backbone_model.get_layer('stem_conv').kernel
    norm, before = float(losses.weight_decay(trained.model)), kernel.numpy()
    values = trained.step(batch(), 5)
    return values, norm, before, kernel.numpy()

  plain, norm, before, without = run(0)
  decayed, _, _, with_decay = run(0.2)
  assert decayed['loss'] - plain['loss'] == pytest.approx(0.2 * norm, rel=1e-4)
  # The first step of SGD moves a kernel w by -rate * decay * w more.
  np.testing.assert_allclose(with_decay - without, -decayed['learning_rate'] * 0.2 * before, atol=1e-6)


def test_attention_and_autoencoder_do_not_reach_the_backbone():
  trained = trainer(HEADS_ONLY)
  attention = trained.model.attention.layers[0].kernel.numpy()
  kernels = [variable for variable in trained.model.backbone_model.variables if 'moving' not in variable.path]
  before = [kernel.numpy() for kernel in kernels]
  trained.step(batch(), 5)
  for old, new in zip(before, kernels, strict=True):
    np.testing.assert_array_equal(old, new.numpy())
  assert np.abs(trained.model.attention.layers[0].kernel.numpy() - attention).max() > 0


def test_they_do_where_the_config_says_so():
  assert min(backbone_difference(trainer(HEADS_ONLY, 'model { heads_train_backbone: true }'))[:1]) > 0


def test_frozen_backbone_keeps_weights_and_statistics():
  assert max(backbone_difference(trainer('freeze_backbone: true'))) == 0


def test_frozen_batch_norm_keeps_its_own():
  trained = trainer('freeze_batch_norm: true')
  kernel = trained.model.backbone_model.get_layer('stem_conv').kernel.numpy()
  statistics = [w.numpy() for w in trained.model.backbone_model.get_layer('stem_bn').weights]
  trained.step(batch(), 5)
  for old, new in zip(statistics, trained.model.backbone_model.get_layer('stem_bn').weights, strict=True):
    np.testing.assert_array_equal(old, new.numpy())
  assert np.abs(kernel - trained.model.backbone_model.get_layer('stem_conv').kernel.numpy()).max() > 0


def test_attention_without_a_loss_stays():
  trained = trainer('loss { attention_weight: 0 }')
  before = [weight.numpy() for weight in trained.model.attention.weights]
  trained.step(batch(), 5)
  for old, new in zip(before, trained.model.attention.weights, strict=True):
    np.testing.assert_array_equal(old, new.numpy())


def test_clipping_bounds_the_step_of_all_weights_together():
  trained = trainer('optimizer { clip_norm: 0.01 }')
  before = [variable.numpy() for variable in trained.model.trainable_variables]
  values = trained.step(batch(), 5)
  after = [variable.numpy() for variable in trained.model.trainable_variables]
  moved = np.sqrt(sum(np.square(a - b).sum() for a, b in zip(after, before, strict=True)))
  assert values['gradient_norm'] > 0.01
  assert moved == pytest.approx(0.01 * values['learning_rate'], rel=1e-3)


def test_backbone_factor_scales_its_rate_alone():
  def moved(factor):
    trained = trainer(f'optimizer {{ backbone_factor: {factor} }}')
    kernels = trained.model.backbone_model.get_layer('stem_conv').kernel, trained.model.encoder.kernel
    before = [kernel.numpy() for kernel in kernels]
    trained.step(batch(), 5)
    return [kernel.numpy() - old for kernel, old in zip(kernels, before, strict=True)]

  (backbone, head), (slower_backbone, same_head) = moved(1), moved(0.25)
  np.testing.assert_allclose(slower_backbone, 0.25 * backbone, rtol=1e-3, atol=1e-8)
  np.testing.assert_allclose(same_head, head, atol=1e-8)


def test_warped_pairs_learn_without_labels():
  trained = trainer('objective: WARPED_PAIRS model { num_classes: 0 heads_train_backbone: true }')
  losses_seen = [trained.step(pairs_batch(), 5)['descriptor_loss'] for _ in range(8)]
  assert losses_seen[-1] < 0.95 * losses_seen[0]


def test_nothing_finite_stops():
  trained = trainer()
  trained.model.encoder.bias.assign(np.full(8, np.nan, np.float32))
  with pytest.raises(distributed_training.NotFinite, match='step 5: the loss is no longer finite'):
    trained.step(batch(), 5)


def test_weights_to_start_from(tmp_path):
  first = trainer()
  first.model.save(tmp_path / 'a.weights.h5')
  second = trainer('seed: 8', f'initial_weights: "{tmp_path}/a.weights.h5"')
  np.testing.assert_array_equal(first.model.encoder.kernel.numpy(), second.model.encoder.kernel.numpy())
  with pytest.raises(UserError, match=r'a\.weights\.h5'):
    trainer(f'model {{ reduced_dimensions: 5 }} initial_weights: "{tmp_path}/a.weights.h5"')


def test_nothing_to_train_is_said():
  changes = 'objective: WARPED_PAIRS freeze_backbone: true model { num_classes: 0 attention: L2_NORM }'
  assert trainer(changes).step(pairs_batch(), 5).keys() >= {'descriptor_loss', 'reconstruction_loss'}
  with pytest.raises(UserError, match='nothing to train'):
    trainer(changes, 'model { reduced_dimensions: 0 }')


def test_multi_worker_without_its_variable_is_explained(monkeypatch):
  monkeypatch.delenv('TF_CONFIG', raising=False)
  with pytest.raises(UserError, match='TF_CONFIG'):
    distributed_training.make_strategy(tiny_delf_training.load('strategy: MULTI_WORKER').training)


def test_encoder_starts_from_whitened_features():
  trained = trainer('model { reduced_dimensions: 4 } encoder_start_photos: 6')
  images = tf.random.stateless_uniform((6, 64, 64, 3), (0, 0), maxval=255)

  class Data:
    def batches(self, count):
      assert count == 1  # Of 4 photos each.
      return [{'images': images}]

  encoder_init.whiten(trained.model, trained.config, Data())
  reduced = trained.model(trained.model.normalize(images))['reduced'].numpy().reshape(-1, 4)
  np.testing.assert_allclose(np.cov(reduced.T), np.eye(4), atol=1e-2)
  np.testing.assert_allclose(reduced.mean(axis=0), 0, atol=1e-2)
  trained.config.encoder_start_power = 0
  encoder_init.whiten(trained.model, trained.config, Data())
  kernel = trained.model.encoder.kernel.numpy()[0, 0]
  np.testing.assert_allclose(kernel.T @ kernel, np.eye(4), atol=1e-4)  # A rotation, no scaling.
  trained.config.model.reduced_dimensions = 25
  with pytest.raises(UserError, match='25 dimensions are wanted, but the PCA has 24'):
    encoder_init.whiten(trained.model, trained.config, Data())


DISTRIBUTED = """
  import sys, numpy as np, tensorflow as tf
  tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices('CPU')[0], [tf.config.LogicalDeviceConfiguration()] * 2)
  sys.path.insert(0, 'tests')
  from support import tiny_delf_training
  from delf_d2r.data.training import training_examples
  from delf_d2r.errors import UserError
  from delf_d2r.models.training import distributed_training
  from delf_d2r.models.delf import training, training_data
  photos = training_examples.load(sys.argv[1])
  found = []
  for devices in (['cpu:0'], ['cpu:0', 'cpu:1']):
    # Batch statistics are those of each replica, so they are left out of the comparison.
    config = tiny_delf_training.load(
      tiny_delf_training.TINY, 'freeze_batch_norm: true loss { attention_weight: 0 }',
      'model { num_classes: 3 } optimizer { clip_norm: 1 }').training
    trainer = training.Trainer(config, tf.distribute.MirroredStrategy(devices))
    batches = trainer.batches(training_data.Batches(config, photos), 0)
    values = [trainer.step(next(batches), step) for step in range(3)]
    found.append((values, [v.numpy() for v in trainer.model.trainable_variables]))
  (one, weights), (two, mirrored) = found
  for a, b in zip(one, two):
    for name in a:
      np.testing.assert_allclose(b[name], a[name], rtol=2e-3, atol=1e-5, err_msg=name)
  for a, b in zip(weights, mirrored):
    np.testing.assert_allclose(b, a, atol=1e-4)
  try:
    tf.config.list_logical_devices = lambda *a: []
    distributed_training.make_strategy(tiny_delf_training.load('batch_size: 3 strategy: MIRRORED').training)
  except UserError as error:
    print(error)
"""


def test_two_devices_learn_what_one_does(tmp_path):
  photos = tiny_delf_training.write_photos(tmp_path / 'photos')
  environment = {**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '3', 'CUDA_VISIBLE_DEVICES': ''}
  done = subprocess.run(
    [sys.executable, '-c', textwrap.dedent(DISTRIBUTED), str(photos)],
    capture_output=True,
    text=True,
    check=False,
    cwd=REPOSITORY,
    env=environment,
    timeout=120,
  )
  assert done.returncode == 0, done.stderr[-3000:]
