import dataclasses
import json
import unicodedata

import numpy as np
import pytest

from delf_d2r.data.ground_truth import ground_truth
from delf_d2r.data.ground_truth.ground_truth import GroundTruth, MissingImagesError, QueryGroundTruth
from delf_d2r.data.photos import name_matching
from delf_d2r.errors import UserError

CLOCK = QueryGroundTruth(
  'clock', 'queries/clock.jpg', (0.1, 0.2, 0.9, 0.8), ('a.jpg',), ('b.jpg',), ('c.jpg',)
)
DOCUMENT = {
  'version': 1,
  'name': 'mini',
  'index_images': ['a.jpg', 'b.jpg', 'c.jpg'],
  'queries': [
    {
      'name': 'clock',
      'image': 'queries/clock.jpg',
      'box': [0.1, 0.2, 0.9, 0.8],
      'easy': ['a.jpg'],
      'hard': ['b.jpg'],
      'junk': ['c.jpg'],
    }
  ],
}
MINI = GroundTruth('mini', ('a.jpg', 'b.jpg', 'c.jpg'), (CLOCK,))


def load_text(folder, text):
  (folder / 'gnd.json').write_text(text, encoding='utf-8')
  return ground_truth.load(folder / 'gnd.json')


def load_document(folder, document):
  return load_text(folder, json.dumps(document))


def changed(**fields):
  """Returns DOCUMENT with replaced fields of its query; None removes a field."""
  query = {**DOCUMENT['queries'][0], **fields}
  return {**DOCUMENT, 'queries': [{key: value for key, value in query.items() if value is not None}]}


def assert_resolved(found, easy, hard, junk):
  for label, expected in (('easy', easy), ('hard', hard), ('junk', junk)):
    np.testing.assert_array_equal(getattr(found, label), np.array(expected, np.int64), strict=True)


def test_json_is_read(tmp_path):
  assert load_document(tmp_path, DOCUMENT) == MINI


def test_the_least_json(tmp_path):
  found = load_document(tmp_path, {'version': 1, 'queries': [{'image': 'q.jpg'}]})
  assert found == GroundTruth('gnd', (), (QueryGroundTruth('q.jpg', 'q.jpg'),))


def test_a_byte_order_mark_is_no_problem(tmp_path):
  assert load_text(tmp_path, '\ufeff' + json.dumps(DOCUMENT)) == MINI


@pytest.mark.parametrize(
  'truth',
  [
    MINI,
    GroundTruth('m', (), (QueryGroundTruth('q', 'a b/é ü 東京.jpg', easy=('東京 1.jpg',)),)),
    GroundTruth('m', (), (QueryGroundTruth('q', 'q', box_pixels=(136.5, 34.1, 648.5, 955.7)),)),
  ],
)
def test_round_trip(tmp_path, truth):
  path = tmp_path / 'gnd.json'
  ground_truth.save_json(truth, path)
  assert ground_truth.load(path) == truth
  first = path.read_bytes()
  ground_truth.save_json(ground_truth.load(path), path)
  assert path.read_bytes() == first
  assert [p.name for p in tmp_path.iterdir()] == ['gnd.json']


def test_saved_json_is_readable_text(tmp_path):
  truth = GroundTruth('m', (), (QueryGroundTruth('q', 'Zürich 東京.jpg'),))
  ground_truth.save_json(truth, tmp_path / 'gnd.json')
  text = (tmp_path / 'gnd.json').read_text(encoding='utf-8')
  assert 'Zürich 東京.jpg' in text
  assert list(json.loads(text)) == ['index_images', 'name', 'queries', 'version']


def test_a_name_that_is_not_unicode_is_refused(tmp_path):
  with pytest.raises(ValueError, match=r'caf\\udce9\.jpg.*UTF-8'):
    QueryGroundTruth('q', 'caf\udce9.jpg')
  path = tmp_path / 'gnd.json'
  path.write_text('{"version": 1, "queries": [{"image": "a.jpg", "name": "\\ud800"}]}')
  with pytest.raises(UserError, match=r'gnd\.json: .*UTF-8'):
    ground_truth.load(path)


