"""The training step of detectors: what it changes, what it leaves, and that chance follows the seed."""

import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose, assert_array_equal
from support import tiny_detector_training

from delf_d2r.data.training.detection_records import DetectionRecords
from delf_d2r.models.detector import detector_training, input
from delf_d2r.models.detector.detector_summaries import pictures

tiny_detector_training.require_official()

pytestmark = [
  pytest.mark.slow,
  pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning'),
]


@pytest.fixture(scope='module')
def records(tmp_path_factory):
  folder = tmp_path_factory.mktemp('records')
  return DetectionRecords(
    [tiny_detector_training.write_records(folder / 'x', map(tiny_detector_training.example, range(4)))]
  )


def trainer(*changes):
  return detector_training.DetectorTrainer(
    tiny_detector_training.load(tiny_detector_training.TINY, *changes).detector_training
  )


def train(built, records, steps):
  """The values of each step."""
  batches = built.batches(input.DetectorBatches(built.config, records, built.model), 0)
  values = [built.step(next(batches), step) for step in range(steps)]
  batches.close()
  return values


def test_only_what_is_not_frozen_changes(records):
  built = trainer('frozen_levels: 5')
  before = {id(v): v.numpy() for v in built.model.network.variables}
  values = train(built, records, 2)
  changed = {v.name for v in built.model.network.variables if not np.array_equal(before[id(v)], v.numpy())}
  backbone = {v.name for v in built.model.network.backbone.variables}
  assert not changed & backbone
  # The predictions' own weights; those before them hardly move while these are nearly 0.
  assert {'scores', 'boxes'} <= {name.split('/')[-2] for name in changed}
  assert values[0]['loss'] == pytest.approx(
    values[0]['class_loss'] + 50 * values[0]['box_loss'] + values[0]['weight_decay'], rel=1e-4
  )
  assert [value['learning_rate'] for value in values] == pytest.approx([0.005, 0.01])
  assert values[0]['gradient_norm'] > 0.01


def test_backbone_learns_at_its_own_rate_and_keeps_its_statistics(records):
  built = trainer('frozen_levels: 4 optimizer { backbone_factor: 0.5 warmup_steps: 1 }')
  backbone = built.model.network.backbone
  before = {v.name: v.numpy() for v in backbone.variables}
  train(built, records, 1)
  changed = {v.name for v in backbone.variables if not np.array_equal(before[v.name], v.numpy())}
  assert 'block_11_expand_conv/kernel:0' in changed
  assert not any(name.startswith('block_10') or '_bn/' in name for name in changed)
  assert [float(optimizer.learning_rate) for optimizer in built.optimizers] == pytest.approx([0.01, 0.005])


def test_faster_rcnn_trains_by_its_seed(records):
  model = f'model {{ architecture: FASTER_RCNN {tiny_detector_training.SECOND_STAGE} }}'
  built = trainer(model, 'optimizer { learning_rate: 0.001 }')
  state = [*built.model.network.variables, *(v for o in built.optimizers for v in o.variables)]
  start = [variable.numpy() for variable in state]
  first = train(built, records, 2)
  for variable, value in zip(state, start, strict=True):
    variable.assign(value)
  assert first == [pytest.approx(values, rel=1e-4) for values in train(built, records, 2)]
  assert first[0].keys() >= {'proposal_class_loss', 'proposal_box_loss', 'class_loss', 'box_loss'}
  assert all(np.isfinite(list(values.values())).all() for values in first)


def test_mixed_precision_keeps_weights_whole():
  built = trainer('mixed_precision: true')
  images = tf.zeros((1, 64, 64, 3))
  outputs = built.model.network(images, training=True)
  assert {value.dtype for value in outputs['cls_outputs'].values()} == {tf.bfloat16}
  assert {v.dtype for v in built.model.network.variables} == {tf.float32}
  # It holds for this network, not for what is built after it.
  assert trainer().model.network(images, training=True)['cls_outputs']['4'].dtype == tf.float32


def test_boxes_are_drawn_where_they_are():
  images = tf.fill((1, 32, 32, 3), 100.0)
  true = tf.constant([[[4.0, 4.0, 12.0, 20.0], [0.0, 0.0, 0.0, 0.0]]])
  drawn = pictures(images, true, tf.constant([[[16.0, 4.0, 28.0, 20.0]]]))
  assert (drawn.dtype, drawn.shape) == (np.uint8, (1, 32, 32, 3))
  green, red = (np.all(drawn[0] == colour, axis=-1) for colour in ((0, 255, 0), (255, 0, 0)))
  for mask, top, bottom in ((green, 4, 12), (red, 16, 28)):
    rows, columns = np.nonzero(mask)
    assert_allclose([rows.min(), rows.max(), columns.min(), columns.max()], [top, bottom, 4, 20], atol=1)
  assert_array_equal(drawn[0, 0, 0], [100, 100, 100])
