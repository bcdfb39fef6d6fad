"""Batches for detectors: boxes stay on their objects, and everything follows from the seed."""

import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose, assert_array_equal
from support import tiny_detector_training

from delf_d2r.data.training.detection_records import DetectionRecords
from delf_d2r.models.detector import architectures, detector_backbones, input, network, sampling
from delf_d2r.protos import detector_pb2

tiny_detector_training.require_official()

pytestmark = [
  pytest.mark.slow,
  pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning'),
]
SIDE = 64


def options(**fields):
  return detector_pb2.DetectorAugmentationConfig(**fields)


def red_box(image):
  """The bounds of what is red in float32 [H, W, 3], in pixels."""
  red = (image[..., 0] > 150) & (image[..., 2] < 80)
  rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
  return np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])


@pytest.mark.parametrize('seed', range(8))
@pytest.mark.parametrize('shape', [(128, 128), (160, 90), (40, 50)])
def test_boxes_stay_on_their_objects(seed, shape):
  image, boxes = tiny_detector_training.photo(seed, shape=shape)
  augmented = input.random_placement(
    tf.constant(image, tf.float32),
    tf.constant(boxes),
    tf.constant([seed, 1]),
    options(min_scale=0.6, max_scale=1.6, min_visible=0.3),
    SIDE,
  )
  placed, kept = (part.numpy() for part in augmented)
  assert max(placed.shape) <= SIDE
  assert len(kept) <= 1
  if len(kept):
    assert_allclose(kept[0], red_box(placed), atol=1.6)


def test_boxes_that_are_nearly_cut_off_are_dropped():
  image = tf.zeros((64, 64, 3))
  boxes = tf.constant([[0.0, 0.0, 0.1, 0.1], [0.2, 0.2, 0.8, 0.8], [0.9, 0.9, 1.0, 1.0]])
  counts = set()
  for seed in range(30):
    _, kept = input.random_placement(
      image, boxes, tf.constant([seed, 2]), options(min_scale=2.0, max_scale=2.0, min_visible=0.5), SIDE
    )
    kept = kept.numpy()
    assert np.all(kept >= 0)
    assert np.all(kept <= SIDE)
    assert np.all(kept[:, 2:] - kept[:, :2] > 1)
    counts.add(len(kept))
  # At twice the size a window holds at most one of the corners.
  assert counts <= {0, 1, 2}
  assert len(counts) > 1


def test_without_augmentation_nothing_is_left_to_chance():
  image, boxes = tiny_detector_training.photo(1, shape=(100, 50))
  placed, kept = input.placement(tf.constant(image, tf.float32), tf.constant(boxes), SIDE)
  assert placed.shape == (64, 32, 3)
  assert_allclose(kept[0], boxes[0] * [64, 32, 64, 32], rtol=1e-6)


@pytest.fixture(scope='module')
def records(tmp_path_factory):
  folder = tmp_path_factory.mktemp('records')
  examples = [tiny_detector_training.example(number) for number in range(5)]
  examples.append(tiny_detector_training.example(5, boxes=[]))
  return DetectionRecords([tiny_detector_training.write_records(folder / 'x', examples)])


class NoTargets:
  """In the place of a detector where the network plays no role."""

  architecture = property(lambda self: self)

  def targets(self, boxes, seed):
    return {'seed': seed}


def batches(records, *changes, first_step=0, detector_of=NoTargets):
  config = tiny_detector_training.load(tiny_detector_training.TINY, *changes).detector_training
  return list(input.DetectorBatches(config, records, detector_of()).dataset(first_step))


def test_a_batch_follows_from_seed_and_step(records):
  all_of_them, later = batches(records), batches(records, first_step=2)
  assert len(all_of_them) == 4
  for a, b in zip(all_of_them[2:], later, strict=True):
    for name in ('images', 'shapes', 'boxes'):
      assert_array_equal(a[name], b[name])
    assert_array_equal(a['targets']['seed'], b['targets']['seed'])
  other = batches(records, 'seed: 4')
  assert not np.array_equal(other[0]['images'], all_of_them[0]['images'])


