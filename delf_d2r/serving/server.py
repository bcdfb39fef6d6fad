"""The servers of the commands serve, serve_shard and annotate, which run until they are told to stop."""

import asyncio
import dataclasses
import pathlib
import re
import socket
from collections.abc import Sequence

import uvicorn
from absl import logging
from fastapi import FastAPI

from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.data.photos.photo_folders import PhotoFolders
from delf_d2r.errors import UserError
from delf_d2r.runtime import progress
from delf_d2r.serving.annotations import Annotations
from delf_d2r.serving.app import create_app
from delf_d2r.serving.connections import Connection
from delf_d2r.serving.options import Options, without_port

Path = str | pathlib.Path

# A name, an IPv4 address, or an IPv6 address in brackets.
_HOST = re.compile(r'[\w-]+(\.[\w-]+)*|\[[\da-f:.]+\]')

LOOPBACK = ('127.0.0.1', 'localhost', '::1')
_ANY = ('0.0.0.0', '::', '')
# A server that is told to stop answers the requests in progress for this long. Container engines kill a
# process 10 s after they have told it to stop.
_DRAIN_SECONDS = 7.0
# Then the others are refused, and clients have this long to read it.
_REFUSAL_SECONDS = 1.0


def serve_index(
  directory: Path,
  *,
  host: str,
  port: int,
  photos: Sequence[Path] = (),
  annotations: Path | None = None,
  shards: str | None = None,
  shard_seconds: float = 5.0,
  preload: bool = False,
  allowed_hosts: Sequence[str] = (),
  max_upload_bytes: int = Options.max_upload_bytes,
  max_megapixels: int = Options.max_megapixels,
) -> None:
  """Serves the web page and the API of an index.

  Args:
    directory: an output directory of `build_index` or of `run_experiment`, or the front of a split index.
    host: the address to bind to.
    port: the port; 0 takes a free one.
    photos: the folders of the indexed photos, if they have moved since they were indexed.
    annotations: the CSV file for boxes drawn on the indexed photos; None for a server without that page.
    shards: the addresses of the shards of a split index, or a file of them; see
      `sharding.addresses.Addresses`.
    shard_seconds: how long a search waits for the shards.
    preload: whether to read the index into memory first.
    allowed_hosts: further hosts to answer for; see `host_options`.
    max_upload_bytes: maximum size of an upload.
    max_megapixels: maximum size of an uploaded photo.

  Raises:
    UserError: the index cannot be opened, the folder of the photos to annotate is unknown, or the address
      cannot be bound.
  """
  # Imported late: drawing boxes, too, uses this module, and does not need the libraries of the engine.
  from delf_d2r.engine import SearchEngine

  sharded = None
  if shards:
    from delf_d2r.sharding.addresses import Addresses
    from delf_d2r.sharding.sharded_index import ShardedIndex

    sharded = ShardedIndex(directory, Addresses(shards), timeout=shard_seconds)
  engine = SearchEngine.load(directory, index=sharded)
  if preload:
    engine.preload(progress.callback('index into memory'))
  engine.prepare()
  folders = PhotoFolders.of(photos) if photos else engine.photos
  boxes = None
  if annotations:
    if not folders.folders:
      raise UserError('--annotations needs the indexed photos: give their folder, --images')
    boxes = Annotations(ImageList.from_folder(folders.folders[0]), annotations)
  options = dataclasses.replace(
    host_options(host, allowed_hosts), max_upload_bytes=max_upload_bytes, max_megapixels=max_megapixels
  )
  run(create_app(engine, options, photos=folders, annotations=boxes), host=host, port=port)


def serve_shard(
  directory: Path, *, host: str, port: int, preload: bool = False, allowed_hosts: Sequence[str] = ()
) -> None:
  """Serves one shard of a split index.

  Args:
    directory: the directory of the shard.
    host: the address to bind to.
    port: the port; 0 takes a free one.
    preload: whether to read the shard into memory first.
    allowed_hosts: further hosts to answer for; see `host_options`.

  Raises:
    UserError: the shard cannot be opened, or the address cannot be bound.
  """
  from delf_d2r.serving.shard_app import create_shard_app
  from delf_d2r.sharding.messages import MAX_REQUEST_BYTES
  from delf_d2r.sharding.shard import Shard

  shard = Shard(directory)
  if preload:
    shard.index.preload(progress.callback('shard into memory'))
  options = dataclasses.replace(host_options(host, allowed_hosts), max_upload_bytes=MAX_REQUEST_BYTES)
  run(create_shard_app(shard, options), host=host, port=port)


