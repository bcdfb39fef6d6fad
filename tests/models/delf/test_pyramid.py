"""The pyramid: where features lie, which are kept, and that one trace serves all sizes."""

import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose, assert_array_equal
from support.delf_models import make_model, noise, tiny_model, tiny_module

from delf_d2r.models.delf import export, pyramid
from delf_d2r.models.delf.inference import InferenceNetwork

STRIDE = 8


def extract(image, scales=(1.0,), model=None):
  found = pyramid.extract(model or tiny_model(), tf.constant(image[None]), tf.constant(scales, tf.float32))
  return {name: value.numpy() for name, value in found.items()}


def test_cells_are_those_of_the_network_on_each_resized_image():
  model, image, scales = tiny_model(), noise(72, 100), (0.5, 1.0, 1.4142)
  found = extract(image, scales)
  start = 0
  for scale in scales:
    size = np.round(np.array(image.shape[:2]) * np.float32(scale)).astype(int)
    pixels = tf.image.resize(model.normalize(tf.constant(image[None], tf.float32)), size)
    padded = np.pad(pixels, [(0, 0), (0, -size[0] % STRIDE), (0, -size[1] % STRIDE), (0, 0)])
    outputs = model(tf.constant(padded))
    # Cells whose centre is within the resized image.
    centers = [
      np.arange(side) * STRIDE + model.receptive_field.center for side in outputs['attention'].shape[1:3]
    ]
    rows, columns = (int(np.sum(c < side)) for c, side in zip(centers, size, strict=True))
    n = rows * columns
    level = slice(start, start + n)
    assert_allclose(
      found['scores'][0, level], outputs['attention'].numpy()[0, :rows, :columns, 0].ravel(), rtol=1e-4
    )
    expected = outputs['descriptors'].numpy()[0, :rows, :columns].reshape(n, -1)
    assert_allclose(found['features'][0, level], expected, rtol=1e-3, atol=1e-5)
    assert_allclose(found['scales'][level], 1 / scale, rtol=1e-6)
    factor = np.array(image.shape[:2]) / size
    where = (
      np.stack(np.meshgrid(centers[0][:rows], centers[1][:columns], indexing='ij'), -1).reshape(-1, 2)
      * factor
    )
    assert_allclose((found['boxes'][level, :2] + found['boxes'][level, 2:]) / 2, where, rtol=1e-5)
    start += n
  assert start == len(found['scales'])


@pytest.mark.parametrize('place', [(0, 0), (41, 70), (95, 127)])
def test_a_changed_pixel_changes_only_features_that_see_it(place):
  image = np.full((96, 128, 3), 128, np.uint8)
  changed = image.copy()
  changed[place] = 255
  before, after = extract(image), extract(changed)
  differs = np.any(before['features'][0] != after['features'][0], axis=1)
  y, x = np.array(place) + 0.5
  boxes = before['boxes']
  sees = (boxes[:, 0] < y) & (y < boxes[:, 2]) & (boxes[:, 1] < x) & (x < boxes[:, 3])
  assert differs.any()
  assert not np.any(differs & ~sees)
  # Most that see it respond, the extreme corners of receptive fields perhaps below the last bit.
  assert np.mean(differs[sees]) > 0.8


def test_boxes_are_receptive_fields_in_pixels_of_the_image():
  field = tiny_model().receptive_field
  boxes = extract(noise(64, 64), (2.0,))['boxes']
  assert_allclose(boxes[0], [field.low / 2, field.low / 2, (field.high + 1) / 2, (field.high + 1) / 2])
  assert_allclose(boxes[1] - boxes[0], [0, STRIDE / 2, 0, STRIDE / 2], atol=1e-5)


def test_image_too_small_for_any_cell_has_no_features():
  found = extract(noise(3, 40), (1.0,))
  assert found['features'].shape == (1, 0, 16)
  best = pyramid.select({name: tf.constant(value) for name, value in found.items()}, 10, 0.0)
  assert best['boxes'].shape == (0, 4)
  assert best['features'].shape == (0, 16)


def test_legal_sizes_round_halves_to_even():
  # 5 * 0.5 = 2.5 and 7 * 0.5 = 3.5: 2 rows and 4 columns, none of which has a cell; no error either.
  assert extract(noise(5, 7), (0.5,))['scores'].shape == (1, 0)


# Choosing

