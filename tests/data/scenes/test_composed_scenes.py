"""Composed scenes: exact boxes, seeds, kinds, occlusion and truncation."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from delf_d2r import config
from delf_d2r.data.boxes.training_boxes import PhotoBoxes
from delf_d2r.data.scenes import composed_scenes, pasting
from delf_d2r.data.scenes.composed_scenes import SceneSources

# Backgrounds are grey, objects red and blue: a scene tells by its colours what is an object.
GREY, RED, BLUE = (128, 128, 128), (230, 0, 0), (0, 0, 230)
STILL = (
  'background_share: 0 photo_share: 0 relight: 0 max_blur: 0 max_noise: 0 min_jpeg_quality: 90'
  ' image_size: 160 feather_share: 0 occluded_share: 0 truncated_share: 0'
)


def settings(text='', *, still=True):
  overrides = [f'detection_scenes {{ {part} }}' for part in ([STILL] if still else []) + [text]]
  return config.load_or_default(None, ['detection_scenes'], overrides=overrides).detection_scenes


def write(path: pathlib.Path, colour, size=(120, 90), inner=None, inner_colour=None):
  pixels = np.full((size[1], size[0], 3), colour, np.uint8)
  if inner:
    top, left, bottom, right = inner
    pixels[top:bottom, left:right] = inner_colour
  Image.fromarray(pixels).save(path)
  return path


def photo(path, group, box=(0, 0, 1, 1)):
  return PhotoBoxes(path.name, path, np.array([box], np.float32), ('landmark',), (group,))


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
  folder = tmp_path_factory.mktemp('photos')
  backgrounds = (write(folder / 'b0.png', GREY, (200, 150)), write(folder / 'b1.png', GREY, (150, 200)))
  objects = (
    photo(write(folder / 'red.png', RED), 'red'),
    # Boxed: half of the photo's height and width, in its middle.
    photo(
      write(folder / 'blue.png', GREY, (80, 120), (30, 20, 90, 60), BLUE), 'blue', (0.25, 0.25, 0.75, 0.75)
    ),
  )
  return SceneSources(objects, backgrounds)


def extent(pixels, colour):
  """Returns the box, in pixels, of the pixels that are closer to a colour than to grey."""
  near = np.abs(pixels.astype(int) - colour).sum(axis=2) < np.abs(pixels.astype(int) - GREY).sum(axis=2)
  rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
  return np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])


def assert_boxes_exact(scene, atol):
  height, width = scene.pixels.shape[:2]
  for box, group in zip(scene.boxes, scene.groups, strict=True):
    found = extent(scene.pixels, {'red': RED, 'blue': BLUE}[group])
    np.testing.assert_allclose(box * (height, width, height, width), found, atol=atol)


@pytest.mark.parametrize('number', range(12))
def test_boxes_are_tight_around_what_is_seen(sources, number):
  scene = composed_scenes.compose(sources, settings('min_objects: 1 max_objects: 1'), number)
  assert len(scene.boxes) == 1
  assert_boxes_exact(scene, atol=1.01)


@pytest.mark.parametrize('number', range(12))
def test_boxes_are_those_of_the_visible_part(sources, number):
  text = 'min_objects: 1 max_objects: 1 occluded_share: 1 truncated_share: 1 num_decoys: 2'
  scene = composed_scenes.compose(sources, settings(text), number)
  assert_boxes_exact(scene, atol=1.01)


def test_truncated_objects_touch_the_border_and_others_lie_inside(sources):
  # Without margin: around a boxed object some of its photo may be cut off instead.
  only_red = SceneSources(sources.objects[:1], sources.backgrounds)

  def touches(text):
    scenes = [
      composed_scenes.compose(
        only_red,
        settings(f'min_objects: 1 max_objects: 1 num_decoys: 0 tilt: 0 perspective: 0 {text}'),
        number,
      )
      for number in range(10)
    ]
    return np.array([scene.boxes.min() == 0 or scene.boxes.max() == 1 for scene in scenes])

  assert touches('truncated_share: 1 max_truncated: 0.5').all()
  assert touches('max_scale: 0.5').mean() < 0.5


def test_occluders_hide_no_more_than_asked_for(sources):
  # One colour without margin: the pixels of red are what is left of it.
  only_red = SceneSources(sources.objects[:1], sources.backgrounds)
  shares = []
  for number in range(10):
    whole, hidden = (
      composed_scenes.compose(
        only_red,
        settings(f'min_objects: 1 max_objects: 1 num_decoys: 0 max_hidden: 0.4 occluded_share: {share}'),
        number,
      )
      for share in (0, 1)
    )
    area = [np.sum(scene.pixels[..., 1] < 64) for scene in (whole, hidden)]
    shares.append(1 - area[1] / area[0])
  assert max(shares) > 0.1
  assert 0 <= min(shares) <= max(shares) <= 0.43


@pytest.mark.parametrize(
  'text, low, high', [('min_scale: 0.15 max_scale: 0.2', 0.14, 0.22), ('min_scale: 1 max_scale: 1', 0.9, 1)]
)
def test_scale_is_the_larger_share_of_the_sides(sources, text, low, high):
  only_red = SceneSources(sources.objects[:1], sources.backgrounds)
  for number in range(8):
    scene = composed_scenes.compose(
      only_red, settings(f'{text} min_objects: 1 max_objects: 1 num_decoys: 0 tilt: 0'), number
    )
    sides = scene.boxes[0, 2:] - scene.boxes[0, :2]
    assert low <= sides.max() <= high


def test_thin_objects_are_enlarged_until_they_can_be_seen(sources, tmp_path):
  thin = SceneSources((photo(write(tmp_path / 'thin.png', RED, (16, 200)), 'red'),), sources.backgrounds)
  for number in range(8):
    scene = composed_scenes.compose(
      thin,
      settings('min_objects: 1 max_objects: 1 num_decoys: 0 max_scale: 0.2 tilt: 0 perspective: 0'),
      number,
    )
    assert (scene.boxes[0, 3] - scene.boxes[0, 1]) * scene.pixels.shape[1] >= 9
    assert_boxes_exact(scene, atol=1.01)


def test_decoys_are_pasted_without_a_box(tmp_path, sources):
  backgrounds = (write(tmp_path / 'b.png', (40, 160, 40), (200, 150)), *sources.backgrounds)
  scenes = [
    composed_scenes.compose(
      SceneSources(sources.objects, backgrounds),
      settings('min_objects: 0 max_objects: 0 num_decoys: 3'),
      number,
    )
    for number in range(10)
  ]
  assert all(len(scene.boxes) == 0 and scene.boxes.shape == (0, 4) for scene in scenes)
  # Green on grey or grey on green.
  assert any(len(np.unique(scene.pixels.reshape(-1, 3), axis=0)) > 1 for scene in scenes)


def test_objects_hide_little_of_each_other(sources):
  for number in range(8):
    scene = composed_scenes.compose(sources, settings('min_objects: 3 max_objects: 3 max_scale: 0.5'), number)
    assert len(scene.boxes) >= 2
    for box in scene.boxes:
      assert np.prod(box[2:] - box[:2]) > 0.005


def test_kinds_of_scenes(sources):
  only = {
    'background': 'background_share: 1',
    'photo': 'photo_share: 1',
    'pasted': 'min_objects: 1',
  }
  for kind, text in only.items():
    assert composed_scenes.compose(sources, settings(text), 0).kind == kind
  mixed = settings('background_share: 0.3 photo_share: 0.3')
  kinds = [composed_scenes.compose(sources, mixed, number).kind for number in range(60)]
  assert {kind: kinds.count(kind) / 60 for kind in only} == pytest.approx(
    {'background': 0.3, 'photo': 0.3, 'pasted': 0.4}, abs=0.17
  )


@pytest.mark.parametrize('number', range(8))
def test_photos_keep_their_own_boxes(sources, number):
  scene = composed_scenes.compose(sources, settings('photo_share: 1'), number)
  assert max(scene.pixels.shape) == 160
  if scene.groups == ('red',):
    assert scene.boxes.tolist() == [[0, 0, 1, 1]]
  else:
    assert_boxes_exact(scene, atol=2)


def test_photo_with_several_boxes_keeps_all(sources, tmp_path):
  path = write(tmp_path / 'two.png', GREY, (200, 100))
  boxes = np.array([[0.1, 0.1, 0.3, 0.3], [0.5, 0.6, 0.9, 0.8]], np.float32)
  several = SceneSources(
    (PhotoBoxes('two', path, boxes, ('landmark',) * 2, ('x', 'y')),), sources.backgrounds
  )
  for number in range(6):
    scene = composed_scenes.compose(several, settings('photo_share: 1'), number)
    assert scene.groups == ('x', 'y')
    sides = scene.boxes[:, 2:] - scene.boxes[:, :2]
    # Cutting keeps proportions within each axis.
    np.testing.assert_allclose(sides[0] / sides[1], [0.5, 1], rtol=1e-4)


def test_scene_is_a_function_of_seed_and_number(sources):
  options = settings(still=False)
  first, again = (composed_scenes.compose(sources, options, 5) for _ in range(2))
  np.testing.assert_array_equal(first.pixels, again.pixels)
  np.testing.assert_array_equal(first.boxes, again.boxes)
  assert (first.kind, first.groups, first.jpeg_quality) == (again.kind, again.groups, again.jpeg_quality)
  others = [composed_scenes.compose(sources, options, 6)]
  others.append(composed_scenes.compose(sources, settings('seed: 1', still=False), 5))
  for other in others:
    assert other.pixels.shape != first.pixels.shape or (other.pixels != first.pixels).any()


def test_number_of_objects_and_range_of_quality(sources):
  scenes = [composed_scenes.compose(sources, settings('min_objects: 1 max_objects: 2'), n) for n in range(20)]
  assert {len(scene.boxes) for scene in scenes} == {1, 2}
  assert {90, 95} >= {min(90, scene.jpeg_quality) for scene in scenes}
  assert max(scene.jpeg_quality for scene in scenes) <= 95


@pytest.mark.parametrize('exponent, low, high', [(0, 0.3, 0.7), (1, 0.75, 1)])
def test_large_groups_are_drawn_more_often_by_the_exponent(sources, exponent, low, high):
  red, blue = sources.objects
  many = SceneSources((red, *[blue] * 9), sources.backgrounds)
  options = settings(f'group_exponent: {exponent} min_objects: 1 max_objects: 1 num_decoys: 0')
  groups = [composed_scenes.compose(many, options, number).groups[0] for number in range(60)]
  assert low <= groups.count('blue') / 60 <= high


def test_boxes_without_a_group_are_drawn_by_photo(sources):
  red, _ = sources.objects
  unnamed = PhotoBoxes('a.png', red.path, red.boxes, red.classes, ('',))
  assert list(SceneSources((unnamed,), sources.backgrounds).groups) == ['a.png']


# Pasting


def test_soft_edges_fade_and_cover_says_the_same():
  canvas = np.zeros((40, 60, 3), np.float32)
  quad = np.array([(10, 10), (50, 10), (50, 30), (10, 30)], np.float64)
  opacity = np.full((20, 40), 0.25, np.float32)
  coverage = pasting.paste(canvas, np.full((20, 40, 3), 200, np.uint8), quad, opacity=opacity)
  assert coverage[20, 30] == pytest.approx(0.25)
  np.testing.assert_allclose(canvas[20, 30], 50, atol=0.5)
  assert coverage[5, 30] == canvas[5].max() == 0
  hard = pasting.coverage_mask(canvas.shape, quad)
  np.testing.assert_allclose(hard, np.pad(np.ones((20, 40)), ((10, 10), (10, 10))), atol=1e-5)


def test_quad_outside_the_canvas_covers_nothing():
  outside = np.array([(-9, -9), (-2, -9), (-2, -2), (-9, -2)], np.float64)
  canvas = np.full((8, 8, 3), 7, np.float32)
  assert pasting.paste(canvas, np.zeros((4, 4, 3), np.uint8), outside).max() == 0
  assert pasting.coverage_mask((8, 8, 3), outside).max() == 0
  assert (canvas == 7).all()


def test_no_relighting_changes_nothing():
  pixels = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
  np.testing.assert_array_equal(pasting.relight(np.random.default_rng(0), pixels, strength=0), pixels)
  assert (pasting.relight(np.random.default_rng(0), pixels) != pixels).any()