def annotate(
  images: Path,
  output: Path,
  *,
  host: str,
  port: int,
  allowed_hosts: Sequence[str] = (),
  exclude: Sequence[str] = (),
) -> None:
  """Serves the page for drawing boxes on the photos of a folder.

  Args:
    images: the folder of the photos, subfolders included.
    output: the CSV file of the boxes; existing boxes are kept.
    host: the address to bind to.
    port: the port; 0 takes a free one.
    allowed_hosts: further hosts to answer for; see `host_options`.
    exclude: globs of files and folders to leave out; see `ImageList.from_folder`.

  Raises:
    UserError: there are no photos, the file cannot be extended, or the address cannot be bound.
  """
  annotations = Annotations(ImageList.from_folder(images, exclude=exclude), output)
  app = create_app(None, host_options(host, allowed_hosts), annotations=annotations)
  run(app, host=host, port=port)


def host_options(host: str, allowed_hosts: Sequence[str] = ()) -> Options:
  """Returns the options of a server that is bound to `host`, with the hosts that it answers for.

  A server on loopback answers for the names of loopback; others also for `host`, the name of this machine and
  every IP address.

  Args:
    host: the address to bind to.
    allowed_hosts: further host names and addresses, such as that of a proxy in front; '*' for any.

  Raises:
    UserError: one of `allowed_hosts` can be no host of a request, so that it would allow nothing.
  """
  own = ['127.0.0.1', 'localhost', '[::1]']
  if host not in LOOPBACK:
    if host not in _ANY:
      own.insert(0, f'[{host}]' if ':' in host else host)
    name = socket.gethostname()
    own += [name, name.partition('.')[0]]
  further = [without_port(name.strip()) for name in allowed_hosts if name.strip()]
  for name in further:
    if name != '*' and not _HOST.fullmatch(name):
      raise UserError(
        f'--allowed_hosts: {name!r} is not the name or address of a host. Give names like photos.example,'
        ' IPv6 addresses in brackets, or * for any; neither http:// nor patterns'
      )
  hosts = dict.fromkeys((*map(without_port, own), *further))
  return Options(allowed_hosts=tuple(hosts), allow_addresses=host not in LOOPBACK)


def run(app: FastAPI, *, host: str, port: int) -> None:
  """Serves until SIGINT or SIGTERM; requests in progress are answered first.

  Args:
    app: the app to serve.
    host: the address to bind to. Any address but loopback lets other machines in, which is logged as a
      warning.
    port: the port; 0 takes a free one.

  Raises:
    UserError: the address cannot be bound.
  """
  listener = _bind(host, port)
  if host not in LOOPBACK:
    logging.warning(
      'bound to %s: everybody who can reach this machine can search, see the photos and, if the server'
      ' annotates, change boxes. There are no passwords; put a proxy with authentication in front',
      host,
    )
  address = f'[{host}]' if ':' in host else host
  print(f'http://{address}:{listener.getsockname()[1]}/  (stop with Ctrl-C)', flush=True)
  with listener:
    Server(app).run(sockets=[listener])


class Server(uvicorn.Server):
  """Serves an app with bounded connections. When it is told to stop, it answers the requests in progress.

  Requests that are not answered in time are refused with status 503.
  """

  def __init__(self, app: FastAPI):
    """Takes an app, whose `state.drain` ends its requests."""
    self._app = app
    super().__init__(
      uvicorn.Config(
        app,
        http=Connection,
        ws='none',
        log_level='warning',
        access_log=False,
        server_header=False,
        # The deadlines are those of Connection, but for the moment between its last one and the next.
        timeout_keep_alive=round(Connection.header_seconds),
        timeout_graceful_shutdown=round(_DRAIN_SECONDS + 2 * _REFUSAL_SECONDS),
      )
    )

  async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
    """Stops: answers the requests in progress, refuses those that take too long, ends the connections."""
    loop = asyncio.get_running_loop()
    endings = (
      loop.call_later(_DRAIN_SECONDS, self._app.state.drain.end),
      loop.call_later(_DRAIN_SECONDS + _REFUSAL_SECONDS, self._end_connections),
    )
    await super().shutdown(sockets)
    for ending in endings:
      ending.cancel()

  def _end_connections(self) -> None:
    for connection in list(self.server_state.connections):
      if isinstance(connection, Connection):
        connection.end()


def _bind(host: str, port: int) -> socket.socket:
  try:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(address[:2], family=family)
  except OSError as error:
    raise UserError(f'cannot listen on {host}:{port}: {error}. Choose another --port or --host') from None
