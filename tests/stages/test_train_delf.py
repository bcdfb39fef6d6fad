"""The stage train_delf: learns, resumes exactly, keeps the best, and stops where it must."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest
from support import tiny_delf_training

tf = pytest.importorskip('tensorflow')

from delf_d2r.config import to_text as config_text  # noqa: E402
from delf_d2r.data.artefacts.artefact import Artefact  # noqa: E402
from delf_d2r.errors import ArtefactError, UserError  # noqa: E402
from delf_d2r.models.delf import training  # noqa: E402
from delf_d2r.models.delf.network import Delf  # noqa: E402
from delf_d2r.models.training import checkpoints  # noqa: E402
from delf_d2r.stages import train_delf  # noqa: E402

pytestmark = [
  pytest.mark.slow,
  # Keras 3 with NumPy 2: no concern of ours.
  pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning'),
  pytest.mark.filterwarnings('ignore:Even though the `tf.config.experimental_run_functions_eagerly`'),
]


REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
  return tiny_delf_training.write_photos(tmp_path_factory.mktemp('data') / 'photos')


@pytest.fixture
def eager():
  """No time spent on tracing graphs."""
  tf.config.run_functions_eagerly(True)
  yield
  tf.config.run_functions_eagerly(False)


def history(output, group='training'):
  lines = map(json.loads, (output / train_delf.HISTORY).read_text(encoding='utf-8').splitlines())
  return [line for line in lines if line['group'] == group]


class Killed(Exception):
  """What the test does to a run."""


def recording(monkeypatch, *, die_at=None, before=lambda trainer, step: None):
  """Steps of all trainers note the labels of their batches, and one step may die."""
  seen = []
  original = training.Trainer.step

  def step(self, batch, number):
    if number == die_at:
      raise Killed
    seen.append((number, float(np.sum(batch['images'])), batch['labels'].numpy().tolist()))
    before(self, number)
    return original(self, batch, number)

  monkeypatch.setattr(training.Trainer, 'step', step)
  return seen


def test_overfits_a_tiny_set_and_retrieval_improves(photos, tmp_path):
  config = tiny_delf_training.load(
    tiny_delf_training.TINY,
    'steps: 50 batch_size: 6 augmentation { enabled: false }',
    'optimizer { learning_rate: 0.1 warmup_steps: 5 }',
    'validation { every: 50 } summary_every: 5 pictures_every: 50 checkpoint_every: 50',
    'loss { reconstruction_weight: 1 } model { heads_train_backbone: true }',
  )
  artefact = train_delf.run(config, photos, tmp_path / 'out', validation_photos=photos)
  losses = [line['loss'] for line in history(artefact.path)]
  assert losses[-1] < 0.6 * losses[0]
  assert history(artefact.path)[-1]['attention_accuracy'] > 0.8
  before, after = (line['retrieval_map'] for line in history(artefact.path, 'validation'))
  assert after > before + 0.05
  assert artefact.config.training.model.num_classes == 3
  assert (artefact.path / 'classes.txt').read_text().split() == list(tiny_delf_training.CLASSES)
  assert list((artefact.path / 'tensorboard').iterdir())
  # What the artefact says is enough to load its weights.
  Delf(artefact.config.training.model).load(artefact.path / checkpoints.WEIGHTS)


def test_going_on_after_a_kill_is_exact(photos, tmp_path, monkeypatch):
  config = tiny_delf_training.load(tiny_delf_training.TINY, 'batch_size: 2')
  with monkeypatch.context() as patch:
    straight_batches = recording(patch)
    straight = train_delf.run(config, photos, tmp_path / 'straight', validation_photos=photos)
  with monkeypatch.context() as patch:
    recording(patch, die_at=4)
    with pytest.raises(Killed):
      train_delf.run(config, photos, tmp_path / 'killed', validation_photos=photos)
  with pytest.raises(ArtefactError, match='no finished artefact'):
    Artefact.open(tmp_path / 'killed', 'delf')
  with monkeypatch.context() as patch:
    resumed_batches = recording(patch)
    resumed = train_delf.run(config, photos, tmp_path / 'killed', validation_photos=photos)
  assert resumed_batches == straight_batches[3:]
  assert [line['step'] for line in history(resumed.path)] == [1, 2, 3, 4, 5, 6]
  first, second = (restored(config, path.path) for path in (straight, resumed))
  for a, b in zip(first.model.variables, second.model.variables, strict=True):
    np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-6, err_msg=a.path)
  assert (
    json.loads((straight.path / 'best.json').read_text())['step']
    == (json.loads((resumed.path / 'best.json').read_text())['step'])
  )


def restored(config, path: pathlib.Path):
  trainer = training.Trainer(with_classes(config))
  assert checkpoints.Checkpoints(path, trainer, keep=3, higher_is_better=True).restore() == 6
  return trainer


def with_classes(config):
  changed = training.Config()
  changed.CopyFrom(config.training)
  changed.model.num_classes = 3
  return changed


@pytest.mark.usefixtures('eager')
def test_finished_training_is_not_repeated_and_another_config_refused(photos, tmp_path, monkeypatch):
  config = tiny_delf_training.load(tiny_delf_training.TINY, 'steps: 1 batch_size: 2')
  train_delf.run(config, photos, tmp_path / 'out')
  with monkeypatch.context() as patch:
    steps = recording(patch)
    assert train_delf.run(config, photos, tmp_path / 'out').counts['steps'] == 1
    assert steps == []
  other = tiny_delf_training.load(
    tiny_delf_training.TINY, 'steps: 1 batch_size: 2 optimizer { learning_rate: 0.01 }'
  )
  with pytest.raises(ArtefactError, match=r'training\.optimizer\.learning_rate is 0\.05 there, 0\.01 here'):
    train_delf.run(other, photos, tmp_path / 'out')
  subset = tiny_delf_training.write_photos(tmp_path / 'subset', per_class=2)
  with pytest.raises(ArtefactError, match='input photos is'):
    train_delf.run(config, subset, tmp_path / 'out')


@pytest.mark.usefixtures('eager')
def test_nan_stops_with_the_last_good_checkpoint(photos, tmp_path, monkeypatch):
  def poison(trainer, step):
    if step == 4:
      trainer.model.encoder.bias.assign(np.full(8, np.nan, np.float32))

  recording(monkeypatch, before=poison)
  config = tiny_delf_training.load()
  with pytest.raises(UserError, match=r'step 4: .*last_good\.weights\.h5') as raised:
    train_delf.run(config, photos, tmp_path / 'out')
  assert 'learning_rate' in str(raised.value)
  model = Delf(with_classes(config).model)
  model.load(tmp_path / 'out/last_good.weights.h5')
  assert all(np.isfinite(variable.numpy()).all() for variable in model.variables)
  trainer = training.Trainer(with_classes(config))
  assert checkpoints.Checkpoints(tmp_path / 'out', trainer, keep=3, higher_is_better=True).restore() == 3


def test_checkpoint_of_another_model_is_refused(tmp_path):
  def keeper(*changes):
    trainer = training.Trainer(tiny_delf_training.load(tiny_delf_training.TINY, *changes).training)
    return checkpoints.Checkpoints(tmp_path, trainer, keep=1, higher_is_better=True)

  keeper().save(2)
  assert keeper('seed: 9').restore() == 2
  for change in ('reduced_dimensions: 5', 'num_classes: 2', 'endpoint: "conv1"'):
    with pytest.raises(UserError, match=r'ckpt-2: not a checkpoint of this model'):
      keeper(f'model {{ {change} }}').restore()


def test_best_weights_are_kept(tmp_path):
  trainer = training.Trainer(tiny_delf_training.load().training)
  keeper = checkpoints.Checkpoints(tmp_path, trainer, keep=1, higher_is_better=True)
  kept = [keeper.save_if_best(step, value) for step, value in enumerate((0.5, 0.7, 0.6, float('nan'), 0.7))]
  assert kept == [True, True, False, False, False]
  again = checkpoints.Checkpoints(tmp_path, trainer, keep=1, higher_is_better=True)
  assert (again.best['step'], again.best['value']) == (1, 0.7)
  assert [file.name for file in tmp_path.glob('best-*')] == [again.best['file']]
  lower = checkpoints.Checkpoints(tmp_path / 'b', trainer, keep=1, higher_is_better=False)
  (tmp_path / 'b').mkdir(exist_ok=True)
  assert [lower.save_if_best(step, value) for step, value in enumerate((0.5, 0.7, 0.4))] == [
    True,
    False,
    True,
  ]


@pytest.mark.usefixtures('eager')
def test_what_cannot_be_trained_on(photos, tmp_path):
  config = tiny_delf_training.load()
  with pytest.raises(UserError, match='classification needs labels'):
    train_delf.run(config, photos / 'arch', tmp_path / 'a')
  shard = tiny_delf_training.write_shard(tmp_path / 'x', [('photo7', b'', 5)])
  config = tiny_delf_training.load(tiny_delf_training.TINY, 'model { num_classes: 3 }')
  with pytest.raises(UserError, match=r'x: record 0 \(photo7\) has label 5'):
    train_delf.run(config, shard, tmp_path / 'b')
  one_each = tiny_delf_training.write_photos(tmp_path / 'one', per_class=1)
  with pytest.raises(UserError, match='no two of its 3 photos for validation have the same label'):
    train_delf.run(config, photos, tmp_path / 'c', validation_photos=one_each)


@pytest.mark.parametrize('objective, metric', [('CLASSIFICATION', 'ACCURACY'), ('WARPED_PAIRS', 'LOSS')])
@pytest.mark.usefixtures('eager')
def test_other_measures_of_validation(photos, tmp_path, objective, metric):
  config = tiny_delf_training.load(
    tiny_delf_training.TINY,
    f'objective: {objective} steps: 2 batch_size: 2 validation {{ metric: {metric} max_photos: 4 }}',
  )
  artefact = train_delf.run(config, photos, tmp_path / 'out', validation_photos=photos)
  found = history(artefact.path, 'validation')
  assert [line['step'] for line in found] == [0, 2]
  assert all(np.isfinite(line['loss']) for line in found)


def test_two_machines_train_one_network(photos, tmp_path):
  changes = ('strategy: MULTI_WORKER steps: 2', 'model { num_classes: 3 }', 'checkpoint_every: 2')
  (tmp_path / 'config.pbtxt').write_text(
    config_text(tiny_delf_training.load(tiny_delf_training.TINY, *changes))
  )
  processes = []
  addresses = [f'localhost:{free_port()}' for _ in range(2)]
  for index in range(2):
    cluster = {'cluster': {'worker': addresses}, 'task': {'type': 'worker', 'index': index}}
    arguments = [f'--config_path={tmp_path}/config.pbtxt', f'--photos={photos}', f'--output={tmp_path}/out']
    command = [sys.executable, str(REPOSITORY / 'tools/train_delf.py'), *arguments]
    environment = {**os.environ, 'TF_CONFIG': json.dumps(cluster), 'CUDA_VISIBLE_DEVICES': ''}
    processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
  errors = [process.communicate(timeout=120)[1] for process in processes]
  assert [process.returncode for process in processes] == [0, 0], errors
  assert Artefact.open(tmp_path / 'out', 'delf').counts['steps'] == 2
  assert [line['step'] for line in history(tmp_path / 'out')] == [1, 2]


def free_port():
  with socket.socket() as listener:
    listener.bind(('localhost', 0))
    return listener.getsockname()[1]


def test_the_global_head_is_trained_and_measured(photos, tmp_path):
  config = tiny_delf_training.load(
    tiny_delf_training.TINY,
    'steps: 4 batch_size: 6 freeze_batch_norm: true frozen_endpoint: "conv1" class_balance: 0.5',
    'model { global_dimensions: 6 global_input_normalized: true arcface_sub_centers: 2 }',
    'photos_of_class: 2 global_start { power: 0.5 } augmentation { enabled: false }',
    'loss { descriptor_weight: 0 trimmed_share: 0.1 metric { } }',
    'optimizer { kind: ADAM_W learning_rate: 0.01 }',
    'validation { metric: GLOBAL_RETRIEVAL_MAP also: RETRIEVAL_MAP every: 4 } checkpoint_every: 4',
  )
  first = train_delf.run(config, photos, tmp_path / 'out', validation_photos=photos)
  measured = history(first.path, 'validation')
  assert measured[0].keys() == {'step', 'group', 'retrieval_map', 'global_retrieval_map'}
  best = json.loads((first.path / 'best.json').read_text())
  assert best['value'] == max(line['global_retrieval_map'] for line in measured)
  assert history(first.path)[-1].keys() >= {'metric_loss', 'global_loss', 'global_accuracy'}
  header, *rows = (first.path / 'curves.csv').read_text().splitlines()
  assert 'validation global_retrieval_map' in header.split(',')
  assert [row.split(',')[0] for row in rows] == ['0', '1', '2', '3', '4']
  assert 'validation global_retrieval_map' in (first.path / 'curves.svg').read_text()
  # Its weights are those of a network of one centre a class, too, which is what an export makes.
  model = training.Config()
  model.CopyFrom(first.config.training)
  model.model.num_classes = 0
  model.model.arcface_sub_centers = 0
  Delf(model.model).load(first.path / checkpoints.WEIGHTS)
