"""The API of the search over a real connection: what it answers, and what it says to requests it cannot."""

import io
import types

import pytest
from PIL import Image
from support.servers import serving_client

from delf_d2r.data.photos.photo_folders import PhotoFolders
from delf_d2r.engine import SearchEngine
from delf_d2r.serving.app import create_app
from delf_d2r.serving.indexed_photos import IndexedPhotos
from delf_d2r.serving.problems import Problem
from delf_d2r.serving.searches import Query, QueryCache


def problem(response, status):
  """Checks the form of every failure and returns what it says."""
  assert response.status_code == status, response.text
  body = response.json()
  assert body.keys() == {'error', 'remedy'}
  assert body['error']
  assert body['remedy']
  return body['error']


@pytest.fixture(scope='module')
def answer(client, query_path):
  response = client.post(
    '/api/search',
    files={'photo': (query_path.name, query_path.read_bytes())},
    data={'box': '0.1,0.1,0.9,0.9', 'top_k': 5},
  )
  assert response.status_code == 200
  return response.json()


@pytest.mark.slow
def test_the_answer_is_that_of_the_engine(answer, engine: SearchEngine, query_path):
  expected = engine.search(query_path, box=(0.1, 0.1, 0.9, 0.9), top_k=5)
  assert [result['name'] for result in answer['results']] == [result.name for result in expected.results]
  assert [result['score'] for result in answer['results']] == pytest.approx(
    [result.score for result in expected.results]
  )
  assert answer['num_features'] == expected.num_features
  assert answer['box'] == pytest.approx([0.1, 0.1, 0.9, 0.9])
  assert answer['seconds'].keys() == {'decode', 'extract', 'describe', 'search'}
  assert len(answer['results'][0]['boxes']) == 4


def test_an_earlier_query_is_searched_with_another_box(client, answer):
  whole = client.post('/api/search', data={'query': answer['query'], 'top_k': 5}).json()
  assert whole['box'] is None
  assert [result['score'] for result in whole['results']] != [result['score'] for result in answer['results']]
  assert (whole['height'], whole['name']) == (answer['height'], answer['name'])


@pytest.mark.slow
def test_verification_puts_what_agrees_first(client, query_path):
  answers = [
    client.post(
      '/api/search',
      files={'photo': (query_path.name, query_path.read_bytes())},
      data={'top_k': 8, 'verify': verify},
    ).json()
    for verify in (True, False)
  ]
  verified, plain = (answer['results'] for answer in answers)
  inliers = [result['inliers'] for result in verified]
  assert inliers == sorted(inliers, reverse=True)
  assert inliers[0] > 0
  assert [result['rank'] for result in verified] == list(range(1, 9))
  assert {result['id'] for result in verified} == {result['id'] for result in plain}
  assert [result['inliers'] for result in plain] == [None] * 8
  assert 'verify' in answers[0]['seconds']
  first = client.get('/api/match', params={'query': answers[0]['query'], 'image': verified[0]['id']}).json()
  assert len(first['inliers']) == inliers[0]


def test_an_indexed_photo_finds_itself(client):
  found = client.post('/api/search', data={'indexed': 'scene_00003.jpg', 'top_k': 1}).json()
  assert found['results'][0]['name'] == 'scene_00003.jpg'
  assert found['results'][0]['id'] == 3


def test_top_k_is_bounded(client):
  for top_k in (0, 1000):
    found = client.post('/api/search', data={'indexed': 'scene_00000.jpg', 'top_k': top_k}).json()
    assert len(found['results']) == 12


def test_a_match_explains_its_score(client, answer):
  result = answer['results'][0]
  found = client.get('/api/match', params={'query': answer['query'], 'image': result['id']}).json()
  assert found['score'] == pytest.approx(result['score'], rel=1e-5)
  assert sum(word['share'] for word in found['words']) == pytest.approx(1)
  assert found['query_box'] == pytest.approx(answer['box'])
  for word in found['words']:
    for y, x in word['query']:
      assert 0.1 <= y <= 0.9
      assert 0.1 <= x <= 0.9
  for pair in found['inliers']:
    assert all(0 <= value <= 1 for place in pair for value in place)


@pytest.mark.parametrize('path', ['/api/photo/0', '/api/photo/0/thumbnail'])
def test_photos_are_small_jpegs_with_a_tag(client, path):
  response = client.get(path)
  assert response.headers['content-type'] == 'image/jpeg'
  image = Image.open(io.BytesIO(response.content))
  assert max(image.size) == (320 if path.endswith('thumbnail') else 640)
  again = client.get(path, headers={'If-None-Match': response.headers['etag']})
  assert (again.status_code, again.content) == (304, b'')


def test_the_list_is_paged_and_filtered(client, engine):
  first = client.get('/api/images', params={'count': 2}).json()
  assert first['total'] == len(engine)
  assert [image['id'] for image in first['images']] == [0, 1]
  found = client.get('/api/images', params={'filter': 'E_0001', 'start': 1, 'count': 3}).json()
  assert found['total'] == 10
  assert [image['name'] for image in found['images']] == [f'scene_0001{n}.jpg' for n in (1, 2, 3)]
  assert client.get('/api/images', params={'filter': 'nowhere'}).json() == {'total': 0, 'images': []}