@pytest.mark.parametrize(
  ('document', 'message'),
  [
    ([], 'the file: expected a JSON object, found list'),
    ({'version': 1}, r"missing keys \['queries'\]; expected keys are version, name"),
    ({**DOCUMENT, 'version': 2}, 'version: expected 1, found 2'),
    ({**DOCUMENT, 'version': True}, 'version: expected 1, found True'),
    ({**DOCUMENT, 'positives': []}, r"unknown keys \['positives'\]; expected keys are"),
    ({**DOCUMENT, 'name': 3}, 'name: expected a text that is not empty, found 3'),
    ({**DOCUMENT, 'queries': []}, 'queries: expected at least one, found none'),
    ({**DOCUMENT, 'queries': {}}, 'queries: expected a list, found dict'),
    ({**DOCUMENT, 'queries': [3]}, r'queries\[0\]: expected a JSON object, found int'),
    ({**DOCUMENT, 'queries': DOCUMENT['queries'] * 2}, "query 'clock' appears 2 times"),
    ({**DOCUMENT, 'index_images': 'a.jpg'}, 'index_images: expected a list, found str'),
    ({**DOCUMENT, 'index_images': ['a.jpg', 'a.jpg']}, "index_images: 'a.jpg' appears 2 times"),
    (
      {**DOCUMENT, 'index_images': ['a.jpg', 'b.jpg']},
      "query 'clock': junk names 'c.jpg', which is not among the 2",
    ),
    (changed(medium=['a.jpg']), r"query 'clock': unknown keys \['medium'\]"),
    (changed(image=None), r"query 'clock': missing keys \['image'\]"),
    (changed(image=''), "query 'clock': image: expected a text that is not empty, found ''"),
    (changed(name=7), 'query 7: name: expected a text'),
    (changed(easy='a.jpg'), "query 'clock': easy: expected a list, found str"),
    (changed(easy=[3]), "query 'clock': easy: expected a text that is not empty, found 3"),
    (changed(easy=['a.jpg', 'a.jpg']), "query 'clock': easy: 'a.jpg' appears 2 times"),
    (changed(hard=['a.jpg']), "query 'clock': 'a.jpg' is both easy and hard"),
    (changed(junk=['b.jpg']), "query 'clock': 'b.jpg' is both hard and junk"),
    (changed(box=[0.1, 0.2, 0.9]), r"query 'clock': box: expected \[ymin, .* four finite numbers"),
    (changed(box=[0.1, 0.2, 0.9, '1']), 'four finite numbers'),
    (changed(box=[0.1, 0.2, 0.9, True]), 'four finite numbers'),
    (changed(box=[0.5, 0.2, 0.5, 0.8]), r'minimum below its maximum, found \[0.5, 0.2, 0.5, 0.8\]'),
    (changed(box=[0.1, 0.8, 0.9, 0.2]), 'minimum below its maximum'),
    (changed(box=[-0.1, 0.2, 0.9, 0.8]), r'normalised to \[0, 1\], found \[-0.1, '),
    (
      changed(box=[10, 20, 90, 80]),
      r'normalised to \[0, 1\], found \[10, 20, 90, 80\]; pixels must be divided',
    ),
    (changed(box=[0, 0, 1, 10**400]), r'normalised to \[0, 1\]'),
    (changed(box_pixels=[1, 2, 3, 4]), "query 'clock': found both box and box_pixels"),
    (changed(box=None, box_pixels=[80, 10, 20, 90]), r'\[xmin, ymin, xmax, ymax\] with each minimum below'),
  ],
)
def test_contradictions_are_refused_naming_file_and_query(tmp_path, document, message):
  with pytest.raises(UserError, match=message) as caught:
    load_document(tmp_path, document)
  assert str(tmp_path / 'gnd.json') in str(caught.value)


@pytest.mark.parametrize('label', ['easy', 'index_images'])
def test_null_is_no_list(tmp_path, label):
  document = json.loads(json.dumps(DOCUMENT))
  (document if label == 'index_images' else document['queries'][0])[label] = None
  with pytest.raises(UserError, match=f'{label}: expected a list, found NoneType'):
    load_document(tmp_path, document)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('', 'not valid JSON, the file may be cut short'),
    (json.dumps(DOCUMENT)[:-20], 'not valid JSON, the file may be cut short'),
    ('{"version": 1, "version": 1, "queries": []}', "the key 'version' appears twice"),
    (
      '{"version": 1, "queries": [{"image": "q", "box": [0, 0, NaN, 1]}]}',
      'expected finite numbers, found NaN',
    ),
    ('{"version": 1, "queries": [{"image": "q", "box": [0, 0, 1e999, 1]}]}', 'four finite numbers'),
    ('[' * 100_000, 'nested too deeply'),
  ],
)
def test_damaged_json_is_refused(tmp_path, text, message):
  with pytest.raises(UserError, match=message) as caught:
    load_text(tmp_path, text)
  assert 'gnd.json' in str(caught.value)


def test_json_in_another_encoding_is_refused(tmp_path):
  (tmp_path / 'gnd.json').write_bytes('{"version": 1, "name": "Zürich"}'.encode('latin1'))
  with pytest.raises(UserError, match='expected UTF-8, found byte 0xfc at 25'):
    ground_truth.load(tmp_path / 'gnd.json')


