import dataclasses
import importlib.util

import numpy as np
import pytest

from delf_d2r.data.boxes import csv_file
from delf_d2r.data.ground_truth import ground_truth
from delf_d2r.data.photos.images import load_image
from delf_d2r.data.scenes import mini_benchmark
from delf_d2r.data.scenes import mini_benchmark_photos as photos
from delf_d2r.errors import ArtefactError, UserError

SCENES_PER_OBJECT, NUM_DISTRACTORS = 6, 5
SMALL = {'scenes_per_object': 1, 'num_distractors': 2}


@pytest.fixture(scope='module')
def benchmark(tmp_path_factory):
  return mini_benchmark.generate(
    tmp_path_factory.mktemp('mini') / 'benchmark',
    seed=5,
    scenes_per_object=SCENES_PER_OBJECT,
    num_distractors=NUM_DISTRACTORS,
  )


@pytest.fixture(scope='module')
def truth(benchmark):
  return ground_truth.load(benchmark.ground_truth_path)


@pytest.fixture(scope='module')
def boxes(benchmark, truth):
  return csv_file.read_boxes(benchmark.boxes_path, truth.index_images)


def contents(folder):
  return {
    path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob('*') if path.is_file()
  }


# Scenes


def compose(pixels, *, seed=0, area=0.3, hidden=0.0):
  return mini_benchmark.compose_scene(np.random.default_rng(seed), pixels, area=area, hidden=hidden)


@pytest.mark.parametrize('seed', range(8))
@pytest.mark.parametrize('hidden', [0.0, 0.3, 0.75])
def test_box_is_tight_around_what_is_seen_of_the_object(seed, hidden):
  # With the same seed, scenes of a white and a black object differ exactly where the object is visible.
  shape, area = (300, 200 + 50 * seed, 3), 0.1 + 0.07 * seed
  white = compose(np.full(shape, 255, np.uint8), seed=seed, area=area, hidden=hidden)
  black = compose(np.zeros(shape, np.uint8), seed=seed, area=area, hidden=hidden)
  difference = np.abs(white.pixels.astype(int) - black.pixels).max(axis=2)
  seen = 2 * difference >= difference.max()
  rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
  found = np.multiply(white.box, (mini_benchmark.SCENE_HEIGHT, mini_benchmark.SCENE_WIDTH) * 2)
  np.testing.assert_allclose(found, (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1), atol=1.01)
  assert white.visible_area == pytest.approx(seen.mean(), abs=0.003)
  assert white.hidden == pytest.approx(hidden, abs=0.1)


@pytest.mark.parametrize('area', [0.1, 0.25, 0.4])
def test_object_covers_the_share_of_the_scene_that_was_asked_for(area):
  scene = compose(np.zeros((300, 400, 3), np.uint8), area=area)
  assert scene.visible_area == pytest.approx(area, rel=0.01)
  assert scene.hidden == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize('shape', [(100, 900, 3), (900, 100, 3)])
def test_object_that_would_not_fit_is_shrunk_into_the_scene(shape):
  scene = compose(np.zeros(shape, np.uint8), area=0.6)
  assert 0.05 < scene.visible_area < 0.4
  assert scene.hidden == pytest.approx(0, abs=0.01)
  assert min(scene.box) >= 0
  assert max(scene.box) <= 1


def test_no_clutter_photo_shows_an_object():
  # The ground truth assumes that a scene is a positive for its one object only.
  shown = {photo for o in photos.object_photos() for photo in (o.scene_photo, o.query_photo)}
  assert not shown & {*photos.clutter_photos(), *photos.texture_photos()}


def test_scenes_are_made_of_clutter_photos_only(monkeypatch):
  loaded = set()
  monkeypatch.setattr(
    photos, 'load_photo', lambda photo: loaded.add(photo) or np.zeros((512, 512, 3), np.uint8)
  )
  for n in range(8):
    mini_benchmark.compose_scene(
      np.random.default_rng(n), np.zeros((300, 400, 3), np.uint8), area=0.3, hidden=0.3
    )
  assert loaded == set(photos.clutter_photos())


