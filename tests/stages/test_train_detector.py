"""The stages train_detector and export_detector: learn, resume exactly, keep the best, export it."""

import json

import numpy as np
import pytest
import tensorflow as tf
from support import tiny_detector_training

from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.errors import ArtefactError, UserError
from delf_d2r.evaluation import detection_metrics
from delf_d2r.models.detector import detector_training, network
from delf_d2r.models.training import checkpoints
from delf_d2r.stages import export_detector, train_detector
from delf_d2r.stages.shared import training_run
from delf_d2r.structures import Boxes

tiny_detector_training.require_official()

pytestmark = [
  pytest.mark.slow,
  pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning'),
  pytest.mark.filterwarnings('ignore:Even though the `tf.config.experimental_run_functions_eagerly`'),
]


@pytest.fixture
def eager():
  """No time spent on tracing graphs."""
  tf.config.run_functions_eagerly(True)
  yield
  tf.config.run_functions_eagerly(False)


@pytest.fixture(scope='module')
def records(tmp_path_factory):
  path = tmp_path_factory.mktemp('records') / 'x'
  return tiny_detector_training.write_records(path, map(tiny_detector_training.example, range(8)))


@pytest.fixture(scope='module')
def few(tmp_path_factory):
  """Enough where what validation finds does not matter."""
  path = tmp_path_factory.mktemp('records') / 'x'
  return tiny_detector_training.write_records(path, map(tiny_detector_training.example, range(2)))


def history(output, group='training'):
  lines = map(json.loads, (output / training_run.HISTORY).read_text(encoding='utf-8').splitlines())
  return [line for line in lines if line['group'] == group]


class Killed(Exception):
  """What the test does to a run."""


def recording(monkeypatch, *, die_at=None, before=lambda trainer, step: None):
  """Steps of all trainers note their batches, and one step may die."""
  seen = []
  original = detector_training.DetectorTrainer.step

  def step(self, batch, number):
    if number == die_at:
      raise Killed
    seen.append((number, float(np.sum(batch['images'])), float(np.sum(batch['boxes']))))
    before(self, number)
    return original(self, batch, number)

  monkeypatch.setattr(detector_training.DetectorTrainer, 'step', step)
  return seen


def test_learns_a_few_photos_by_heart_and_finds_them_after_export(records, tmp_path):
  tiny_detector_training.require_wheel()
  config = tiny_detector_training.config.load('configs/detectors/detector_tiny.pbtxt', ['detector_training'])
  trained = train_detector.run(config, [records], tmp_path / 'out', validation_records=[records])
  before, *_, after = (line['ap50'] for line in history(trained.path, 'validation'))
  assert before < 0.2
  assert after > 0.9
  output = export_detector.run_trained(
    trained, tmp_path / 'model', export_detector.Options(half_weights=True, notes='CC0', min_score=0.3)
  )
  served = tf.saved_model.load(str(output)).signatures['serving_default']
  truths, found = [], []
  for number in range(8):
    image, boxes = tiny_detector_training.photo(number)
    result = served(tf.constant(image[None]))
    truths.append(boxes)
    found.append(Boxes(result['detection_boxes'][0].numpy(), result['detection_scores'][0].numpy()))
  metrics = detection_metrics.evaluate(truths, found)
  assert metrics['ap50'] > 0.9
  assert metrics['recall@1'] == 1
  assert min(boxes.scores.min() for boxes in found) >= 0.3
  card = json.loads((output / 'model_card.json').read_text())
  assert card['metrics']['validation'].startswith('step ')
  assert (card['notes'], card['counts']['photos']) == ('CC0', 8)
  # No name of a folder of this machine in what is passed on.
  assert str(tmp_path) not in (output / 'model_card.md').read_text()
  with pytest.raises(UserError, match='exists already'):
    export_detector.run_trained(trained, output, export_detector.Options())


@pytest.mark.usefixtures('eager')
def test_going_on_after_a_kill_is_exact(records, few, tmp_path, monkeypatch):
  config = tiny_detector_training.load()
  with monkeypatch.context() as patch:
    straight_batches = recording(patch)
    straight = train_detector.run(config, [records], tmp_path / 'straight', validation_records=[few])
  with monkeypatch.context() as patch:
    recording(patch, die_at=3)
    with pytest.raises(Killed):
      train_detector.run(config, [records], tmp_path / 'killed', validation_records=[few])
  with pytest.raises(ArtefactError, match='no finished artefact'):
    Artefact.open(tmp_path / 'killed', 'detector')
  with monkeypatch.context() as patch:
    resumed_batches = recording(patch)
    resumed = train_detector.run(config, [records], tmp_path / 'killed', validation_records=[few])
  assert resumed_batches == straight_batches[2:]
  assert [line['step'] for line in history(resumed.path)] == [1, 2, 3, 4]
  for a, b in zip(history(straight.path), history(resumed.path), strict=True):
    assert a.pop('group') == b.pop('group') == 'training'
    assert a == pytest.approx(b, rel=1e-5)
  assert list((straight.path / 'tensorboard').iterdir())
  trainers = [restored(config, artefact.path) for artefact in (straight, resumed)]
  for parts in zip(*(state(trainer) for trainer in trainers), strict=True):
    np.testing.assert_allclose(*parts, atol=1e-6)
  # A finished training is not repeated, and that of another config not overwritten.
  steps = recording(monkeypatch)
  again = train_detector.run(config, [records], straight.path, validation_records=[few])
  assert again.counts['steps'] == 4
  assert steps == []
  other = tiny_detector_training.load(tiny_detector_training.TINY, 'optimizer { learning_rate: 0.02 }')
  with pytest.raises(ArtefactError, match=r'optimizer\.learning_rate is 0\.01 there, 0\.02 here'):
    train_detector.run(other, [records], straight.path, validation_records=[few])


def restored(config, path):
  trainer = detector_training.DetectorTrainer(config.detector_training)
  assert keeper(path, trainer).restore() == 4
  return trainer


def keeper(path, trainer):
  return checkpoints.Checkpoints(path, trainer, keep=2, higher_is_better=True, weights=train_detector.WEIGHTS)


def state(trainer):
  """All numbers that the next step depends on."""
  variables = [*trainer.model.network.variables, *(v for o in trainer.optimizers for v in o.variables)]
  return [variable.numpy() for variable in variables]


@pytest.mark.usefixtures('eager')
def test_nan_stops_with_the_last_good_checkpoint(records, tmp_path, monkeypatch):
  def poison(trainer, step):
    if step == 3:
      variable = trainer.model.network.trainable_variables[0]
      variable.assign(np.full(variable.shape, np.nan, np.float32))

  recording(monkeypatch, before=poison)
  config = tiny_detector_training.load()
  with pytest.raises(UserError, match=r'step 3: .*last_good\.weights\.npz') as raised:
    train_detector.run(config, [records], tmp_path / 'out')
  assert 'detector_training.optimizer.learning_rate' in str(raised.value)
  model = network.Detector(config.detector_training.model)
  model.load(tmp_path / 'out/last_good.weights.npz')
  assert all(np.isfinite(variable.numpy()).all() for variable in model.network.variables)
  # A checkpoint of another network is refused.
  other = tiny_detector_training.load(tiny_detector_training.TINY, 'model { pyramid_filters: 8 }')
  with pytest.raises(UserError, match='ckpt-2: not a checkpoint of this model'):
    keeper(tmp_path / 'out', detector_training.DetectorTrainer(other.detector_training)).restore()