def test_absent_unreadable_and_other_files_are_refused(tmp_path):
  with pytest.raises(UserError, match=r'none\.json: cannot be read \(No such file'):
    ground_truth.load(tmp_path / 'none.json')
  (tmp_path / 'folder.json').mkdir()
  with pytest.raises(UserError, match=r'folder\.json: cannot be read \(Is a directory'):
    ground_truth.load(tmp_path / 'folder.json')
  with pytest.raises(UserError, match=r"named \.json, \.pkl or \.mat, found '\.csv'"):
    ground_truth.load(tmp_path / 'gnd.csv')


@pytest.mark.parametrize('extension', ['json', 'pkl', 'mat'])
def test_files_too_large_are_refused_unread(tmp_path, monkeypatch, extension):
  monkeypatch.setattr(ground_truth, 'MAX_FILE_BYTES', 100)
  (tmp_path / f'gnd.{extension}').write_bytes(b' ' * 101)
  with pytest.raises(UserError, match='expected at most 100 bytes, found 101'):
    ground_truth.load(tmp_path / f'gnd.{extension}')


def test_values_check_themselves_without_a_file():
  with pytest.raises(ValueError, match='names in a tuple, found list'):
    QueryGroundTruth('q', 'q.jpg', easy=['a.jpg'])
  with pytest.raises(ValueError, match='both easy and junk'):
    dataclasses.replace(CLOCK, junk=('a.jpg',))


def test_box_for_without_a_box_and_with_a_normalised_one():
  assert QueryGroundTruth('q', 'q').box_for(480, 640) is None
  assert CLOCK.box_for(480, 640) == (0.1, 0.2, 0.9, 0.8)


def test_pixel_box_is_rounded_as_the_research_code_does_and_clipped():
  query = QueryGroundTruth('q', 'q', box_pixels=(136.5, 34.1, 648.5, 955.7))
  assert query.box_for(1000, 1000) == (0.034, 0.136, 0.956, 0.648)
  assert query.box_for(900, 600) == (34 / 900, 136 / 600, 1, 1)
  assert QueryGroundTruth('q', 'q', box_pixels=(-3, -0.2, 10, 20)).box_for(40, 20) == (0, 0, 0.5, 0.5)


def test_pixel_box_outside_the_photo_is_refused():
  query = QueryGroundTruth('clock', 'q.jpg', box_pixels=(136.5, 34.1, 648.5, 955.7))
  with pytest.raises(ValueError, match=r"'clock': .*\[136.5, 34.1, 648.5, 955.7\].*'q.jpg' \(100 x 900"):
    query.box_for(900, 100)


@pytest.mark.parametrize('size', [(500, 200), (640, 360), (900, 392)])
def test_pixel_box_mostly_outside_the_photo_is_refused(size):
  query = QueryGroundTruth('clock', 'q.jpg', box_pixels=(136.5, 34.1, 648.5, 955.7))
  with pytest.raises(UserError, match=r"'clock': .*more than half of it outside .*'q.jpg'"):
    query.box_for(*size)


@pytest.mark.parametrize('box', [(0.1, 0.2, 0.9, 0.8), (0, 0, 1, 1), (0.5, 0.5, 0.9, 1.0)])
def test_pixel_box_that_is_normalised_is_refused(box):
  with pytest.raises(ValueError, match=r"'q': box_pixels: .* normalised"):
    QueryGroundTruth('q', 'q.jpg', box_pixels=box)


def test_box_of_less_than_a_pixel_is_refused():
  query = QueryGroundTruth('clock', 'q.jpg', box=(0.1, 0.2, 0.1001, 0.8))
  with pytest.raises(UserError, match=r"'clock': .* less than a pixel of 'q.jpg' \(640 x 480"):
    query.box_for(480, 640)
  assert QueryGroundTruth('q', 'q', box=(0.5, 0.5, 0.5 + 1 / 480, 0.75)).box_for(480, 640) is not None


def test_resolve_gives_positions():
  (found,) = ground_truth.resolve(MINI, ['distractor.jpg', 'c.jpg', 'b.jpg', 'a.jpg'])
  assert found.name == 'clock'
  assert_resolved(found, [3], [2], [1])


def test_resolve_of_empty_lists_keeps_the_dtype():
  (found,) = ground_truth.resolve(GroundTruth('m', (), (QueryGroundTruth('q', 'q'),)), [])
  assert_resolved(found, [], [], [])


def test_leave_one_out_is_junk():
  query = QueryGroundTruth('a', 'a.jpg', easy=('b.jpg',), junk=('a.jpg',))
  (found,) = ground_truth.resolve(GroundTruth('m', (), (query,)), ['a.jpg', 'b.jpg'])
  assert_resolved(found, [1], [], [0])


