"""Connections: silent clients, too many of them, what is not HTTP, and the end of a server under load."""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent import futures

import httpx
import pytest
from fastapi import FastAPI, Request
from support.processes import wait_until

from delf_d2r.serving import problems, server
from delf_d2r.serving.connections import Connection
from delf_d2r.serving.drain import Drain
from delf_d2r.serving.executor import RequestExecutor
from delf_d2r.serving.guard import Guard
from delf_d2r.serving.options import Options

HEADER = b'GET /quick HTTP/1.1\r\nHost: localhost\r\n'


def make_app(**options) -> FastAPI:
  app = FastAPI()
  problems.install(app)
  limits = Options(**options)
  app.state.drain = drain = Drain()
  app.add_middleware(Guard, options=limits, drain=drain)
  execute = RequestExecutor(limits, drain)

  @app.get('/quick')
  async def quick() -> str:
    return 'quick'

  @app.post('/body')
  async def body(request: Request) -> int:
    return len(await request.body())

  @app.get('/slow')
  async def slow(request: Request, seconds: float) -> str:
    await execute(request, time.sleep, seconds)
    return 'slow'

  @app.get('/large')
  async def large() -> str:
    return 'x' * 30_000_000

  return app


@contextlib.contextmanager
def running(app):
  """Serves `app` as the commands do, and yields the server and its port."""
  listener = socket.create_server(('127.0.0.1', 0))
  served = server.Server(app)
  thread = threading.Thread(target=served.run, kwargs={'sockets': [listener]})
  port = listener.getsockname()[1]
  thread.start()
  try:
    yield served, port
  finally:
    served.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


@pytest.fixture
def short(monkeypatch):
  monkeypatch.setattr(Connection, 'header_seconds', 0.6)
  monkeypatch.setattr(Connection, 'request_seconds', 1.5)
  monkeypatch.setattr(Connection, 'most', 6)
  monkeypatch.setattr(Connection, 'most_refused', 2)


def connect(port, sent=b''):
  client = socket.create_connection(('127.0.0.1', port), timeout=10)
  client.sendall(sent)
  return client


def rest(client) -> bytes:
  """Returns what the server sends until it closes the connection."""
  received = bytearray()
  with contextlib.suppress(ConnectionError), client:
    while piece := client.recv(1 << 16):
      received += piece
  return bytes(received)


@pytest.mark.slow
@pytest.mark.parametrize(
  'sent',
  [
    b'',
    b'GET /qui',
    HEADER,
    HEADER + b'\r\n',
    HEADER + b'\r\n' + HEADER,
    b'POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf',
    b'GET /quick HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf',
  ],
)
def test_a_client_that_sends_nothing_or_half_of_a_request_is_left(short, sent):
  with running(make_app(upload_seconds=1)) as (_, port):
    started = time.monotonic()
    answer = rest(connect(port, sent))
    assert 0.5 < time.monotonic() - started < 9
    if b'POST' in sent:
      assert answer.startswith(b'HTTP/1.1 408')
    else:
      assert answer.count(b'HTTP/1.1 200') == sent.count(b'\r\n\r\n')


def test_a_header_that_trickles_in_has_the_same_time(short):
  with running(make_app()) as (_, port), connect(port) as client:
    started = time.monotonic()
    with contextlib.suppress(ConnectionError):
      for piece in HEADER + b'X: ' + b'a' * 100:
        client.sendall(bytes([piece]))
        time.sleep(0.05)
    assert 0.5 < time.monotonic() - started < 4.5


def test_a_client_that_does_not_read_is_left(short):
  with running(make_app()) as (served, port):
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(('127.0.0.1', port))
    client.sendall(HEADER.replace(b'quick', b'large') + b'\r\n')
    deadline = time.monotonic() + 10
    time.sleep(0.2)
    assert served.server_state.connections
    while served.server_state.connections and time.monotonic() < deadline:
      time.sleep(0.05)
    assert not served.server_state.connections
    client.close()


def test_silent_clients_shut_nobody_out(short, monkeypatch):
  monkeypatch.setattr(Connection, 'header_seconds', 60)
  monkeypatch.setattr(Connection, 'request_seconds', 60)
  monkeypatch.setattr('delf_d2r.serving.connections._GRACE_SECONDS', 0.2)
  half = b'POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf'
  with running(make_app()) as (_, port), contextlib.ExitStack() as stack:
    silent = [stack.enter_context(connect(port, sent)) for sent in (b'', b'GET', half) * 2]
    time.sleep(0.5)
    for _ in range(2):
      assert httpx.get(f'http://127.0.0.1:{port}/quick').json() == 'quick'
    assert silent[0].recv(1) == b''  # the one that waited for longest
    silent[-1].settimeout(0.1)
    with pytest.raises(TimeoutError):
      silent[-1].recv(1)


