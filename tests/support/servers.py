"""Servers on the loopback interface that are stopped at the end of a context."""

import contextlib
import socket
import threading

import httpx
import uvicorn


@contextlib.contextmanager
def serving(app):
  """Serves `app` on a free port of loopback and yields its address; stops it at the end."""
  with serving_all([app]) as (address,):
    yield address


@contextlib.contextmanager
def serving_all(apps):
  """Serves each of `apps` on a free port of loopback and yields their addresses; stops them together."""
  listeners = [socket.create_server(('127.0.0.1', 0)) for _ in apps]
  servers = [
    uvicorn.Server(uvicorn.Config(app, log_level='error', timeout_graceful_shutdown=2)) for app in apps
  ]
  threads = [
    threading.Thread(target=server.run, kwargs={'sockets': [listener]}, daemon=True)
    for server, listener in zip(servers, listeners, strict=True)
  ]
  for thread in threads:
    thread.start()
  try:
    yield [f'http://127.0.0.1:{listener.getsockname()[1]}' for listener in listeners]
  finally:
    for server in servers:
      server.should_exit = True
    for thread in threads:
      thread.join(timeout=10)
    for listener in listeners:
      listener.close()
    assert not any(thread.is_alive() for thread in threads)


@contextlib.contextmanager
def serving_client(app):
  """Serves `app` and yields a client of it."""
  with serving(app) as address, httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
    yield client
