"""Boxes drawn on the photos of a folder: saved at once, taken up again, never losing what was there."""

import json
from concurrent import futures

import pytest
from PIL import Image
from support.servers import serving_client

from delf_d2r.data.boxes import stored_boxes, training_boxes
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.errors import UserError
from delf_d2r.serving.annotations import NO_OBJECT, Annotations
from delf_d2r.serving.app import create_app

BOX = (0.1, 0.2, 0.8, 0.9)


@pytest.fixture(scope='module')
def folder(photos):
  return ImageList.from_folder(photos.images_dir)


@pytest.fixture
def output(tmp_path):
  return tmp_path / 'drawn' / 'boxes.csv'


@pytest.mark.slow
def test_what_is_drawn_is_what_a_detector_trains_from(folder, output):
  annotations = Annotations(folder, output)
  annotations.set_box(3, BOX)
  annotations.set_box(0, (0, 0, 1, 1))
  annotations.set_no_object(1)
  found = training_boxes.read(output, folder)
  assert [photo.boxes.round(5).tolist() for photo in found[:4]] == [
    [[0, 0, 1, 1]],
    [],
    [],
    [pytest.approx(BOX)],
  ]
  assert not any(photo.problems for photo in found)
  assert output.read_text().splitlines()[0] == 'image,ymin,xmin,ymax,xmax'


def test_the_work_is_taken_up(folder, output):
  first = Annotations(folder, output)
  first.set_box(0, BOX)
  first.set_no_object(1)
  first.set_box(2, BOX)
  first.clear(2)
  again = Annotations(folder, output)
  assert [again.box(0), again.box(1), again.box(2)] == [BOX, None, None]
  assert [again.is_labelled(number) for number in range(3)] == [True, True, False]
  assert again.num_labelled == 2
  assert again.next_unlabelled(0) == 2
  before = output.read_bytes()
  again.set_box(0, BOX)
  assert output.read_bytes() == before


def test_the_next_one_comes_round(folder, output):
  annotations = Annotations(folder, output)
  last = len(folder) - 1
  annotations.set_no_object(last)
  assert annotations.next_unlabelled(last) == 0
  for number in range(len(folder)):
    annotations.set_no_object(number)
  assert annotations.next_unlabelled(0) is None


def test_a_box_takes_the_place_of_no_object_and_back(folder, output):
  annotations = Annotations(folder, output)
  annotations.set_no_object(0)
  annotations.set_box(0, BOX)
  assert annotations.num_labelled == 1
  assert output.with_name(output.name + NO_OBJECT).read_text() == '[]'
  annotations.set_no_object(0)
  assert annotations.box(0) is None
  assert output.read_text().count('\n') == 1


@pytest.mark.parametrize(
  'box', [(0.5, 0.5, 0.5, 0.6), (0.9, 0, 0.1, 1), (0, 0, 1, 1.1), (float('nan'), 0, 1, 1)]
)
def test_no_such_box_is_saved(folder, output, box):
  annotations = Annotations(folder, output)
  with pytest.raises(UserError, match='0 <= min < max <= 1'):
    annotations.set_box(0, box)
  assert annotations.num_labelled == 0
  assert not output.exists()


@pytest.mark.parametrize(
  ('lines', 'says'),
  [
    (
      ['image,ymin,xmin,ymax,xmax,class', 'scene_00000.jpg,0,0,1,1,cup'],
      r'columns .*\(class\)',
    ),
    (['image,ymin,xmin,ymax,xmax', 'a.jpg,0,0,1,1'], "'a.jpg' is not among"),
    (['image,ymin,xmin,ymax,xmax', *['scene_00000.jpg,0,0,1,1'] * 2], 'several boxes'),
    (['image,ymin,xmin,ymax,xmax', 'scene_00000.jpg,0,0,1'], 'expected four numbers'),
    (['image,ymin,xmin,ymax,xmax', 'scene_00000.jpg,0,0,1,7'], '0 <= min < max <= 1'),
    (['image,left'], 'lacks'),
  ],
)
def test_a_file_that_would_lose_something_is_left_alone(folder, output, lines, says):
  output.parent.mkdir()
  output.write_text('\n'.join(lines) + '\n')
  before = output.read_bytes()
  with pytest.raises(UserError, match=says):
    Annotations(folder, output)
  assert output.read_bytes() == before


def test_a_damaged_list_of_photos_without_object(folder, output):
  Annotations(folder, output).set_no_object(0)
  output.with_name(output.name + NO_OBJECT).write_text('{')
  with pytest.raises(UserError, match='damaged'):
    Annotations(folder, output)


def test_two_at_once_and_a_person_with_an_editor_keep_each_others_boxes(folder, output):
  first, second = Annotations(folder, output), Annotations(folder, output)
  first.set_box(0, BOX)
  first.set_no_object(1)
  second.set_box(2, BOX)
  with open(output, 'a') as file:
    file.write(f'{folder.names[3]},0,0,0.5,0.5\n')
  first.set_box(4, BOX)
  second.clear(0)
  for annotations in (first, second, Annotations(folder, output)):
    assert [annotations.box(number) for number in range(5)] == [None, None, BOX, (0, 0, 0.5, 0.5), BOX]
    assert annotations.is_labelled(1)
    assert annotations.num_labelled == 4
    assert annotations.next_unlabelled(0) == 0


def test_threads_and_processes_lose_nothing(folder, output):
  both = [Annotations(folder, output) for _ in range(2)]
  with futures.ThreadPoolExecutor(8) as pool:
    done = [pool.submit(both[n % 2].set_box, n, BOX) for n in range(len(folder))]
    assert [future.result() for future in done] == [None] * len(folder)
  assert Annotations(folder, output).num_labelled == len(folder)