@pytest.mark.slow
def test_more_than_can_be_served_are_told_so(short, monkeypatch):
  monkeypatch.setattr(Connection, 'header_seconds', 60)
  monkeypatch.setattr(Connection, 'request_seconds', 60)
  with running(make_app()) as (served, port), contextlib.ExitStack() as stack:
    for _ in range(6):
      stack.enter_context(connect(port, HEADER.replace(b'quick', b'slow?seconds=3') + b'\r\n'))
    wait_until(lambda: len(served.server_state.tasks) == 6)
    refused = httpx.get(f'http://127.0.0.1:{port}/quick')
    assert refused.status_code == 503
    assert refused.json().keys() == {'error', 'remedy'}
    assert "default-src 'none'" in refused.headers['content-security-policy']
    waiting = [stack.enter_context(connect(port)) for _ in range(3)]
    assert waiting[-1].recv(1) == b''


@pytest.mark.parametrize('sent', [b'\x16\x03\x01 is no HTTP\r\n\r\n', b'GET / HTTP/1.1\r\n\r\n'])
def test_what_is_not_http_is_answered_in_the_form_of_all_failures(sent):
  with running(make_app()) as (_, port):
    header, _, body = rest(connect(port, sent)).partition(b'\r\n\r\n')
    assert header.startswith(b'HTTP/1.1 400 ')
    assert b'nosniff' in header
    assert b'"error"' in body


@pytest.mark.parametrize('path', ['body', 'quick', 'nowhere'])
@pytest.mark.parametrize(
  'chunk', [b'zz\r\nabc\r\n0\r\n\r\n', b'5\r\nabcdefgh\r\n0\r\n\r\n', b'f' * 24 + b'\r\nabc']
)
def test_a_body_that_is_not_http_is_answered_once(caplog, path, chunk):
  header = f'POST /{path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n'
  with running(make_app()) as (_, port):
    answer = rest(connect(port, header.encode() + chunk))
  assert answer.startswith(b'HTTP/1.1 400 ')
  assert answer.count(b'HTTP/1.1 ') == 1
  assert 'Traceback' not in caplog.text


@pytest.mark.parametrize(
  'headers',
  [
    {'Origin': 'http://['},
    {'Origin': 'http://[::1'},
    {'Origin': 'http://localhost]'},
    {'Origin': 'http://\xff', 'Referer': 'http://['},
    {'Origin': ''},
    {'Host': '['},
    {'Host': '[::1'},
  ],
)
def test_odd_headers_are_refused_in_the_form_of_all_failures(headers):
  raw = [(name.encode(), value.encode('latin-1')) for name, value in headers.items()]
  for names in (('127.0.0.1', 'localhost'), ('*',)):
    with running(make_app(allowed_hosts=names)) as (_, port):
      response = httpx.post(f'http://127.0.0.1:{port}/body/', headers=raw)
      assert response.status_code in ((403,) if 'Origin' in headers else (307, 403))
      assert response.headers['x-content-type-options'] == 'nosniff'


@pytest.mark.slow
def test_a_stopped_server_answers_what_it_has_begun(caplog):
  with running(make_app(max_concurrent=2)) as (served, port), futures.ThreadPoolExecutor(8) as pool:
    url = f'http://127.0.0.1:{port}/slow'
    sent = [pool.submit(httpx.get, url, params={'seconds': 0.5}, timeout=30) for _ in range(8)]
    idle = connect(port)
    wait_until(lambda: sum(future.done() for future in sent) + len(served.server_state.tasks) == 8)
    served.should_exit = True
    assert [future.result().status_code for future in sent] == [200] * 8
    assert rest(idle) == b''
  assert not caplog.records


def test_what_a_stopped_server_cannot_answer_in_time_is_refused(monkeypatch, caplog):
  monkeypatch.setattr(server, '_DRAIN_SECONDS', 0.5)
  app = make_app(max_concurrent=2)
  with running(app) as (served, port), futures.ThreadPoolExecutor(8) as pool:
    url = f'http://127.0.0.1:{port}/slow'
    sent = [pool.submit(httpx.get, url, params={'seconds': 5}, timeout=30) for _ in range(6)]
    half = connect(port, b'POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf')
    wait_until(lambda: len(served.server_state.tasks) == 7)
    started = time.monotonic()
    served.should_exit = True
    answers = [future.result() for future in sent]
    assert time.monotonic() - started < 4.5
    assert {answer.status_code for answer in answers} == {503}
    assert all('stops' in answer.json()['error'] for answer in answers)
    assert rest(half).startswith(b'HTTP/1.1 503')
  assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.slow
def test_sigterm_under_load(index_dir, query_path):
  process = subprocess.Popen(
    [sys.executable, '-m', 'delf_d2r.tools.serve', '--port=0', f'--index={index_dir}'],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env={**os.environ, 'PYTHONUNBUFFERED': '1'},
  )
  try:
    url = process.stdout.readline().split()[0] + 'api/search'
    photo = query_path.read_bytes()
    codes = []

    def search():
      with contextlib.suppress(httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError):
        while True:
          answer = httpx.post(url, files={'photo': photo}, data={'verify': 'true'}, timeout=60)
          codes.append(answer.status_code)

    threads = [threading.Thread(target=search) for _ in range(12)]
    for thread in threads:
      thread.start()
    time.sleep(3)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    for thread in threads:
      thread.join()
  finally:
    process.kill()
    process.wait()
  assert set(codes) <= {200, 503}
  assert codes.count(200) > 0
  assert 'Traceback' not in errors
  assert process.returncode in (0, -signal.SIGTERM)
