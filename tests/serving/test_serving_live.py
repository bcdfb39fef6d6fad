"""A server that is asked too much, is left alone or waits for long; and one whose index changes meanwhile."""

import concurrent.futures
import contextlib
import shutil
import socket
import threading
import time

import pytest
from support.servers import serving_client

from delf_d2r.engine import SearchEngine
from delf_d2r.serving.app import create_app
from delf_d2r.serving.options import Options


class HeldEngine:
  """Searches of an engine that do not end before `release`; `started` counts them."""

  def __init__(self, engine, monkeypatch):
    self.started = threading.Semaphore(0)
    self.count = 0
    self._released = threading.Event()
    search = engine.search

    def held(*args, **options):
      self.count += 1
      self.started.release()
      assert self._released.wait(30)
      return search(*args, **options)

    monkeypatch.setattr(engine, 'search', held)

  def release(self):
    self._released.set()


@pytest.fixture
def held(engine, monkeypatch):
  held = HeldEngine(engine, monkeypatch)
  yield held
  held.release()


@contextlib.contextmanager
def asking(engine, options):
  """Yields a client, and what sends a search of it on a thread."""
  with (
    serving_client(create_app(engine, options)) as client,
    concurrent.futures.ThreadPoolExecutor(8) as pool,
  ):
    yield client, lambda: pool.submit(client.post, '/api/search', data={'indexed': 'scene_00000.jpg'})


def busy(response):
  assert response.status_code == 503
  assert int(response.headers['retry-after']) > 0
  assert response.json()['remedy']
  return response.json()['error']


def test_more_than_can_wait_are_told_at_once(engine, held):
  with asking(engine, Options(max_concurrent=1, max_waiting=2)) as (client, ask):
    asked = [ask()]
    assert held.started.acquire(timeout=20)
    asked += [ask() for _ in range(5)]
    done = []
    deadline = time.monotonic() + 20
    while len(done) < 3 and time.monotonic() < deadline:
      time.sleep(0.02)
      done = [one for one in asked if one.done()]
    assert ['2 requests' in busy(one.result()) for one in done] == [True] * 3
    assert client.get('/healthz').status_code == 200
    held.release()
    assert sorted(one.result().status_code for one in asked) == [200] * 3 + [503] * 3


def test_who_leaves_before_the_turn_is_not_searched_for(engine, held):
  with asking(engine, Options(max_concurrent=1)) as (client, ask):
    first = ask()
    assert held.started.acquire(timeout=20)
    body = b'indexed=scene_00001.jpg'
    with socket.create_connection((client.base_url.host, client.base_url.port)) as leaving:
      leaving.sendall(
        b'POST /api/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n'
        b'Content-Length: %d\r\n\r\n%s' % (len(body), body)
      )
      time.sleep(0.3)  # It waits for its turn by now.
    time.sleep(0.1)
    held.release()
    assert first.result().status_code == 200
    assert ask().result().status_code == 200
    assert held.count == 2


def test_an_answer_that_takes_too_long(engine, held):
  with asking(engine, Options(max_concurrent=1, answer_seconds=0.2, wait_seconds=0.2)) as (_, ask):
    assert 'no answer within 0.2 s' in busy(ask().result())
    # It runs on; no other search runs beside it.
    assert 'waited for more than 0.2 s' in busy(ask().result())
    assert held.count == 1
    held.release()
    assert held.started.acquire(timeout=20)
    deadline = time.monotonic() + 20
    while not held.started.acquire(timeout=0.1) and time.monotonic() < deadline:
      ask().result()
    assert held.count == 2


@pytest.mark.slow
@pytest.mark.parametrize('has_searched', [False, True])
def test_another_process_saves_while_a_page_is_open(index_dir, query_path, tmp_path, has_searched):
  """Another engine stands for another process."""
  directory = shutil.copytree(index_dir, tmp_path / 'out')
  upload = {'files': {'photo': ('q.jpg', query_path.read_bytes())}, 'data': {'top_k': 8, 'verify': True}}
  with serving_client(create_app(SearchEngine.load(directory))) as client:
    if has_searched:
      before = client.post('/api/search', **upload).json()
      gone = before['results'][0]
    for name in ('new.jpg', 'newer.jpg'):
      other = SearchEngine.load(directory)
      other.remove([other.index.image_names[0] if name == 'new.jpg' else 'new.jpg'])
      if has_searched and gone['name'] in other.index.image_names:
        other.remove([gone['name']])
      other.add({name: query_path})
      other.save()
      SearchEngine.load(directory).remove([other.index.image_names[0]])  # Removes features of removed photos.

      size = len(other)
      assert client.get('/healthz').json()['images'] == client.get('/api/limits').json()['images'] == size
      listed = client.get('/api/images', params={'count': 100}).json()
      assert {image['name'] for image in listed['images']} == set(other.index.image_names)
      removed = client.post('/api/search', data={'indexed': 'scene_00000.jpg'})
      assert removed.status_code == (200 if 'scene_00000.jpg' in other.index.image_names else 404)
      if has_searched:
        why = client.get('/api/match', params={'query': before['query'], 'image': gone['id']})
        assert why.status_code == 404
      after = client.post('/api/search', **upload)
      assert after.status_code == 200
      first = after.json()['results'][0]
      assert first['name'] == name
      why = client.get('/api/match', params={'query': after.json()['query'], 'image': first['id']})
      assert why.json()['score'] == pytest.approx(first['score'])


@pytest.mark.slow
def test_photos_come_and_go_while_a_page_is_open(index_dir, query_path, tmp_path):
  engine = SearchEngine.load(shutil.copytree(index_dir, tmp_path / 'out'))
  upload = {'files': {'photo': ('q.jpg', query_path.read_bytes())}, 'data': {'top_k': 8}}
  with serving_client(create_app(engine)) as client:
    before = client.post('/api/search', **upload).json()
    gone, *rest = before['results']
    photo_of = {result['name']: client.get(f'/api/photo/{result["id"]}').content for result in rest}
    engine.remove([gone['name']])
    engine.add({'new.jpg': query_path})

    removed = [
      client.get(f'/api/photo/{gone["id"]}'),
      client.get('/api/match', params={'query': before['query'], 'image': gone['id']}),
      client.post('/api/search', data={'indexed': gone['name']}),
    ]
    for response in removed:
      assert response.status_code == 404
      assert gone['name'] in response.json()['error']
      assert response.json()['remedy']
    for result in rest:
      assert client.get(f'/api/photo/{result["id"]}').content == photo_of[result['name']]
      why = client.get('/api/match', params={'query': before['query'], 'image': result['id']})
      assert why.json()['score'] == pytest.approx(result['score'], rel=0.2)  # idf has changed a little.
    after = client.post('/api/search', **upload).json()['results']
    assert after[0]['name'] == 'new.jpg'
    assert after[0]['id'] == len(engine)
    ids = {result['name']: result['id'] for result in before['results']}
    assert all(result['id'] == ids.get(result['name'], result['id']) for result in after)
    listed = client.get('/api/images', params={'count': 100}).json()
    assert {image['name'] for image in listed['images']} == set(engine.index.image_names)
    assert client.get('/healthz').json()['images'] == listed['total'] == len(engine)
