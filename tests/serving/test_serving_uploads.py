"""Photos of every bad kind: each has a stated answer, and the server lives on."""

import concurrent.futures
import io
import socket

import httpx
import pytest
from PIL import Image
from support.odd_photos import REFUSED, encoded, kinds, png_header
from support.servers import serving_client

from delf_d2r.serving.app import create_app
from delf_d2r.serving.options import Options


@pytest.fixture(scope='module')
def photo(query_path):
  return Image.open(query_path).convert('RGB').resize((300, 240))


@pytest.fixture(scope='module')
def send(client):
  def send(data: bytes, name='photo.jpg', **fields):
    return client.post('/api/search', files={'photo': (name, data)}, data=fields)

  return send


@pytest.fixture(autouse=True)
def lives_on(client):
  yield
  assert client.get('/healthz').status_code == 200


@pytest.mark.parametrize(
  ('data', 'says'),
  [
    *REFUSED,
    (png_header(5_000, 4_001), '20 megapixels'),
    (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n%%EndComments\nshowpage\n', 'format EPS'),
  ],
)
def test_what_is_refused(send, data, says):
  response = send(data)
  assert response.status_code == 422
  assert says in response.json()['error']
  assert '/' not in response.json()['error'].split(':')[0]  # no path of the server


def test_truncated_photos_are_refused(send, photo):
  data = encoded(photo, 'JPEG')
  assert send(data[: len(data) // 3]).status_code == 422


@pytest.mark.parametrize('size', [(1, 1), (9, 200), (200, 9)])
def test_tiny_photos_have_no_features_and_no_results(send, size):
  answer = send(encoded(Image.new('RGB', size), 'PNG')).json()
  assert (answer['num_features'], answer['results']) == (0, [])
  assert 'No local features' in answer['note']
  assert (answer['width'], answer['height']) == size


def test_smooth_photos_and_boxes_without_features(send, photo):
  assert send(encoded(Image.new('RGB', (200, 200), 'grey'), 'PNG')).json()['results'] == []
  answer = send(encoded(photo, 'PNG'), box='0.5,0.5,0.501,0.501').json()
  assert answer['results'] == []
  assert 'No local features' in answer['note']


@pytest.mark.slow
def test_odd_photos_find_what_the_plain_one_finds(send, client, photo):
  plain = send(encoded(photo, 'PNG'), top_k=1).json()['results'][0]
  for kind, data in kinds(photo).items():
    response = send(data, top_k=1)
    assert response.status_code == 200, (kind, response.text)
    answer = response.json()
    assert (answer['width'], answer['height']) == photo.size, kind
    # The first frame of an animation; fewer colours or none move scores a little.
    assert answer['results'][0]['name'] == plain['name'], kind
    preview = client.get(f'/api/query/{answer["query"]}/photo')
    assert Image.open(io.BytesIO(preview.content)).size == photo.size, kind


def test_names_are_names_only(send, photo):
  for name in ('../../etc/passwd', 'C:\\photos\\a.jpg', '<script>.jpg', ''):
    response = send(encoded(photo, 'JPEG'), name or 'x')
    assert '/' not in response.json()['name']
    assert '\\' not in response.json()['name']


def test_too_large_uploads_are_answered(send, client):
  response = send(bytes(3_000_001))
  assert response.status_code == 413
  assert '3,000,000' in response.json()['error']

  def chunks():  # without a Content-Length
    yield b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a.jpg"\r\n\r\n'
    for _ in range(40):
      yield bytes(100_000)

  response = client.post(
    '/api/search', content=chunks(), headers={'Content-Type': 'multipart/form-data; boundary=x'}
  )
  assert response.status_code == 413


@pytest.mark.parametrize(
  ('content', 'content_type'),
  [
    (b'--x\r\nnothing', 'multipart/form-data; boundary=x'),
    (b'nothing', 'multipart/form-data'),
    (b'{"indexed": "scene_00000.jpg"}', 'application/json'),
    (b'\x00\xff' * 50, 'application/octet-stream'),
  ],
)
def test_bodies_that_are_no_form(client, content, content_type):
  response = client.post('/api/search', content=content, headers={'Content-Type': content_type})
  assert response.status_code in (400, 422)
  assert response.json().keys() == {'error', 'remedy'}


def test_clients_that_leave_or_never_finish(engine):
  app = create_app(engine, Options(upload_seconds=0.5))
  with serving_client(app) as client:
    host, port = client.base_url.host, client.base_url.port
    head = (
      f'POST /api/search HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 5000\r\n'
      'Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n'
    )
    with socket.create_connection((host, port)) as left:
      left.sendall(head.encode())
    with socket.create_connection((host, port), timeout=20) as slow:
      slow.sendall(head.encode())
      assert b'408' in slow.recv(4096).split(b'\r\n')[0]
    assert client.get('/healthz').status_code == 200


@pytest.mark.slow
def test_sixteen_clients_at_once_lose_nothing(engine, address, photos):
  queries = sorted(photos.queries_dir.iterdir())[:8]
  boxes = ['', '0.1,0.1,0.9,0.9']
  expected = {
    (path, box): [
      r.name
      for r in engine.search(path, box=tuple(map(float, box.split(','))) if box else None, top_k=3).results
    ]
    for path in queries
    for box in boxes
  }

  def ask(task):
    path, box = task
    with httpx.Client(base_url=address, timeout=120, trust_env=False) as client:
      response = client.post(
        '/api/search', files={'photo': (path.name, path.read_bytes())}, data={'box': box, 'top_k': 3}
      )
      answer = response.json()
      match = client.get('/api/match', params={'query': answer['query'], 'image': answer['results'][0]['id']})
      assert match.json()['score'] == pytest.approx(answer['results'][0]['score'], rel=1e-5)
      return [result['name'] for result in answer['results']]

  with concurrent.futures.ThreadPoolExecutor(16) as pool:
    found = dict(zip(expected, pool.map(ask, expected), strict=True))
  assert found == expected


def test_who_waits_too_long_is_told_to_come_back(engine, query_path):
  app = create_app(engine, Options(max_concurrent=1, wait_seconds=0.01))
  with serving_client(app) as client, concurrent.futures.ThreadPoolExecutor(6) as pool:

    def ask(_):
      return client.post('/api/search', files={'photo': ('q.jpg', query_path.read_bytes())})

    responses = list(pool.map(ask, range(6)))
  codes = {response.status_code for response in responses}
  assert codes == {200, 503}
  busy = next(response for response in responses if response.status_code == 503)
  assert busy.headers['retry-after']
  assert 'busy' in busy.json()['error']
