"""Runs an app until it is told to stop."""

import socket

import uvicorn
from absl import logging
from fastapi import FastAPI

from delf_d2r.errors import UserError

LOOPBACK = ('127.0.0.1', 'localhost', '::1')
# A connection without a request is closed after this.
_IDLE_SECONDS = 15
_CONNECTIONS = 512


def allowed_hosts(host: str) -> tuple[str, ...]:
  """The names that a server bound to `host` answers for."""
  return ('127.0.0.1', 'localhost', '[::1]') if host in LOOPBACK else ('*',)


def run(app: FastAPI, *, host: str, port: int) -> None:
  """Serves until SIGINT or SIGTERM; requests that run then are answered first.

  Args:
    app: what to serve.
    host: address to bind to; anything but loopback lets others in, and is warned about.
    port: 0 takes a free one.

  Raises:
    UserError: the address cannot be bound.
  """
  listener = _bind(host, port)
  if host not in LOOPBACK:
    logging.warning(
      'bound to %s: whoever reaches this machine can search, see the photos and, if it annotates, change'
      ' boxes. There are no passwords; put a proxy with them in front',
      host,
    )
  address = f'[{host}]' if ':' in host else host
  print(f'http://{address}:{listener.getsockname()[1]}/  (stop with Ctrl-C)', flush=True)
  config = uvicorn.Config(
    app,
    log_level='warning',
    access_log=False,
    server_header=False,
    timeout_keep_alive=_IDLE_SECONDS,
    limit_concurrency=_CONNECTIONS,
    timeout_graceful_shutdown=10,
  )
  with listener:
    uvicorn.Server(config).run(sockets=[listener])


def _bind(host: str, port: int) -> socket.socket:
  try:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(address[:2], family=family)
  except OSError as error:
    raise UserError(f'cannot listen on {host}:{port}: {error}. Choose another --port or --host') from None
