"""Who is answered: hosts, origins, and what browsers are told with every answer."""

import logging
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest
from support.servers import serving_client

from delf_d2r.errors import UserError
from delf_d2r.serving import server
from delf_d2r.serving.app import create_app


@pytest.mark.slow
@pytest.mark.parametrize('path', ['/', '/api/limits', '/assets/search.js', '/nowhere', '/api/photo/0'])
def test_every_answer_forbids_what_is_not_from_here(client, path):
  headers = client.get(path).headers
  policy = headers['content-security-policy']
  assert "default-src 'none'" in policy
  assert 'unsafe' not in policy
  assert headers['x-content-type-options'] == 'nosniff'


@pytest.mark.parametrize('page', ['/', '/assets/annotate.html'])
def test_pages_have_nothing_inline_and_nothing_from_elsewhere(client, page):
  text = client.get(page).text
  assert '://' not in text
  for inline in ('<style', ' style=', ' onclick', ' onload', 'javascript:'):
    assert inline not in text
  assert text.count('<script') == text.count('<script type="module" src="/assets/')


@pytest.mark.parametrize('host', ['evil.example', '127.0.0.1.evil.example', 'localhost:80:80', ''])
def test_other_hosts_are_not_answered(client, host):
  response = client.get('/api/limits', headers={'Host': host})
  assert response.status_code in (400, 403)


def test_this_host_is_answered_by_its_names(client):
  for host in ('127.0.0.1', 'localhost', 'LOCALHOST:8765', '[::1]:80'):
    assert client.get('/healthz', headers={'Host': host}).status_code == 200


@pytest.mark.parametrize(
  'path', ['/', '/healthz', '/api/photo/0', '/assets/search.js', '/openapi.json', '/nowhere']
)
def test_head_is_get_without_the_body(client, path):
  head, get = client.head(path), client.get(path)
  assert head.status_code == get.status_code
  assert head.headers['content-length'] == get.headers['content-length']
  assert head.headers['content-type'] == get.headers['content-type']
  assert not head.content


def test_head_of_what_is_not_read(client):
  assert client.head('/api/search').status_code == 405


@pytest.mark.parametrize('origin', ['http://evil.example', 'null', 'http://127.0.0.1:1'])
def test_other_sites_cannot_write(client, origin):
  response = client.post('/api/search', data={'indexed': 'scene_00000.jpg'}, headers={'Origin': origin})
  assert response.status_code == 403
  assert response.json()['error']


@pytest.mark.parametrize(
  'origins',
  ['http://[', '', 'file://{0}', '//{0}', 'http://a@{0}', 'http://{0}.evil', 'http://{0}|http://evil'],
)
def test_odd_origins_cannot_write(client, address, origins):
  given = origins.format(address.partition('://')[2]).split('|')
  headers = [('Origin', origin) for origin in given]
  response = client.post('/api/search', data={'indexed': 'scene_00000.jpg'}, headers=headers)
  assert response.status_code == 403


def test_the_page_itself_can(client, address):
  data = {'indexed': 'scene_00000.jpg'}
  assert client.post('/api/search', data=data, headers={'Origin': address}).status_code == 200


def test_a_bug_is_answered_and_the_server_lives_on(engine, monkeypatch, caplog):
  app = create_app(engine)
  with serving_client(app) as client:
    monkeypatch.setattr(engine, 'search', lambda *_, **__: 1 / 0)
    response = client.post('/api/search', data={'indexed': 'scene_00000.jpg'})
    assert response.status_code == 500
    assert response.json().keys() == {'error', 'remedy'}
    assert 'ZeroDivision' not in response.text
    assert 'ZeroDivision' in caplog.text
    assert 'content-security-policy' in response.headers
    assert client.get('/healthz').status_code == 200


def test_an_app_of_nothing_is_refused():
  with pytest.raises(ValueError, match='an engine, annotations or both'):
    create_app(None)


def test_loopback_alone_is_not_warned_about(monkeypatch, caplog, capsys):
  monkeypatch.setattr(server.uvicorn.Server, 'run', lambda *_, **__: None)
  caplog.set_level(logging.WARNING)
  server.run(None, host='127.0.0.1', port=0)
  assert not caplog.records
  server.run(None, host='0.0.0.0', port=0)
  assert 'no passwords' in caplog.text
  assert capsys.readouterr().out.count('http://') == 2


@pytest.mark.parametrize(
  ('host', 'given', 'answered', 'refused'),
  [
    (
      '127.0.0.1',
      [],
      ['localhost:80', '[::1]'],
      ['10.0.0.1', 'evil.example', socket.gethostname() + '.evil'],
    ),
    ('127.0.0.1', ['Photos.example'], ['photos.example:443', 'PHOTOS.example'], ['evil.photos.example']),
    ('0.0.0.0', [], ['10.0.0.1:8765', '[fe80::1]:80', socket.gethostname()], ['evil.example', '[', '']),
    ('::', ['*'], ['evil.example', '10.0.0.1'], []),
    ('10.0.0.1', [], ['10.0.0.1', 'localhost'], ['evil.example', '1.2.3.4.evil.example']),
    ('127.0.0.1', ['a.example.', '[::2]:80'], ['A.example', 'a.example.:80', 'localhost.', '[::2]'], ['::1']),
    ('fe80::1', [' a.example:8080 ', ''], ['[fe80::1]:8765', 'a.example'], ['b.example']),
  ],
)
def test_hosts_that_are_answered(host, given, answered, refused):
  options = server.host_options(host, given)
  assert [name for name in answered if not options.answers_for(name)] == []
  assert [name for name in refused if options.answers_for(name)] == []


@pytest.mark.parametrize('name', ['http://a.example', '*.example', 'a/b', 'a b', '::1', 'a:b', '.', 'a..b'])
def test_an_allowed_host_that_is_none_is_refused(name):
  with pytest.raises(UserError, match=r'--allowed_hosts: .* is not the name'):
    server.host_options('127.0.0.1', ['a.example', name])


def test_a_taken_port_is_named():
  with (
    server._bind('127.0.0.1', 0) as taken,
    pytest.raises(UserError, match=r'cannot listen on 127\.0\.0\.1.*--port'),
  ):
    server._bind('127.0.0.1', taken.getsockname()[1])


@pytest.mark.slow
@pytest.mark.parametrize('command', ['serve', 'annotate'])
def test_binaries_serve_until_they_are_stopped(command, index_dir, photos, tmp_path):
  flags = {
    'serve': [
      f'--index={index_dir}',
      f'--annotations={tmp_path}/boxes.csv',
      '--allowed_hosts=a.example,b.example',
    ],
    'annotate': [f'--images={photos.images_dir}', f'--output={tmp_path}/boxes.csv'],
  }[command]
  process = subprocess.Popen(
    [sys.executable, '-m', f'delf_d2r.tools.{command}', '--port=0', *flags],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  try:
    address = process.stdout.readline().split()[0].rstrip('/')
    with httpx.Client(base_url=address, timeout=30, trust_env=False) as client:
      deadline = time.monotonic() + 30
      while client.get('/healthz').status_code != 200 and time.monotonic() < deadline:
        time.sleep(0.1)
      assert client.get('/', follow_redirects=True).status_code == 200
      assert client.get('/annotate').status_code == 200
      named = client.get('/healthz', headers={'Host': 'b.example'})
      assert named.status_code == (200 if command == 'serve' else 403)
      found = client.get('/api/limits')
      assert found.status_code == (200 if command == 'serve' else 404)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
  finally:
    process.kill()
    process.wait()
  assert process.returncode in (0, 130)
  assert 'Traceback' not in errors
  assert 'faiss' not in errors