@pytest.mark.parametrize(
  ('data', 'says'),
  [
    ({}, 'one of photo, indexed and query'),
    ({'indexed': 'scene_00000.jpg', 'query': 'x'}, 'one of photo, indexed and query'),
    ({'indexed': 'scene_00000.jpg', 'box': '0.1,0.2,0.3'}, 'not a box'),
    ({'indexed': 'scene_00000.jpg', 'box': 'a,b,c,d'}, 'not a box'),
    ({'indexed': 'scene_00000.jpg', 'box': 'nan,0,1,1'}, '0 <= min < max <= 1'),
    ({'indexed': 'scene_00000.jpg', 'box': '0,0,1.2,1'}, '0 <= min < max <= 1'),
    ({'indexed': 'scene_00000.jpg', 'box': '-5,-5,-4,-4'}, '0 <= min < max <= 1'),
    ({'indexed': 'scene_00000.jpg', 'box': '0.5,0.5,0.5,0.5'}, '0 <= min < max <= 1'),
    ({'indexed': 'scene_00000.jpg', 'box': '0.9,0.9,0.1,0.1'}, '0 <= min < max <= 1'),
    ({'indexed': 'scene_00000.jpg', 'top_k': -1}, 'top_k'),
    ({'indexed': 'scene_00000.jpg', 'top_k': 'many'}, 'top_k'),
  ],
)
def test_what_cannot_be_searched(client, data, says):
  assert says in problem(client.post('/api/search', data=data), 422)


def test_a_box_that_is_empty_once_it_is_float32(client):
  response = client.post('/api/search', data={'indexed': 'scene_00000.jpg', 'box': '0.5,0.5,0.50000001,0.9'})
  assert problem(response, 422).startswith('box: ')  # the field of the form, no flag


def test_unknown_names_and_ids(client, answer):
  assert 'nowhere.jpg' in problem(client.post('/api/search', data={'indexed': 'nowhere.jpg'}), 404)
  problem(client.post('/api/search', data={'query': 'forgotten'}), 410)
  problem(client.get('/api/query/forgotten/photo'), 410)
  problem(client.get('/api/match', params={'query': 'forgotten', 'image': 0}), 410)
  problem(client.get('/api/match', params={'query': answer['query'], 'image': 10**6}), 404)
  problem(client.get('/api/match'), 422)
  problem(client.get('/api/photo/100000'), 404)
  problem(client.get('/api/photo/-1'), 404)
  problem(client.get('/api/photo/first'), 422)
  problem(client.get('/nowhere'), 404)
  problem(client.delete('/api/search'), 405)


@pytest.mark.parametrize(
  'path',
  [
    '/assets/../app.py',
    '/assets/%2e%2e/app.py',
    '/assets/..%2fapp.py',
    '/assets//etc/passwd',
    '/api/photo/..%2f..%2fetc%2fpasswd',
    '/api/photo/%2fetc%2fpasswd/thumbnail',
    '/../../etc/passwd',
  ],
)
def test_no_path_leads_out(client, path):
  # httpx would tidy the path.
  request = client.build_request('GET', '/')
  request.url = request.url.copy_with(raw_path=path.encode())
  response = client.send(request)
  assert response.status_code in (404, 422), response.text
  assert 'root:' not in response.text


@pytest.mark.parametrize('name', ['../ground_truth.json', '/etc/passwd', '../queries/astronaut.jpg', '.', ''])
def test_no_name_leads_out_of_the_index(client, name):
  assert client.post('/api/search', data={'indexed': name}).status_code in (404, 422)


@pytest.mark.parametrize('name', ['../queries/astronaut.jpg', '/etc/passwd', 'a/../../secret.jpg'])
def test_an_index_with_odd_names_leads_nowhere(photos, name):
  folders = PhotoFolders((photos.images_dir, photos.images_dir.parent))
  found = IndexedPhotos(
    types.SimpleNamespace(index=types.SimpleNamespace(image_names=[name]), photos=folders)
  )
  with pytest.raises(Problem, match='cannot be found'):
    found.path(0)


def test_photos_that_are_gone(index_dir, tmp_path):
  with serving_client(create_app(SearchEngine.load(index_dir), photos=PhotoFolders((tmp_path,)))) as client:
    assert client.get('/api/limits').json()['photos_at_hand'] is True
    assert 'cannot be found' in problem(client.get('/api/photo/0/thumbnail'), 404)
    problem(client.post('/api/search', data={'indexed': 'scene_00000.jpg'}), 404)
    assert client.get('/healthz').json()['status'] == 'ok'


def test_health_limits_and_description(client, engine):
  assert client.get('/healthz').json() == {'status': 'ok', 'images': len(engine)}
  assert client.get('/api/limits').json()['max_upload_bytes'] == 3_000_000
  paths = client.get('/openapi.json').json()['paths']
  assert {'/api/search', '/api/match', '/api/images', '/api/photo/{image}', '/healthz'} <= paths.keys()
  assert 'ProblemBody' in str(paths['/api/search']['post']['responses']['default'])


def test_old_queries_are_forgotten_first(engine, query_path):
  features = engine.search(query_path, top_k=1).features
  store = QueryCache(max_bytes=2_500_000)
  keys = [store.add(Query('q', bytes(10**6), b'', features, {})) for _ in range(2)]
  store.get(keys[0])
  store.add(Query('q', bytes(10**6), b'', features, {}))
  assert store.get(keys[0]).name == 'q'
  with pytest.raises(Problem, match='not remembered'):
    store.get(keys[1])