def test_photos_of_one_name_in_two_folders_are_kept_apart():
  query = QueryGroundTruth('q', 'q', easy=('one/a.jpg',), hard=('two/a.jpg',))
  (found,) = ground_truth.resolve(GroundTruth('m', (), (query,)), ['two/a.jpg', 'one/a.jpg'])
  assert_resolved(found, [1], [0], [])
  loose = GroundTruth('m', (), (QueryGroundTruth('q', 'q', easy=('a',)),))
  with pytest.raises(UserError, match=r"'a' matches 2 photos \('two/a.jpg', 'one/a.jpg'\); write the path"):
    ground_truth.resolve(loose, ['two/a.jpg', 'one/a.jpg'])


@pytest.mark.parametrize(
  ('name', 'images', 'expected'),
  [
    ('a.jpg', ['x/a.jpg', 'a.jpg'], 1),
    ('x/a', ['a.jpg', 'x/a.jpg'], 1),
    ('a.jpg', ['x/b.jpg', 'x/a.jpg'], 1),
    ('all_souls_000013', ['x.jpg', 'jpg/all_souls_000013.jpg'], 1),
    ('a', ['x/a.jpg', 'a.jpg'], 1),  # The path without extension goes before the bare stem.
    ('a.b', ['a.jpg', 'a.b.jpg'], 1),  # A dot in a name is not an extension.
    ('name with  spaces.jpg', ['name with spaces.jpg', 'name with  spaces.jpg'], 1),
  ],
)
def test_names_are_found_step_by_step(name, images, expected):
  assert name_matching.match_names([name], images, source='test') == {name: expected}


@pytest.mark.parametrize('loose', ['ordner/{}.jpg', 'ordner/{}', '{}.jpg', '{}'])
def test_unicode_normalisation_does_not_break_a_match(loose):
  composed, split = (unicodedata.normalize(form, 'Zürich Café') for form in ('NFC', 'NFD'))
  assert composed != split
  for name, photo in ((composed, split), (split, composed)):
    wanted = loose.format(name)
    found = name_matching.match_names([wanted], ['b.jpg', f'ordner/{photo}.jpg'], source='test')
    assert found == {wanted: 1}


def test_photos_that_differ_by_normalisation_alone_are_kept_apart():
  images = [unicodedata.normalize(form, 'é.jpg') for form in ('NFC', 'NFD')]
  query = QueryGroundTruth('q', 'q', easy=(images[0],), hard=(images[1],))
  (found,) = ground_truth.resolve(GroundTruth('m', tuple(images), (query,)), images)
  assert_resolved(found, [0], [1], [])


def test_index_images_and_labels_may_differ_by_normalisation():
  composed, split = (unicodedata.normalize(form, 'é.jpg') for form in ('NFC', 'NFD'))
  truth = GroundTruth('m', (composed,), (QueryGroundTruth('q', 'q', easy=(split,)),))
  assert_resolved(ground_truth.resolve(truth, [composed])[0], [0], [], [])


@pytest.mark.parametrize('wrong', ['b', 'a.png', 'y/a.jpg', 'A.jpg', './x/a.jpg', ''])
def test_a_name_is_never_guessed(wrong):
  with pytest.raises(MissingImagesError):
    name_matching.match_names([wrong], ['x/a.jpg'], source='test')


def test_missing_photos_are_named_and_counted():
  names = tuple(f'scenes/{i}.jpg' for i in range(9))
  truth = GroundTruth('mini', (), (QueryGroundTruth('q', 'q', easy=names),))
  with pytest.raises(MissingImagesError) as caught:
    ground_truth.resolve(truth, ['scenes/3.jpg', 'scenes/9.jpg'])
  assert caught.value.names == tuple(name for name in names if name != 'scenes/3.jpg')
  message = str(caught.value)
  assert "ground truth 'mini': 8 named images are not among the 2 photos" in message
  assert message.count('scenes/') == 5
  assert 'and 3 more' in message
  assert '--images' in message


def test_index_images_that_no_query_names_must_be_there_too():
  with pytest.raises(MissingImagesError, match=r"1 named images .*: 'b\.jpg';"):
    ground_truth.resolve(dataclasses.replace(MINI, queries=(QueryGroundTruth('q', 'q'),)), ['a.jpg', 'c.jpg'])


def test_two_names_of_one_photo_are_refused():
  query = QueryGroundTruth('clock', 'q', easy=('x/a.jpg',), hard=('a',))
  with pytest.raises(UserError, match=r"query 'clock': 'x/a\.jpg' and 'a' are the same photo"):
    ground_truth.resolve(GroundTruth('m', (), (query,)), ['x/a.jpg'])