def test_box_of_an_invisible_object_is_an_error():
  shape = mini_benchmark.SCENE_HEIGHT, mini_benchmark.SCENE_WIDTH
  scene = mini_benchmark.Scene(np.zeros((*shape, 3), np.uint8), np.zeros(shape, bool), 1.0, 90)
  with pytest.raises(ValueError, match='found none'):
    _ = scene.box


# Labels


@pytest.mark.parametrize(
  'visible_area, hidden, label',
  [
    (0.3, 0.0, 'easy'),
    (mini_benchmark.EASY_MIN_AREA, mini_benchmark.EASY_MAX_HIDDEN, 'easy'),
    (mini_benchmark.EASY_MIN_AREA - 0.001, 0.0, 'hard'),
    (0.5, mini_benchmark.EASY_MAX_HIDDEN + 0.001, 'hard'),
    (0.5, mini_benchmark.JUNK_MIN_HIDDEN - 0.001, 'hard'),
    (0.5, mini_benchmark.JUNK_MIN_HIDDEN, 'junk'),
  ],
)
def test_label_scene(visible_area, hidden, label):
  assert mini_benchmark.label_scene(visible_area=visible_area, hidden=hidden) == label


# The data set


def test_defaults_make_at_least_120_index_images_of_12_to_16_objects():
  assert 12 <= len(photos.object_photos()) <= 16
  options = mini_benchmark.generate.__kwdefaults__
  assert len(photos.object_photos()) * options['scenes_per_object'] + options['num_distractors'] >= 120


@pytest.mark.slow
def test_counts(benchmark, truth):
  assert len(truth.queries) == len(photos.object_photos())
  assert len(truth.index_images) == len(truth.queries) * SCENES_PER_OBJECT + NUM_DISTRACTORS
  assert sorted(path.name for path in benchmark.images_dir.iterdir()) == list(truth.index_images)
  assert sorted(path.name for path in benchmark.queries_dir.iterdir()) == [q.image for q in truth.queries]


def test_every_object_has_all_labels_and_each_scene_shows_one_object(truth):
  labelled = []
  for query in truth.queries:
    assert query.easy
    assert query.hard
    assert query.junk
    assert len(query.easy + query.hard + query.junk) == SCENES_PER_OBJECT
    labelled += query.easy + query.hard + query.junk
  # The distractors are the rest, which stand in no list.
  assert len(set(labelled)) == len(labelled) == len(truth.index_images) - NUM_DISTRACTORS


def test_every_index_image_has_a_box_and_labels_agree_with_boxes(truth, boxes):
  assert set(boxes) == set(truth.index_images)
  assert all(len(of_image) == 1 for of_image in boxes.values())
  area = {name: np.prod(b.coordinates[0, 2:] - b.coordinates[0, :2]) for name, b in boxes.items()}
  for query in truth.queries:
    assert all(area[name] >= mini_benchmark.EASY_MIN_AREA for name in query.easy)
    assert any(area[name] < mini_benchmark.EASY_MIN_AREA for name in query.hard)


def test_photos_decode_to_the_stated_sizes(benchmark, truth):
  for name in truth.index_images[:5]:
    image = load_image(benchmark.images_dir / name)
    assert image.shape == (mini_benchmark.SCENE_HEIGHT, mini_benchmark.SCENE_WIDTH, 3)
  for query, shown in zip(truth.queries, photos.object_photos(), strict=True):
    image, original = load_image(benchmark.queries_dir / query.image), photos.load_photo(shown.query_photo)
    assert image.shape == original.shape
    # A swap of red and blue would show here.
    np.testing.assert_allclose(image.mean(axis=(0, 1)), original.mean(axis=(0, 1)), atol=2)
    assert query.box == shown.query_box


def test_attribution_names_every_photo(benchmark):
  text = (benchmark.images_dir.parent / 'attribution.txt').read_text(encoding='utf-8')
  shown = {photo for o in photos.object_photos() for photo in (o.scene_photo, o.query_photo)}
  for photo in shown | set(photos.clutter_photos()):
    assert f'{photo.package}/{photo.filename}: {photo.credit}\n' in text


# Writing


@pytest.mark.slow
def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path):
  for name, seed in (('a', 3), ('b', 3), ('c', 4)):
    mini_benchmark.generate(tmp_path / name, seed=seed, **SMALL)
  first, second, other = (contents(tmp_path / name) for name in 'abc')
  assert first == second
  assert first.keys() == other.keys()
  assert all(first[name] != other[name] for name in first if name.startswith('index/'))
  assert not list(tmp_path.glob('*.partial'))