def test_a_batch_has_fixed_shapes_and_boxes_in_its_pixels(records):
  seen = 0
  for batch in batches(
    records, 'max_boxes: 3 steps: 6', 'augmentation { flip: false min_scale: 0.9 max_scale: 0.9 }'
  ):
    assert batch['images'].shape == (2, SIDE, SIDE, 3)
    assert batch['boxes'].shape == (2, 3, 4)
    images = detector_backbones.denormalize(detector_pb2.DetectorModelConfig(), batch['images']).numpy()
    for image, boxes in zip(images, batch['boxes'].numpy(), strict=True):
      real = boxes[boxes[:, 2] > 0]
      seen += len(real)
      for box in real:
        assert_allclose(box, red_box(image), atol=1.6)
  assert seen >= 8


def test_broken_photos_are_replaced_and_named(tmp_path, records, caplog):
  broken = [tiny_detector_training.example(number) for number in range(3)]
  object.__setattr__(broken[1], 'encoded', b'no photo')
  found = DetectionRecords([tiny_detector_training.write_records(tmp_path / 'x', broken)])
  assert len(batches(found, 'steps: 3')) == 3


# Targets of the official code.


@pytest.mark.parametrize('architecture', ['RETINANET', f'FASTER_RCNN {tiny_detector_training.SECOND_STAGE}'])
def test_targets_point_from_anchors_to_boxes(architecture):
  config = tiny_detector_training.load(
    tiny_detector_training.TINY, f'model {{ architecture: {architecture} }}'
  ).detector_training
  built = network.Detector(config.model).architecture
  anchors = np.concatenate([boxes.numpy().reshape(-1, 4) for boxes in built.anchors.values()])
  boxes = tf.constant([[4.0, 8.0, 40.0, 50.0], [30.0, 2.0, 60.0, 30.0]])
  targets = built.targets(boxes, tf.constant([1, 2]))
  kind = 'rpn_score_targets' if 'rpn_score_targets' in targets else 'cls_targets'
  classes = np.concatenate([value.numpy().reshape(-1) for value in targets[kind].values()])
  offsets = np.concatenate(
    [
      value.numpy().reshape(-1, 4)
      for value in targets[kind.replace('score', 'box').replace('cls', 'box')].values()
    ]
  )
  positive = classes == architectures.LANDMARK
  assert positive.sum() >= 2
  height, width = (anchors[positive, 2 + axis] - anchors[positive, axis] for axis in (0, 1))
  centre = (anchors[positive, :2] + anchors[positive, 2:]) / 2 + offsets[positive, :2] * np.stack(
    [height, width], 1
  )
  size = np.exp(offsets[positive, 2:]) * np.stack([height, width], 1)
  decoded = np.hstack([centre - size / 2, centre + size / 2])
  distance = np.abs(decoded[:, None] - boxes.numpy()[None]).max(axis=2)
  assert_allclose(distance.min(axis=1), 0, atol=1e-3)
  assert set(distance.argmin(axis=1)) == {0, 1}
  # No box, no object anywhere.
  empty = built.targets(tf.zeros((0, 4)), tf.constant([1, 2]))[kind]
  assert all(np.all(value.numpy() <= 0) for value in empty.values())


@pytest.mark.parametrize('positives, expected', [(0, 0), (3, 3), (50, 5)])
def test_samples_are_balanced(positives, expected):
  positive = tf.range(100) < positives
  candidates = tf.range(100) < 90
  first, again, other = (
    sampling.balanced_sample(positive, candidates, count=20, fraction=0.25, seed=tf.constant(seed))
    for seed in ((1, 2), (1, 2), (1, 3))
  )
  assert (np.sum(first & positive), np.sum(first)) == (expected, 20)
  assert not np.any(first & ~candidates)
  assert_array_equal(first, again)
  assert not np.array_equal(first, other)
  few = sampling.balanced_sample(positive, tf.range(100) < 4, count=20, fraction=0.25, seed=(1, 2))
  assert np.sum(few) <= 4
