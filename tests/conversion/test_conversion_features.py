"""Conversion of `.delf` files and back: regions, frames, queries, resuming, errors, later stages."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from support import legacy_files, stored_features

from delf_d2r import config as configs
from delf_d2r.conversion import codebook, features, run
from delf_d2r.conversion.run import Options
from delf_d2r.data.artefacts import feature_files
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.legacy import config_files, delf_files
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.errors import ArtefactError, UserError
from delf_d2r.models import codebook_checkpoint
from delf_d2r.stages import aggregate_features, build_index, search_index

SIZES = {'a.jpg': (100, 200), 'sub/b.png': (80, 60), 'c.jpg': (50, 50)}
# Two boxes above the threshold of 0.4, and between them in the file one below it.
BOXES = [(0.1, 0.25, 0.9, 1.0, 0.9), (0.0, 0.0, 1.0, 1.0, 0.3), (0.5, 0.505, 1.0, 0.9, 0.5)]


@pytest.fixture
def there(tmp_path):
  """The folders of the DELF code: photos, features, boxes and the mapping."""
  legacy_files.photos(tmp_path / 'photos', SIZES)
  folder = tmp_path / 'delf'
  folder.mkdir()
  for seed, (name, rows) in enumerate({'a': 4, 'a_0': 2, 'a_1': 3, 'b': 5, 'b_0': 0, 'c': 0}.items()):
    locations = np.random.default_rng(seed).integers(0, 200, (rows, 2)) / 4
    (folder / f'{name}.delf').write_bytes(legacy_files.delf(locations, legacy_files.unit(rows, seed=seed)))
  (tmp_path / 'boxes').mkdir()
  (tmp_path / 'boxes' / 'a.boxes').write_bytes(legacy_files.boxes(BOXES))
  (tmp_path / 'boxes' / 'b.boxes').write_bytes(legacy_files.boxes(BOXES[:1]))
  rows = [('a', 0, -1), ('a_0', 0, 0), ('a_1', 0, 1), ('b', 1, -1), ('b_0', 1, 0), ('c', 2, -1)]
  text = ''.join(f'{name},{image},{box}\r\n' for name, image, box in rows)
  (tmp_path / 'mapping.csv').write_bytes(b'name,index_image_id,box_id\r\n' + text.encode())
  (tmp_path / 'delf_config.pbtxt').write_text(legacy_files.CONFIG)
  return tmp_path


def options(there, **more):
  given = {'images': there / 'photos', 'config_path': there / 'delf_config.pbtxt', **more}
  return Options(**{key: str(value) if key != 'redo' else value for key, value in given.items()})


def with_regions(there, **more):
  return options(there, mapping=there / 'mapping.csv', boxes=there / 'boxes', **more)


def read(path):
  return list(feature_files.read(Artefact.open(path, 'features')))


def test_whole_images_and_boxes(there):
  run.run(there / 'delf', there / 'out', with_regions(there))
  a, c, b = read(there / 'out')
  assert (a.name, a.height, a.width, b.name, c.name) == ('a.jpg', 100, 200, 'sub/b.png', 'c.jpg')
  assert a.region_offsets.tolist() == [0, 4, 6, 9]
  assert b.region_offsets.tolist() == [0, 5, 5]
  assert c.region_offsets.tolist() == [0, 0]
  assert c.features.descriptors.shape == (0, 3)
  # The two boxes of the highest scores, in the order of the file.
  assert_allclose(a.boxes, [(0, 0, 1, 1), BOXES[0][:4], BOXES[2][:4]])
  whole = np.random.default_rng(0).integers(0, 200, (4, 2)) / 4
  assert_array_equal(a.region(0).locations, whole)
  assert_array_equal(a.region(0).descriptors, legacy_files.unit(4, seed=0))
  assert_array_equal(a.region(0).attention, [120, 119, 118, 117])
  # Crops begin at the floor of 0.1 * 100 and 0.25 * 200, of 0.5 * 100 and 0.505 * 200.
  for region, origin, rows in ((1, (10, 50), 2), (2, (50, 101), 3)):
    crop = np.random.default_rng(region).integers(0, 200, (rows, 2)) / 4
    assert_array_equal(a.region(region).locations, crop + origin)


def test_bytes_come_back(there):
  run.run(there / 'delf', there / 'out', with_regions(there))
  run.run(there / 'out', there / 'back', Options())
  for name in ('a', 'a_0', 'a_1'):
    assert (there / 'back' / f'{name}.delf').read_bytes() == (there / 'delf' / f'{name}.delf').read_bytes()
  for name in ('b', 'b_0'):
    assert (there / 'back' / 'sub' / f'{name}.delf').read_bytes() == (
      there / 'delf' / f'{name}.delf'
    ).read_bytes()
  expected = (
    'name,index_image_id,box_id\r\na,0,-1\r\na_0,0,0\r\na_1,0,1\r\nc,1,-1\r\nsub/b,2,-1\r\nsub/b_0,2,0\r\n'
  )
  assert (there / 'back' / 'index_mapping.csv').read_bytes().decode() == expected
  # And back to the same artefact, with the boxes beside the features.
  again = options(there, mapping=there / 'back' / 'index_mapping.csv')
  run.run(there / 'back', there / 'again', again)
  for one, other in zip(read(there / 'out'), read(there / 'again'), strict=True):
    assert_array_equal(one.boxes, other.boxes)
    assert_array_equal(one.features.locations, other.features.locations)
    assert_array_equal(one.region_offsets, other.region_offsets)


def test_locations_of_any_float_come_back_closely(there):
  places = np.random.default_rng(0).uniform(0, 50, (2, 2)).astype(np.float32)
  (there / 'delf' / 'a_0.delf').write_bytes(legacy_files.delf(places, legacy_files.unit(2)))
  run.run(there / 'delf', there / 'out', with_regions(there))
  run.run(there / 'out', there / 'back')
  found = read(there / 'out')[0].region(1).locations
  assert_allclose(found, places + np.array([10, 50]), atol=1e-4)
  back = delf_files.read(there / 'back' / 'a_0.delf').locations
  assert_allclose(back, places, atol=1e-4)


def test_without_mapping_whole_images_alone(there):
  run.run(there / 'delf', there / 'out', options(there))
  assert [image.num_regions for image in read(there / 'out')] == [1, 1, 1]


def test_queries_are_in_the_frame_of_their_photo(there):
  truth = {
    'version': 1,
    'queries': [
      {'image': 'a.jpg', 'name': 'a query', 'box_pixels': [30.4, 20.6, 130, 90], 'easy': ['sub/b.png']},
      {'image': 'c.jpg', 'name': 'c', 'easy': ['a.jpg']},
    ],
  }
  (there / 'truth.json').write_text(json.dumps(truth))
  (there / 'query').mkdir()
  for name in ('a query', 'c'):
    (there / 'query' / f'{name}.delf').write_bytes(legacy_files.delf([(1.5, 2.5)], legacy_files.unit(1)))
  given = options(there, queries=True, ground_truth=there / 'truth.json')
  run.run(there / 'query', there / 'out', given)
  cropped, whole = read(there / 'out')
  assert (cropped.name, whole.name) == ('a query', 'c')
  assert_allclose(cropped.boxes, [(0.21, 0.15, 0.9, 0.65)])
  assert_array_equal(cropped.features.locations, [(22.5, 32.5)])
  assert_array_equal(whole.features.locations, [(1.5, 2.5)])
  run.run(there / 'out', there / 'back')
  assert sorted(file.name for file in (there / 'back').iterdir()) == ['a query.delf', 'c.delf']
  for name in ('a query', 'c'):
    assert (there / 'back' / f'{name}.delf').read_bytes() == (there / 'query' / f'{name}.delf').read_bytes()
  with pytest.raises(UserError, match='--queries needs --ground_truth'):
    run.run(there / 'query', there / 'other', options(there, queries=True))


def test_later_stages_take_what_was_converted(there):
  config = there / 'delf_config.pbtxt'
  codebook_checkpoint.write(there / 'words', legacy_files.unit(4, seed=9), name_based=True)
  run.run(there / 'words', there / 'codebook', options(there))
  run.run(there / 'delf', there / 'out', with_regions(there))
  made = Artefact.open(there / 'out', 'features'), Artefact.open(there / 'codebook', 'codebook')
  kinds = configs.load_or_default(
    None, ['aggregation'], overrides=['aggregation.regions: REGIONAL_AGGREGATION']
  )
  descriptors = aggregate_features.run(kinds, *made, there / 'descriptors')
  index = build_index.run(kinds, descriptors, made[1], there / 'index')
  assert index.counts['images'] == 3
  assert index.config.extraction == config_files.load_extraction(config).extraction
  (there / 'truth.json').write_text('{"version": 1, "queries": [{"image": "a.jpg", "easy": ["c.jpg"]}]}')
  run.run(there / 'delf', there / 'q', options(there, queries=True, ground_truth=there / 'truth.json'))
  queries = Artefact.open(there / 'q', 'features')
  rankings = search_index.run(configs.load_or_default(None, ['search']), index, queries, there / 'rankings')
  # The query's own photo first.
  assert np.load(rankings.path / 'image_ids.npy')[0, 0] == 0


def test_codebook_of_other_dimensions_is_refused(there):
  codebook_checkpoint.write(there / 'words', legacy_files.unit(4, 5), name_based=True)
  run.run(there / 'words', there / 'codebook', options(there))
  run.run(there / 'delf', there / 'out', options(there))
  made = Artefact.open(there / 'out', 'features'), Artefact.open(there / 'codebook', 'codebook')
  with pytest.raises(UserError, match=r'out has descriptors of 3 dimensions, the visual words of .* have 5'):
    aggregate_features.run(configs.default('aggregation'), *made, there / 'descriptors')


def test_photos_without_a_file_are_named(there):
  (there / 'delf' / 'c.delf').unlink()
  run.run(there / 'delf', there / 'out', options(there))
  assert [image.name for image in read(there / 'out')] == ['a.jpg', 'sub/b.png']
  (error,) = map(json.loads, (there / 'out' / 'errors.jsonl').read_text().splitlines())
  assert error['name'] == 'c.jpg'
  assert "no .delf file of 'c.jpg'" in error['error']


def test_photos_that_cannot_be_read_are_named(there):
  (there / 'photos' / 'c.jpg').write_bytes(b'no photo')
  run.run(there / 'delf', there / 'out', options(there))
  (error,) = map(json.loads, (there / 'out' / 'errors.jsonl').read_text().splitlines())
  assert error['name'] == 'c.jpg'
  assert 'not an image that Pillow can read' in error['error']


def test_stopped_conversion_goes_on(there, monkeypatch):
  config = config_files.load_extraction(
    there / 'delf_config.pbtxt', overrides=['extraction.images_per_shard: 1']
  )
  dataset = Dataset.load(there / 'photos')
  where = {'mapping': there / 'mapping.csv', 'boxes': there / 'boxes'}
  original, read_files = delf_files.read, []

  def stops(path):
    read_files.append(path.name)
    if path.name == 'b.delf':
      raise KeyboardInterrupt
    return original(path)

  monkeypatch.setattr(delf_files, 'read', stops)
  with pytest.raises(KeyboardInterrupt):
    features.read(there / 'delf', dataset, config, there / 'out', **where)
  monkeypatch.setattr(delf_files, 'read', lambda path: (read_files.append(path.name), original(path))[1])
  read_files.clear()
  features.read(there / 'delf', dataset, config, there / 'out', **where)
  # The first file is read for its dimensions, and then only the image that is left.
  assert read_files == ['a.delf', 'b.delf', 'b_0.delf']
  features.read(there / 'delf', dataset, config, there / 'at_once', **where)
  for one, other in zip(read(there / 'out'), read(there / 'at_once'), strict=True):
    assert_array_equal(one.features.locations, other.features.locations)


def test_other_files_at_the_same_place_are_refused(there):
  run.run(there / 'delf', there / 'out', with_regions(there))
  run.run(there / 'delf', there / 'out', with_regions(there))
  (there / 'delf' / 'c.delf').write_bytes(legacy_files.delf([(1, 1)], legacy_files.unit(1)))
  with pytest.raises(ArtefactError, match=r'input delf_files is \w{16} \(.*\) there, \w{16} \(.*\) here'):
    run.run(there / 'delf', there / 'out', with_regions(there))
  run.run(there / 'delf', there / 'out', with_regions(there, redo=True))
  assert len(read(there / 'out')[1].features) == 1
  run.run(there / 'out', there / 'back')
  run.run(there / 'out', there / 'back')
  (there / 'back' / 'a.delf').write_bytes(b'other')
  with pytest.raises(UserError, match=r'a\.delf: exists with other contents \(5 bytes there, \d+ here\)'):
    run.run(there / 'out', there / 'back')
  run.run(there / 'out', there / 'back', Options(redo=True))
  assert (there / 'back' / 'a.delf').read_bytes() == (there / 'delf' / 'a.delf').read_bytes()


def break_dimension(there):
  (there / 'delf' / 'b.delf').write_bytes(legacy_files.delf([(1, 1)], legacy_files.unit(1, 5)))


def break_bytes(there):
  data = (there / 'delf' / 'a_1.delf').read_bytes()
  (there / 'delf' / 'a_1.delf').write_bytes(data[:-1])


def break_numbers(there):
  (there / 'delf' / 'a.delf').write_bytes(legacy_files.delf([(1, 1)], [(1, 0, float('nan'))]))


def break_boxes(there):
  (there / 'boxes' / 'a.boxes').write_bytes(legacy_files.boxes(BOXES[:1]))


def break_mapping(there):
  (there / 'delf' / 'b_0.delf').unlink()


def break_all(there):
  for file in (there / 'delf').iterdir():
    file.write_bytes(b'')


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (break_dimension, r'b\.delf: has 5 dimensions, the first file 3'),
    (break_bytes, r'a_1\.delf: not readable as a \.delf file'),
    (break_numbers, r'a\.delf: .*not finite'),
    (break_boxes, r'boxes: a\.jpg has 1 boxes, but 2 crops'),
    (break_mapping, r'mapping\.csv: names 1 files that are not in .*delf, such as b_0\.delf'),
    (break_all, r'no features in any of its files'),
  ],
)
def test_bad_files_are_named(there, damage, message):
  damage(there)
  with pytest.raises(UserError, match=message):
    run.run(there / 'delf', there / 'out', with_regions(there))
  assert not (there / 'out' / 'manifest.pbtxt').exists()


def test_two_files_of_one_photo(there):
  (there / 'delf' / 'sub').mkdir()
  (there / 'delf' / 'sub' / 'b.delf').write_bytes(b'')
  with pytest.raises(UserError, match=r"delf: 'b' and 'sub/b' are both of 'sub/b\.png'"):
    run.run(there / 'delf', there / 'out', options(there))


@pytest.mark.parametrize('other', ['a.png', 'a_0.jpg'])
def test_names_that_files_would_share(tmp_path, other):
  # The box of a.jpg is a_0.delf.
  of_box = stored_features.image(
    'a.jpg', np.ones((2, 2)), legacy_files.unit(2), [(0, 0, 1, 1)] * 2, (0, 1, 2)
  )
  of_other = stored_features.image(other, np.ones((1, 2)), legacy_files.unit(1))
  stored_features.write_features(
    tmp_path / 'features', [stored_features.image('0.jpg', *empty()), of_box, of_other]
  )
  with pytest.raises(UserError, match=rf"would be the file of 'a\.jpg' and of '{other}'"):
    run.run(tmp_path / 'features', tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


def empty():
  return np.zeros((0, 2)), np.zeros((0, 3), np.float32)


def test_codebook_there_and_back(there):
  words = legacy_files.unit(4)
  codebook_checkpoint.write(there / 'words', words, name_based=True)
  codebook.read(
    there / 'words', config_files.load_extraction(there / 'delf_config.pbtxt'), there / 'codebook'
  )
  assert_array_equal(np.load(there / 'codebook' / 'codebook.npy'), words)
  run.run(there / 'codebook', there / 'new' / 'words', Options(to='research_tf1'))
  for suffix in ('.index', '.data-00000-of-00001'):
    assert (there / 'new' / f'words{suffix}').read_bytes() == (there / f'words{suffix}').read_bytes()
  run.run(there / 'codebook', there / 'tf2' / 'words')
  assert_array_equal(codebook_checkpoint.read(there / 'tf2' / 'words'), words)
  before = (there / 'tf2' / 'words.index').stat().st_ino
  run.run(there / 'codebook', there / 'tf2' / 'words')
  assert (there / 'tf2' / 'words.index').stat().st_ino == before
  with pytest.raises(UserError, match=r'words\.index: exists already, with other contents'):
    run.run(there / 'codebook', there / 'tf2' / 'words', Options(to='research_tf1'))
  codebook_checkpoint.write(there / 'tf2' / 'words', 2 * words, name_based=False)
  with pytest.raises(UserError, match=r'words\.index: exists already, with other contents'):
    run.run(there / 'codebook', there / 'tf2' / 'words')
  codebook_checkpoint.write(there / 'words', 2 * words, name_based=True)
  with pytest.raises(ArtefactError, match='input checkpoint is'):
    run.run(there / 'words', there / 'codebook', options(there))