def test_complete_set_is_reused(tmp_path):
  calls = []
  arguments = {'seed': 1, **SMALL, 'progress': lambda done, total: calls.append((done, total))}
  first = mini_benchmark.generate(tmp_path / 'set', **arguments)
  total = len(photos.object_photos()) + 2
  assert calls == [(n + 1, total) for n in range(total)]
  calls.clear()
  assert mini_benchmark.generate(tmp_path / 'set', **arguments) == first
  assert calls == []
  for changed in ({'seed': 2}, {'scenes_per_object': 2}, {'num_distractors': 3}):
    with pytest.raises(ArtefactError, match=r'expected .* found .* delete the directory'):
      mini_benchmark.generate(tmp_path / 'set', **{**arguments, **changed})
  assert calls == []


@pytest.mark.slow
def test_interrupted_run_leaves_nothing_and_a_killed_one_is_replaced(tmp_path):
  def interrupt(done, total):
    if done == 3:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    mini_benchmark.generate(tmp_path / 'set', **SMALL, progress=interrupt)
  assert list(tmp_path.iterdir()) == []

  # What SIGKILL leaves: a partial directory.
  (tmp_path / 'set.partial' / 'index').mkdir(parents=True)
  (tmp_path / 'set.partial' / 'index' / 'scene_99999.jpg').write_bytes(b'half a fi')
  mini_benchmark.generate(tmp_path / 'set', **SMALL)
  assert [path.name for path in tmp_path.iterdir()] == ['set']
  mini_benchmark.generate(tmp_path / 'undisturbed', **SMALL)
  assert contents(tmp_path / 'set') == contents(tmp_path / 'undisturbed')


@pytest.mark.slow
def test_empty_directory_is_used_and_a_strange_one_is_refused(tmp_path):
  (tmp_path / 'empty').mkdir()
  assert mini_benchmark.generate(tmp_path / 'empty', **SMALL).boxes_path.is_file()
  (tmp_path / 'strange').mkdir()
  (tmp_path / 'strange' / 'holiday.jpg').write_bytes(b'precious')
  with pytest.raises(ArtefactError, match='choose another directory'):
    mini_benchmark.generate(tmp_path / 'strange', **SMALL)
  assert contents(tmp_path / 'strange') == {'holiday.jpg': b'precious'}


def test_place_that_cannot_be_written_is_a_user_error(tmp_path):
  (tmp_path / 'file').write_bytes(b'')
  with pytest.raises(UserError, match='cannot write the mini benchmark'):
    mini_benchmark.generate(tmp_path / 'file' / 'set', **SMALL)


@pytest.mark.parametrize(
  'arguments', [{'seed': -1}, {'scenes_per_object': 0}, {'num_distractors': -1}], ids=lambda a: next(iter(a))
)
def test_numbers_out_of_range(tmp_path, arguments):
  with pytest.raises(ValueError, match=r'expected at least \d, found -?\d'):
    mini_benchmark.generate(tmp_path / 'set', **arguments)
  assert list(tmp_path.iterdir()) == []


def test_no_distractors(tmp_path):
  made = mini_benchmark.generate(tmp_path / 'set', scenes_per_object=1, num_distractors=0)
  assert len(list(made.images_dir.iterdir())) == len(photos.object_photos())


# Photos


def test_missing_package_names_the_remedy(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(UserError, match='pip install scikit-image'):
    photos.photo_path(photos.object_photos()[0].scene_photo)


def test_missing_file_names_the_remedy():
  absent = dataclasses.replace(photos.object_photos()[0].scene_photo, filename='absent.png')
  with pytest.raises(UserError, match='force-reinstall scikit-image'):
    photos.photo_path(absent)


def test_crop_and_shared_pixels():
  pixels = photos.load_photo(photos.object_photos()[0].scene_photo)
  assert pixels.shape == (512, 512, 3)
  assert photos.crop(pixels, (0.25, 0.5, 1.0, 1.0)).shape == (384, 256, 3)
  with pytest.raises(ValueError, match='read-only'):
    pixels[0] = 0
