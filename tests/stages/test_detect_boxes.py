"""detect_boxes: every source, limits that leave nothing, unreadable photos, resuming, processes."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from support.detection_models import photo, write_tf1, write_tf2

from delf_d2r import config as configs
from delf_d2r.data.artefacts import records
from delf_d2r.data.artefacts.artefact_writer import read_errors
from delf_d2r.data.legacy import box_files
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.errors import ArtefactError, ImageError, UserError
from delf_d2r.extractors import photo_boxes
from delf_d2r.geometry import boxes as geometry
from delf_d2r.stages import detect_boxes
from delf_d2r.structures import Boxes

# A photo with nothing, one with both colours, two of one colour.
PHOTOS = {
  'a.png': photo(30, 40),
  'b.png': photo(40, 50, red=(10, 5, 30, 20, 255), green=(0, 20, 20, 40, 102)),
  'c.png': photo(40, 50, green=(4, 5, 20, 40, 204)),
  'sub/d.png': photo(40, 50, red=(8, 5, 20, 50, 51)),
}


@pytest.fixture(scope='module')
def model(tmp_path_factory) -> str:
  return write_tf1(tmp_path_factory.mktemp('model') / 'tf1')


@pytest.fixture
def folder(tmp_path):
  (tmp_path / 'photos' / 'sub').mkdir(parents=True)
  for name, pixels in PHOTOS.items():
    Image.fromarray(pixels).save(tmp_path / 'photos' / name)
  return tmp_path / 'photos'


def regions(*overrides):
  return configs.load_or_default(None, ['regions'], overrides=[f'regions {{ {text} }}' for text in overrides])


def run(folder, output, *overrides, **options):
  return detect_boxes.run(regions(*overrides), Dataset.load(folder), output, **options)


def detected(folder, output, model, *overrides, workers=1, **options):
  source = f'source: DETECTOR detector {{ model_path: "{model}" }}'
  return run(folder, output, source, *overrides, workers=workers, **options)


def read(artefact) -> dict[str, Boxes]:
  return dict(map(records.decode_boxes, artefact.records()))


def assert_same(found: dict[str, Boxes], expected: dict[str, Boxes]):
  assert found.keys() == expected.keys()
  for name, boxes in expected.items():
    assert_array_equal(found[name].coordinates, boxes.coordinates)
    assert_array_equal(found[name].scores, boxes.scores)


# Detector


def test_detected_boxes(folder, tmp_path, model):
  artefact = detected(folder, tmp_path / 'boxes', model)
  found = read(artefact)
  assert list(found) == list(PHOTOS)
  assert_allclose(found['b.png'].coordinates, [[0.25, 0.1, 0.75, 0.4], [0, 0.4, 0.5, 0.8]], rtol=1e-6)
  assert_allclose(found['b.png'].scores, [1, 0.4], rtol=1e-6)
  assert_allclose(found['sub/d.png'].coordinates, [[0.2, 0.1, 0.5, 1]], rtol=1e-6)
  assert artefact.counts == {
    'images': 4,
    'boxes': 4,
    'candidates': 4,
    'without_boxes': 1,
    'failed': 0,
    'images_with_01_boxes': 2,
    'images_with_02_boxes': 1,
    'scores_from_0.2': 1,
    'scores_from_0.4': 1,
    'scores_from_0.8': 1,
    'scores_from_0.9': 1,
  }


@pytest.mark.slow
def test_processes_and_batches_give_what_one_gives(folder, tmp_path, model):
  alone = detected(folder, tmp_path / 'a', model)
  options = 'detector { batch_size: 3 images_per_shard: 3 }'
  together = detected(folder, tmp_path / 'b', model, options, workers=2)
  assert [shard.records for shard in together.manifest.shards] == [3, 1]
  assert_same(read(together), read(alone))


def test_large_photos_are_reduced(folder, tmp_path, model, monkeypatch):
  sizes = []
  batch = photo_boxes.BoxDetector.batch
  monkeypatch.setattr(
    photo_boxes.BoxDetector,
    'batch',
    lambda self, images: sizes.extend(image.shape for image in images) or batch(self, images),
  )
  found = read(detected(folder, tmp_path / 'a', model, 'detector { max_image_size: 25 }'))
  assert sizes == [(19, 25, 3)] + [(20, 25, 3)] * 3
  assert_allclose(found['b.png'].coordinates[0], [0.25, 0.1, 0.75, 0.4], atol=0.05)


def test_orientation(tmp_path, model):
  (tmp_path / 'photos').mkdir()
  exif = Image.Exif()
  exif[0x0112] = 6  # Shown turned clockwise.
  pixels = photo(40, 80, red=(0, 20, 10, 40, 255))
  Image.fromarray(pixels).save(tmp_path / 'photos' / 'a.png', exif=exif)
  upright = read(detected(tmp_path / 'photos', tmp_path / 'a', model))['a.png']
  assert_allclose(upright.coordinates, [[0.25, 0.75, 0.5, 1]], rtol=1e-6)
  stored = detected(tmp_path / 'photos', tmp_path / 'b', model, 'detector { apply_exif_orientation: false }')
  assert_allclose(read(stored)['a.png'].coordinates, [[0, 0.25, 0.25, 0.5]], rtol=1e-6)


def test_limits(folder, tmp_path, model):
  found = read(detected(folder, tmp_path / 'a', model, 'min_score: 0.3 max_boxes: 1'))
  assert [len(boxes) for boxes in found.values()] == [0, 1, 1, 0]


def test_limits_that_leave_nothing_are_explained(folder, tmp_path, model):
  message = (
    r'min_score 0\.85, min_area 0\.5\) leave none of the 4 boxes on 4 photos; the best box there scores 1'
    r' \(b\.png\)'
  )
  with pytest.raises(UserError, match=message):
    detected(folder, tmp_path / 'a', model, 'min_score: 0.85 min_area: 0.5')
  assert not list((tmp_path / 'a').iterdir())


def test_photos_that_lose_all_their_boxes_are_told(folder, tmp_path, model, caplog):
  caplog.set_level('INFO', logger='absl')
  detected(folder, tmp_path / 'a', model, 'min_score: 0.9')
  assert 'boxes: 1 of 4 on 4 photos, 3 photos without any; 0 could not be read' in caplog.text
  told = 'the limits of regions (min_score 0.9, min_area 0) leave none, the best box there scores 0.8 (c.png)'
  assert told in caplog.text


def test_detector_that_finds_nothing_is_no_error(tmp_path, model, caplog):
  (tmp_path / 'photos').mkdir()
  Image.fromarray(PHOTOS['a.png']).save(tmp_path / 'photos' / 'a.png')
  artefact = detected(tmp_path / 'photos', tmp_path / 'a', model)
  assert (artefact.counts['boxes'], artefact.counts['candidates']) == (0, 0)
  assert 'the detector finds nothing on any of the 1 photos' in caplog.text


def test_class_filter_that_leaves_nothing_is_explained(folder, tmp_path, model):
  with pytest.raises(UserError, match=r'no boxes at all: regions\.detector\.classes \[3\] removes every box'):
    detected(folder, tmp_path / 'a', model, 'detector { classes: 3 }')
  found = read(detected(folder, tmp_path / 'b', model, 'detector { classes: 2 }'))
  assert [len(boxes) for boxes in found.values()] == [0, 1, 1, 0]


def test_photos_that_cannot_be_decoded(folder, tmp_path, model):
  (folder / 'b.png').write_bytes(b'no photo')
  artefact = detected(folder, tmp_path / 'a', model, 'detector { batch_size: 4 }')
  assert list(read(artefact)) == ['a.png', 'c.png', 'sub/d.png']
  assert artefact.counts['failed'] == 1
  (error,) = map(json.loads, (tmp_path / 'a' / 'errors.jsonl').read_text().splitlines())
  assert error['name'] == 'b.png'
  with pytest.raises(ImageError, match=r'b\.png: not an image .*--strict'):
    detected(folder, tmp_path / 'b', model, strict=True)
  for name in PHOTOS:
    (folder / name).write_bytes(b'no photo')
  with pytest.raises(UserError, match='none of the 4 index images could be read'):
    detected(folder, tmp_path / 'c', model)


def test_a_stopped_run_goes_on(folder, tmp_path, model, monkeypatch):
  seen = []
  batch = photo_boxes.BoxDetector.batch

  def stopping(detector, images):
    seen.append(len(images))
    if len(seen) == 3:
      raise KeyboardInterrupt
    return batch(detector, images)

  monkeypatch.setattr(photo_boxes.BoxDetector, 'batch', stopping)
  options = ['detector { images_per_shard: 1 }']
  with pytest.raises(KeyboardInterrupt):
    detected(folder, tmp_path / 'a', model, *options)
  artefact = detected(folder, tmp_path / 'a', model, *options)
  assert len(seen) == 3 + 2
  assert_same(read(artefact), read(detected(folder, tmp_path / 'b', model)))
  before = len(seen)
  assert detected(folder, tmp_path / 'a', model, *options).counts == artefact.counts
  assert len(seen) == before


def test_another_model_at_the_same_place_makes_boxes_stale(folder, tmp_path, model):
  path = write_tf2(tmp_path / 'model')
  detected(folder, tmp_path / 'a', path)
  (tmp_path / 'model' / 'card.md').write_text('changed')
  with pytest.raises(ArtefactError, match='input detector is'):
    detected(folder, tmp_path / 'a', path)


def test_default_model(folder, tmp_path, model, monkeypatch):
  monkeypatch.setattr(photo_boxes, 'DEFAULT_DETECTOR', tmp_path / 'nowhere')
  with pytest.raises(UserError, match=r'model_path is empty.*this package has none.*UNIFORM'):
    run(folder, tmp_path / 'a', 'source: DETECTOR', workers=1)
  assert not (tmp_path / 'a').exists()
  monkeypatch.setattr(photo_boxes, 'DEFAULT_DETECTOR', type(tmp_path)(model))
  assert run(folder, tmp_path / 'a', 'source: DETECTOR', workers=1).counts['boxes'] == 4


def test_a_photo_alone_has_the_boxes_that_the_stage_gives_it(folder, tmp_path):
  stored = detected(folder, tmp_path / 'a', write_tf2(tmp_path / 'model'))
  find = photo_boxes.build(stored.config.regions)
  for name, boxes in map(records.decode_boxes, stored.records()):
    found = find(np.array(Image.open(folder / name)))
    assert_array_equal(found.coordinates, boxes.coordinates)
    assert_array_equal(found.scores, boxes.scores)


def test_no_detector_at_all(folder, tmp_path):
  with pytest.raises(UserError, match=r'no file saved_model\.pb'):
    detected(folder, tmp_path / 'a', folder)


# Other sources


def test_sources_that_look_at_no_photo(folder, tmp_path):
  (folder / 'b.png').write_bytes(b'no photo')
  assert run(folder, tmp_path / 'none').counts == {
    'images': 4,
    'boxes': 0,
    'candidates': 0,
    'without_boxes': 4,
    'failed': 0,
  }
  grid = run(folder, tmp_path / 'grid', 'source: UNIFORM uniform { boxes_per_side: [2] overlap: 0 }')
  assert (grid.counts['images_with_04_boxes'], grid.counts['scores_from_0.9']) == (4, 16)
  assert_same(read(grid), dict.fromkeys(PHOTOS, geometry.uniform_grid([2], overlap=0)))


def test_only_a_detector_loads_tensorflow(folder, tmp_path):
  code = f"""
