"""The servers of the commands serve, serve_shard and annotate, which run until they are told to stop."""

import pathlib
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
from delf_d2r.serving.options import Options

Path = str | pathlib.Path

LOOPBACK = ('127.0.0.1', 'localhost', '::1')
# A connection without a request is closed after this time.
_IDLE_SECONDS = 15
_CONNECTIONS = 512


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
  options = Options(
    max_upload_bytes=max_upload_bytes, max_megapixels=max_megapixels, allowed_hosts=allowed_hosts(host)
  )
  run(create_app(engine, options, photos=folders, annotations=boxes), host=host, port=port)


def serve_shard(directory: Path, *, host: str, port: int, preload: bool = False) -> None:
  """Serves one shard of a split index.

  Args:
    directory: the directory of the shard.
    host: the address to bind to.
    port: the port; 0 takes a free one.
    preload: whether to read the shard into memory first.

  Raises:
    UserError: the shard cannot be opened, or the address cannot be bound.
  """
  from delf_d2r.serving.shard_app import create_shard_app
  from delf_d2r.sharding.messages import MAX_REQUEST_BYTES
  from delf_d2r.sharding.shard import Shard

  shard = Shard(directory)
  if preload:
    shard.index.preload(progress.callback('shard into memory'))
  options = Options(max_upload_bytes=MAX_REQUEST_BYTES, allowed_hosts=allowed_hosts(host))
  run(create_shard_app(shard, options), host=host, port=port)


def annotate(images: Path, output: Path, *, host: str, port: int) -> None:
  """Serves the page for drawing boxes on the photos of a folder.

  Args:
    images: the folder of the photos, subfolders included.
    output: the CSV file of the boxes; existing boxes are kept.
    host: the address to bind to.
    port: the port; 0 takes a free one.

  Raises:
    UserError: there are no photos, the file cannot be extended, or the address cannot be bound.
  """
  annotations = Annotations(ImageList.from_folder(images), output)
  app = create_app(None, Options(allowed_hosts=allowed_hosts(host)), annotations=annotations)
  run(app, host=host, port=port)


def allowed_hosts(host: str) -> tuple[str, ...]:
  """Returns the host names that a server bound to `host` answers for."""
  return ('127.0.0.1', 'localhost', '[::1]') if host in LOOPBACK else ('*',)


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
