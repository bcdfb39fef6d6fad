"""Augmentation is a function of its seed; warped views have the geometry they claim."""

import cv2
import numpy as np
import pytest
from support import tiny_delf_training

tf = pytest.importorskip('tensorflow')

from delf_d2r.models.backbones.receptive_field import ReceptiveField  # noqa: E402
from delf_d2r.models.delf import augmentation, objectives, training_summaries, warping  # noqa: E402

ALL = """augmentation { min_area: 0.2 flip: true brightness: 0.2 contrast: 0.3 saturation: 0.3 hue: 0.1
  grey_probability: 0.3 noise: 0.05 blur: 2 min_jpeg_quality: 30 }"""
NONE = 'augmentation { min_area: 1 min_aspect_ratio: 1 max_aspect_ratio: 1 }'


def smooth_photo(size=200, seed=0):
  noise = np.random.default_rng(seed).integers(0, 256, (size // 20, size // 20, 3)).astype(np.float32)
  return cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)


def augmented(text, seed):
  config = tiny_delf_training.load(text).training.augmentation
  image = tf.constant(smooth_photo(), tf.float32)
  crop = augmentation.random_crop(image, tf.constant([1, seed]), config, 48)
  return augmentation.photometric(crop, tf.constant([2, seed]), config).numpy()


def test_augmentation_depends_on_its_seed_alone():
  first, again, other = (augmented(ALL, seed) for seed in (1, 1, 2))
  np.testing.assert_array_equal(first, again)
  assert np.abs(first - other).mean() > 5


@pytest.mark.parametrize('seed', range(5))
def test_augmentation_stays_in_range(seed):
  image = augmented(ALL, seed)
  assert image.shape == (48, 48, 3)
  assert image.min() >= 0
  assert image.max() <= 255


def test_nothing_configured_changes_nothing():
  expected = augmentation.fit(tf.constant(smooth_photo(), tf.float32), 48)
  np.testing.assert_allclose(augmented(NONE, 1), expected, atol=1e-2)


def test_fit_takes_the_central_square():
  image = np.zeros((20, 60, 3), np.float32)
  image[:, 20:40] = 200
  np.testing.assert_allclose(augmentation.fit(image, 10), np.full((10, 10, 3), 200), atol=1e-3)


def test_blur_keeps_the_mean_and_lowers_the_contrast():
  image = np.random.default_rng(0).uniform(100, 150, (40, 40, 3)).astype(np.float32)
  config = tiny_delf_training.load('augmentation { blur: 3 }').training.augmentation
  blurred = augmentation.photometric(image, tf.constant([0, 1]), config).numpy()
  assert blurred.mean() == pytest.approx(image.mean(), rel=0.01)
  assert blurred.std() < 0.8 * image.std()


# Warped views


def views(seed, text='', photo=None, size=64):
  config = tiny_delf_training.load(f'objective: WARPED_PAIRS warped_pairs {{ {text} }}').training.warped_pairs
  return warping.view_pair(smooth_photo() if photo is None else photo, (0, seed), config, size)


@pytest.mark.parametrize('seed', range(6))
def test_views_show_the_same_at_corresponding_points(seed):
  first, second, homography = views(seed)
  points = tf.constant(np.stack(np.mgrid[8:56:6, 8:56:6], -1).reshape(-1, 2) + 0.5, tf.float32)
  mapped = objectives.project(homography[None], points)
  inside = np.all((mapped[0].numpy() > 1) & (mapped[0].numpy() < 63), axis=1)
  assert inside.sum() > 10
  wanted = objectives.interpolate(tf.constant(first[None], tf.float32), points[None] - 0.5)[0].numpy()

  def error(*offset):
    found = objectives.interpolate(tf.constant(second[None], tf.float32), mapped - 0.5 + offset)[0].numpy()
    return np.abs(wanted - found)[inside].mean()

  assert error(0, 0) < 0.7 * min(error(0, 0.5), error(0, -0.5), error(0.5, 0), error(-0.5, 0))


def test_views_depend_on_their_seed_alone():
  for a, b in zip(views(1), views(1), strict=True):
    np.testing.assert_array_equal(a, b)
  assert np.abs(views(1)[2] - views(2)[2]).max() > 0.01


def test_no_difference_configured_gives_equal_views():
  first, second, homography = views(3, 'max_zoom: 1 max_rotation: 0 max_shift: 0 perspective: 0')
  np.testing.assert_array_equal(first, second)
  np.testing.assert_allclose(homography, np.eye(3), atol=1e-5)


def test_large_photo_is_averaged_not_skipped():
  fine = np.random.default_rng(0).integers(0, 256, (512, 512, 3)).astype(np.uint8)
  first = views(0, 'min_side: 1', fine)[0]
  assert first.std() < 25  # Single pixels would keep 74.


# Geometry of cells


def test_cell_centers_and_projection():
  centers = objectives.cell_centers(ReceptiveField(8, -3, 10), 2, 3)
  assert centers.numpy().tolist() == [[4, 4], [4, 12], [4, 20], [12, 4], [12, 12], [12, 20]]
  shift = tf.constant([[[1, 0, 5], [0, 1, 2], [0, 0, 1]], [[2, 0, 0], [0, 2, 0], [0, 0, 1]]], tf.float32)
  found = objectives.project(shift, centers[:2]).numpy()
  assert found.tolist() == [[[6, 9], [6, 17]], [[8, 8], [8, 24]]]


def test_sample_interpolates_and_stops_at_the_edge():
  maps = tf.constant(np.arange(6).reshape(1, 2, 3, 1), tf.float32)
  places = tf.constant([[[0, 0], [0.5, 1.5], [1, 2], [-3, 0.25], [9, 9]]], tf.float32)
  assert objectives.interpolate(maps, places)[0, :, 0].numpy().tolist() == [0, 3, 5, 0.25, 5]


def test_sample_of_a_single_cell():
  assert objectives.interpolate(tf.fill((1, 1, 1, 1), 7.0), tf.constant([[[0.4, 0.6]]])).numpy() == 7


def drawn(valid, attention, count, share, seed=0):
  arguments = tf.constant([valid]), tf.constant([attention], tf.float32), count, share
  return set(objectives.draw_cells(*arguments, tf.constant([seed, 1], tf.int64))[0].numpy().tolist())


def test_cells_are_drawn_by_lot_from_the_valid_and_attended():
  valid = [True] * 6 + [False] * 2
  attention = [8, 1, 6, 2, 4, 3, 9, 9]
  assert drawn(valid, attention, 3, 0.625) == {0, 2, 4}  # 5 of 8 cells are attended, two of them not valid.
  assert drawn(valid, attention, 6, 0.125) == set(range(6))
  assert drawn(valid, attention, 99, 1.0) == set(range(8))
  assert len({tuple(sorted(drawn(valid, attention, 2, 1.0, seed))) for seed in range(20)}) > 5


def test_attention_pictures_show_the_photo_and_what_is_attended():
  images = np.full((2, 16, 16, 3), 200, np.float32)
  attention = np.zeros((2, 4, 4, 1), np.float32)
  attention[0, :, 3] = 7
  pictures = training_summaries.attention_pictures(images, attention)
  assert (pictures.shape, pictures.dtype) == ((2, 16, 32, 3), np.uint8)
  assert (pictures[:, :, :16] == 200).all()
  assert pictures[0, 8, [16, 31], 0].tolist() == [0, 200]
  assert (pictures[1, :, 16:] == 0).all()
