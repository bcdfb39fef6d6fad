"""Servers on the loopback interface that are stopped at the end of a context."""

import contextlib
import socket
import threading

import httpx
import uvicorn


@contextlib.contextmanager
def serving(app):
  """Serves `app` on a free port of loopback and yields its address; stops it at the end."""
  listener = socket.create_server(('127.0.0.1', 0))
  server = uvicorn.Server(uvicorn.Config(app, log_level='error', timeout_graceful_shutdown=2))
  thread = threading.Thread(target=server.run, kwargs={'sockets': [listener]}, daemon=True)
  thread.start()
  try:
    yield f'http://127.0.0.1:{listener.getsockname()[1]}'
  finally:
    server.should_exit = True
    thread.join(timeout=10)
    listener.close()
    assert not thread.is_alive()


@contextlib.contextmanager
def serving_client(app):
  """Serves `app` and yields a client of it."""
  with serving(app) as address, httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
    yield client