def test_what_somebody_writes_that_would_be_lost_stops_the_change_not_the_reading(folder, output):
  annotations = Annotations(folder, output)
  annotations.set_box(0, BOX)
  with open(output, 'a') as file:
    file.write('elsewhere.jpg,0,0,1,1\n')
  before = output.read_bytes()
  with pytest.raises(UserError, match=r"'elsewhere\.jpg' is not among"):
    annotations.set_box(1, BOX)
  assert output.read_bytes() == before
  assert annotations.box(0) == BOX
  assert annotations.box(1) is None
  output.write_bytes(before.replace(b'elsewhere.jpg', folder.names[2].encode()))
  annotations.set_box(1, BOX)
  assert annotations.num_labelled == 3


def test_photos_without_object_that_are_away_are_kept(folder, output):
  path = output.with_name(output.name + NO_OBJECT)
  path.parent.mkdir()
  path.write_text('["away.jpg"]')
  annotations = Annotations(folder, output)
  assert annotations.num_labelled == 0
  annotations.set_no_object(0)
  assert json.loads(path.read_text()) == sorted(['away.jpg', folder.names[0]])


@pytest.fixture
def client(folder, output):
  with serving_client(create_app(None, annotations=Annotations(folder, output))) as client:
    yield client


def test_the_api_of_one_photo(client, folder, output):
  assert client.get('/api/annotate').json() == {
    'total': len(folder),
    'done': 0,
    'output': str(output),
    'next': 0,
  }
  expected = {'number': 2, 'name': folder.names[2], 'box': list(BOX), 'done': True}
  assert client.put('/api/annotate/2', json={'box': BOX}).json() == expected
  assert f'{folder.names[2]},0.1,0.2,0.8,0.9' in output.read_text()
  assert client.put('/api/annotate/2', json={'box': None}).json() == expected | {'box': None}
  assert client.delete('/api/annotate/2').json() == expected | {'box': None, 'done': False}
  assert client.get('/api/annotate/0/photo').headers['content-type'] == 'image/jpeg'


@pytest.mark.parametrize(
  ('body', 'status'),
  [
    ({'box': [0, 0, 1]}, 422),
    ({'box': [0.9, 0, 0.1, 1]}, 422),
    ({'box': [0, 0, 2, 2]}, 422),
    ({'box': 'all'}, 422),
    ({}, 422),
    ([], 422),
  ],
)
def test_what_is_no_box(client, body, status):
  response = client.put('/api/annotate/0', json=body)
  assert response.status_code == status
  assert response.json().keys() == {'error', 'remedy'}
  assert client.get('/api/annotate').json()['done'] == 0


def test_a_box_that_rounding_leaves_no_area(client):
  response = client.put('/api/annotate/0', json={'box': [0.5, 0.1, 0.500001, 0.9]})
  assert response.status_code == 422
  assert response.json()['error'].startswith('box, rounded to 5 decimals: ')
  assert client.get('/api/annotate').json()['done'] == 0


def test_a_photo_that_cannot_be_decoded_gets_no_box(output, tmp_path):
  (tmp_path / 'a.jpg').write_text('no photo')
  annotations = Annotations(ImageList.from_folder(tmp_path), output)
  annotations.set_no_object(0)
  with serving_client(create_app(None, annotations=annotations)) as client:
    response = client.put('/api/annotate/0', json={'box': BOX})
    assert response.status_code == 422
    assert 'a.jpg' in response.json()['error']
    assert 'no object' in response.json()['remedy']
    assert client.get('/api/annotate/0').json()['done']
    assert client.put('/api/annotate/0', json={'box': None}).status_code == 200


def test_other_photos_and_other_sites(client):
  for number in ('-1', '100000'):
    assert client.get(f'/api/annotate/{number}').status_code == 404
    assert client.get(f'/api/annotate/{number}/photo').status_code == 404
    assert client.put(f'/api/annotate/{number}', json={'box': None}).status_code == 404
  response = client.put('/api/annotate/0', json={'box': None}, headers={'Origin': 'http://evil.example'})
  assert response.status_code == 403
  assert client.get('/api/annotate').json()['done'] == 0


def test_a_place_that_cannot_be_written(client, output, monkeypatch):
  client.put('/api/annotate/0', json={'box': BOX})

  def full(*_):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr('delf_d2r.data.files.write_output', full)
  response = client.put('/api/annotate/1', json={'box': BOX})
  assert response.status_code == 507
  assert 'No space left' in response.json()['error']
  assert client.get('/api/annotate/1').json()['done'] is False
  assert client.get('/api/annotate/0').json()['box'] == list(BOX)


@pytest.mark.parametrize(
  'name', ['a\rb.jpg', '=1+1.jpg', '+a.jpg', '-a.jpg', '@a.jpg', 'a\nb.jpg', '"a,b".jpg']
)
def test_a_file_of_odd_names_is_taken_up(tmp_path, output, name):
  Image.new('RGB', (8, 8)).save(tmp_path / name, 'JPEG')
  Image.new('RGB', (8, 8)).save(tmp_path / 'b.jpg')
  photos = ImageList.from_folder(tmp_path)
  number = photos.names.index(name)
  Annotations(photos, output).set_box(number, BOX)
  Annotations(photos, output).set_no_object(1 - number)
  again = Annotations(photos, output)
  assert again.box(number) == BOX
  assert again.num_labelled == 2
  boxes = stored_boxes.read(output, photos.names)[name]
  assert boxes.coordinates.round(5).tolist() == [pytest.approx(BOX)]
  assert [photo.name for photo in training_boxes.read(output, photos) if len(photo)] == [name]