BOXES = [[0, 0, 10, 10], [0, 1, 10, 11], [0, 20, 10, 30], [0, 40, 10, 50]]
SCORES = [2.0, 3.0, 1.0, 3.0]


def select(max_features=10, min_attention=0.0, **options):
  found = {
    'boxes': tf.constant(BOXES, tf.float32),
    'scales': tf.constant([1.0, 2.0, 3.0, 4.0]),
    'scores': tf.constant([SCORES]),
    'features': tf.reshape(tf.range(8.0), (1, 4, 2)),
  }
  best = pyramid.select(found, max_features, min_attention, **options)
  assert_array_equal(best['scores'][:, 0], np.array(SCORES)[(best['scales'].numpy() - 1).astype(int)])
  assert_array_equal(best['features'][:, 0], 2 * (best['scales'] - 1))
  assert_array_equal(best['boxes'], np.array(BOXES)[(best['scales'].numpy() - 1).astype(int)])
  return (best['scales'].numpy() - 1).astype(int).tolist()


def test_most_attention_first_and_ties_in_order():
  assert select() == [1, 3, 0, 2]
  assert select(max_features=2) == [1, 3]
  assert select(max_features=0) == []


def test_threshold_keeps_what_equals_it():
  assert select(min_attention=2.0) == [1, 3, 0]
  assert select(min_attention=2.5) == [1, 3]
  assert select(min_attention=9.0) == []


def test_suppression_drops_what_overlaps_a_better_one():
  assert select(nms_iou=0.5) == [1, 3, 2]
  assert select(nms_iou=0.9) == [1, 3, 0, 2]
  assert select(nms_iou=0.5, max_features=1) == [1]


def test_batches_choose_for_each_image():
  images = np.stack([noise(64, 80, seed) for seed in range(3)])
  scales = tf.constant([0.7, 1.0])
  together = pyramid.select_batch(pyramid.extract(tiny_model(), tf.constant(images), scales), 20)
  for b, image in enumerate(images):
    alone = pyramid.select(pyramid.extract(tiny_model(), tf.constant(image[None]), scales), 20, 0.0)
    for name, value in alone.items():
      assert_allclose(together[name][b], value, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_global_descriptors_of_chosen_scales():
  model = make_model(global_dimensions=12, classifier_endpoint='conv4')
  image = tf.constant(noise(64, 64)[None])
  scales = tf.constant([0.5, 1.0, 1.4142])
  every = pyramid.extract(model, image, scales)['global_descriptors']
  assert every.shape == (1, 3, 12)
  chosen = pyramid.extract(model, image, scales, global_scales=tf.constant([2, 0]))['global_descriptors']
  assert_allclose(chosen[0], every.numpy()[0][[2, 0]], rtol=1e-6)
  alone = model(model.normalize(tf.cast(image, tf.float32)))['global_descriptor']
  assert_allclose(every[0, 1], alone[0], rtol=1e-4, atol=1e-5)


# Traces


@pytest.mark.slow
def test_one_trace_serves_all_sizes(monkeypatch):
  traces = []
  call = InferenceNetwork.__call__

  def counted(self, images, **options):
    traces.append(images.shape)
    return call(self, images, **options)

  monkeypatch.setattr(InferenceNetwork, '__call__', counted)
  module = export.LocalFeatureModule(tiny_model())
  made = len(traces)
  assert made == 2  # One graph for an image, one for a batch.
  sizes = [(24 + 3 * i, 90 - 2 * i) for i in range(24)]
  for height, width in sizes:
    found = module.serving_default(
      input_image=tf.constant(noise(height, width)),
      input_scales=tf.constant([0.7, 1.0]),
      input_max_feature_num=tf.constant(5),
      input_abs_thres=tf.constant(0.0),
    )
    assert len(found['scores']) == 5
  assert len(traces) == made


def test_eager_and_graph_agree():
  image = noise(80, 72)
  scales = tf.constant([0.5, 1.0], tf.float32)
  eager = pyramid.select(pyramid.extract(tiny_model(), tf.constant(image[None]), scales), 30, 0.0)
  graph = tiny_module().serving_default(
    input_image=tf.constant(image),
    input_scales=scales,
    input_max_feature_num=tf.constant(30),
    input_abs_thres=tf.constant(0.0),
  )
  for name, value in eager.items():
    assert_allclose(graph[name], value, rtol=1e-4, atol=1e-5)