import pathlib, sys
from delf_d2r import config
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.stages import detect_boxes as detect
regions = config.load_or_default(None, ['regions'], overrides=[
  'regions {{ source: UNIFORM uniform {{ boxes_per_side: [2] }} }}'])
detect.run(regions, Dataset.load({str(folder)!r}), pathlib.Path({str(tmp_path / 'boxes')!r}))
sys.exit('tensorflow' in sys.modules)
"""
  assert subprocess.run([sys.executable, '-c', code], check=False, capture_output=True).returncode == 0


def test_file_in_three_forms(folder, tmp_path, model):
  artefact = detected(folder, tmp_path / 'boxes', model)
  box_files.write_directory(tmp_path / 'legacy', read(artefact).items())
  rows = [
    ','.join([name, *map(repr, map(float, box)), repr(float(score))])
    for name, boxes in read(artefact).items()
    for box, score in zip(boxes.coordinates, boxes.scores, strict=True)
  ]
  (tmp_path / 'boxes.csv').write_text('\n'.join(['image,ymin,xmin,ymax,xmax,score', *rows]))
  for name in ('boxes', 'legacy', 'boxes.csv'):
    found = run(folder, tmp_path / f'of {name}', f'source: FILE file_path: "{tmp_path / name}"')
    assert_same(read(found), read(artefact))


def test_other_limits_without_detecting_again(folder, tmp_path, model):
  everything = detected(folder, tmp_path / 'all', model)
  fewer = run(folder, tmp_path / 'a', 'source: FILE min_score: 0.5', boxes_path=everything.path)
  assert_same(read(fewer), read(detected(folder, tmp_path / 'b', model, 'min_score: 0.5')))
  # The same boxes, wherever they lie and whenever they were made.
  again = detected(folder, tmp_path / 'again', model)
  assert (
    run(folder, tmp_path / 'a', 'source: FILE min_score: 0.5', boxes_path=again.path).counts == fewer.counts
  )
  with pytest.raises(ArtefactError, match='input boxes_file is'):
    run(folder, tmp_path / 'a', 'source: FILE min_score: 0.5', boxes_path=fewer.path)


def sizes(boxes: Boxes):
  return boxes.coordinates[:, 2:] - boxes.coordinates[:, :2]


def test_random_boxes_have_number_and_sizes_of_others(folder, tmp_path, model):
  like = detected(folder, tmp_path / 'like', model)
  imitated = read(like)
  found = read(run(folder, tmp_path / 'a', f'source: RANDOM random {{ like: "{like.path}" }}'))
  assert found.keys() == imitated.keys()
  for name, boxes in found.items():
    assert_allclose(sizes(boxes), sizes(imitated[name]), atol=1e-6)
    assert_array_equal(boxes.scores, imitated[name].scores)
    assert not len(boxes) or np.all(boxes.coordinates[:, 0] != imitated[name].coordinates[:, 0])
  # The flag takes the field's place.
  assert_same(read(run(folder, tmp_path / 'b', 'source: RANDOM', boxes_path=like.path)), found)


def test_random_places_depend_on_name_and_seed_alone(folder, tmp_path, model):
  like = detected(folder, tmp_path / 'like', model).path
  found = read(run(folder, tmp_path / 'a', 'source: RANDOM', boxes_path=like))
  (folder / 'b.png').unlink()
  fewer = read(run(folder, tmp_path / 'b', 'source: RANDOM', boxes_path=like))
  assert_same(fewer, {name: boxes for name, boxes in found.items() if name != 'b.png'})
  other = read(run(folder, tmp_path / 'c', 'source: RANDOM random { seed: 1 }', boxes_path=like))
  assert np.all(other['c.png'].coordinates != fewer['c.png'].coordinates)


def test_limits_hold_for_the_boxes_that_random_ones_imitate(folder, tmp_path, model):
  like = detected(folder, tmp_path / 'like', model).path
  limits = 'min_score: 0.3 max_overlap: 0.01'
  wanted = read(run(folder, tmp_path / 'a', f'source: FILE {limits}', boxes_path=like))
  found = read(run(folder, tmp_path / 'b', f'source: RANDOM {limits}', boxes_path=like))
  for name, boxes in wanted.items():
    assert_allclose(sizes(found[name]), sizes(boxes), atol=1e-6)


def test_file_that_is_missing_or_not_asked_for(folder, tmp_path):
  for source, field in (('FILE', 'regions.file_path'), ('RANDOM', 'regions.random.like')):
    with pytest.raises(UserError, match=f'source is {source} but there is no file: .*{field}'):
      run(folder, tmp_path / 'a', f'source: {source}')
  with pytest.raises(UserError, match=r'--boxes_file is given but regions\.source is NONE'):
    run(folder, tmp_path / 'a', boxes_path=tmp_path)


@pytest.mark.parametrize('field', ['coordinates', 'scores'])
def test_nan_of_a_detector_is_named_with_the_photo(folder, tmp_path, model, monkeypatch, field):
  batch = photo_boxes.BoxDetector.batch

  def broken(self, images):
    return [
      dataclasses.replace(boxes, **{field: np.full_like(getattr(boxes, field), np.nan)})
      if len(boxes) == 2
      else boxes
      for boxes in batch(self, images)
    ]

  monkeypatch.setattr(photo_boxes.BoxDetector, 'batch', broken)
  artefact = detected(folder, tmp_path / 'boxes', model)
  (failure,) = read_errors(artefact)
  assert failure['name'] == 'b.png'
  assert f'{folder / "b.png"}: the detector returned NaN' in failure['error']
  assert 'b.png' not in read(artefact)
  with pytest.raises(ImageError, match='the detector returned NaN'):
    detected(folder, tmp_path / 'strict', model, strict=True)


def test_boxes_of_a_file_of_less_than_a_pixel_are_refused(folder, tmp_path):
  path = tmp_path / 'boxes.csv'
  # b.png is 50 x 40 pixels.
  path.write_text('image,ymin,xmin,ymax,xmax\nb.png,0.1,0.1,0.9,0.9\nb.png,0.1,0.1,0.102,0.9\n')
  with pytest.raises(UserError, match=r'1 boxes cover less than a pixel .* b\.png, which is 50 x 40'):
    run(folder, tmp_path / 'boxes', 'source: FILE', boxes_path=path)
  path.write_text('image,ymin,xmin,ymax,xmax\nb.png,0.1,0.1,0.9,0.9\nb.png,0.1,0.1,0.9,0.12\n')
  found = read(run(folder, tmp_path / 'boxes', 'source: FILE', boxes_path=path))
  assert len(found['b.png']) == 2
