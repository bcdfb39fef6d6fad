"""Requests to the server: no request causes an internal error or discloses files."""

import asyncio
import contextlib
import functools
import json
import pathlib
import urllib.parse

import numpy as np
from fuzzing import mutations, valid_files
from fuzzing.reader import Reader, single
from fuzzing.valid_files import ValidFiles
from hypothesis import strategies as st

from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.engine import SearchEngine
from delf_d2r.serving.annotations import Annotations
from delf_d2r.serving.app import create_app
from delf_d2r.serving.options import Options
from delf_d2r.sharding import layout, messages
from delf_d2r.structures import AggregatedDescriptor

_TARGETS = (
  '/',
  '/healthz',
  '/annotate',
  '/openapi.json',
  '/assets/search.js',
  '/assets/../app.py',
  '/assets/%2e%2e/app.py',
  '/assets/report/..%2f..%2fengine.py',
  '/api/limits',
  '/api/search',
  '/api/match',
  '/api/images',
  '/api/photo/0',
  '/api/photo/..%2f..%2ftruth.json',
  '/api/photo/0/thumbnail',
  '/api/query/x/photo',
  '/api/annotate',
  '/api/annotate/0',
  '/api/annotate/0/photo',
)
_FORM = b'content-type: multipart/form-data; boundary=frontier'
# Text that no response may contain: of the ground truth beside the photos, and of the source of the server.
_SECRETS = (b'box_pixels', b'import annotations')


def readers(made: ValidFiles, loops: contextlib.ExitStack) -> list[Reader]:
  """Returns the readers of requests, which are files: `head`, the request line and the headers, and `body`.

  The event loop is closed with `loops`.
  """
  photo = valid_files.encoded(valid_files.photo(0), 'jpeg')
  forms = (
    [('photo', 'a.jpg', photo), ('box', '', b'0.1,0.1,0.9,0.9'), ('top_k', '', b'3')],
    [('indexed', '', b'0.jpg'), ('verify', '', b'true')],
  )
  seeds = (
    *({'head': b'POST /api/search\n' + _FORM, 'body': _multipart(form)} for form in forms),
    {'head': b'GET /api/images?filter=0&start=0&count=3', 'body': b''},
    {'head': b'PUT /api/annotate/0\ncontent-type: application/json', 'body': b'{"box": [0, 0, 1, 1]}'},
  )

  @functools.cache
  def app(folder):
    engine = SearchEngine.load(made.run)
    annotations = Annotations(ImageList.from_folder(made.photos), folder / 'drawn.csv')
    options = Options(max_upload_bytes=100_000, max_megapixels=4, max_results=5)
    return create_app(engine, options, annotations=annotations), loops.enter_context(asyncio.Runner())

  def read(folder: pathlib.Path) -> None:
    files = {
      name: (folder / name).read_bytes() if (folder / name).exists() else b'' for name in ('head', 'body')
    }
    server, runner = app(folder)
    status, content = runner.run(_answer(server, **files))
    assert status < 500, (status, content)
    assert not any(secret in content for secret in _SECRETS), content[:500]

  return [Reader('HTTP requests', seeds, read, _requests()), *_between_shards()]


def _between_shards() -> list[Reader]:
  """Returns the readers of messages between the front end and the shards of an index, and of its layout."""
  rng = np.random.default_rng(0)
  query = AggregatedDescriptor(np.arange(4, dtype=np.uint32), rng.random((4, 8), np.float32), 8)
  scoring = {'alpha': 3.0, 'tau': 0.0, 'normalize': True, 'use_idf': False, 'compat': False}
  question = messages.ShardQuery(query, 10, scoring)
  ids, scores = np.arange(3), np.array([3, 2, 1], np.float32)
  found = messages.ShardResponse('x', 0, ids, ['a', 'b', 'c'], scores, np.zeros(3, np.int32))
  split = json.dumps({'id': 'x', 'bounds': [0, 3, 5], 'entries': 5, 'shard': 1}).encode()
  keys = ('split', 'shard', 'image_ids', 'names', 'scores', 'regions', 'words', 'terms')
  layouts = ('id', 'bounds', 'entries', 'shard')

  def read_answer(path):
    assert np.isfinite(messages.ShardResponse.decode(path.read_bytes()).scores).all()

  def read_question(path):
    messages.ShardQuery.decode(path.read_bytes())

  def read_split(path):
    layout.load_split(path.parent)

  def documents(keys):
    return mutations.json_values(keys).map(mutations.json_bytes)

  return [
    single('shard question', 'x', [question.encode()], read_question),
    single('shard answer', 'x', [found.encode()], read_answer, documents(keys), errors=(ValueError,)),
    single(
      'split of an index',
      layout.SPLIT,
      [split],
      read_split,
      documents(layouts),
    ),
  ]


async def _answer(server, *, head: bytes, body: bytes) -> tuple[int, bytes]:
  """Calls the application directly, because clients and uvicorn refuse some of these requests."""
  first, *lines = head.split(b'\n')
  method, _, target = first.decode('ascii', 'ignore').partition(' ')
  path, _, query = target.partition('?')
  headers = [(b'host', b'127.0.0.1')]
  for line in lines:
    name, _, value = line.partition(b':')
    headers.append((name.strip().lower(), value.strip()))
  scope = {
    'type': 'http',
    'asgi': {'version': '3.0'},
    'http_version': '1.1',
    'method': method,
    'scheme': 'http',
    'path': urllib.parse.unquote(path),
    'raw_path': path.encode(),
    'query_string': query.encode(),
    'root_path': '',
    'headers': headers,
    'server': ('127.0.0.1', 80),
    'client': ('127.0.0.1', 1),
  }
  received = iter([{'type': 'http.request', 'body': body, 'more_body': False}])
  sent = []

  async def receive():
    return next(received, {'type': 'http.disconnect'})

  async def send(message):
    sent.append(message)

  await server(scope, receive, send)
  return sent[0]['status'], b''.join(message.get('body', b'') for message in sent[1:])


def _multipart(parts) -> bytes:
  body = b''
  for name, filename, data in parts:
    kind = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename else '')
    body += b'--frontier\r\nContent-Disposition: ' + kind.encode() + b'\r\n\r\n' + data + b'\r\n'
  return body + b'--frontier--\r\n'


def _requests():
  text = st.text(max_size=12)
  name = st.sampled_from(('photo', 'indexed', 'query', 'box', 'top_k', 'verify')) | text
  value = st.sampled_from(
    (b'0.jpg', b'../truth.json', b'nan,0,1,1', b'0,0,1', b'1e999', b'-1', b'true', b'9' * 20)
  ) | st.binary(max_size=40)
  forms = st.lists(st.tuples(name, st.just('') | text, value), max_size=4).map(_multipart)
  documents = mutations.json_values(('box',)).map(mutations.json_bytes)
  fields = st.tuples(
    st.sampled_from(('filter', 'start', 'count', 'query', 'image')), text | st.integers().map(str)
  )
  method = st.sampled_from(('GET', 'POST', 'PUT', 'DELETE', 'HEAD', 'OPTIONS', 'PATCH'))
  target = st.tuples(
    st.sampled_from(_TARGETS) | text.map(urllib.parse.quote).map('/{}'.format),
    st.lists(fields, max_size=3).map(urllib.parse.urlencode),
  ).map('?'.join)
  header = st.tuples(
    st.sampled_from(('origin', 'host', 'content-length', 'if-none-match', 'range', 'content-type')),
    st.sampled_from(('x', '-1', '0', 'http://evil', 'bytes=0-1', 'bytes=9-1,,', 'application/json', '[::1')),
  ).map(': '.join)
  head = st.tuples(
    st.tuples(method, target).map(' '.join),
    st.lists(header | st.just(_FORM.decode()), max_size=3).map('\n'.join),
  )
  return st.fixed_dictionaries({'head': head.map('\n'.join).map(str.encode), 'body': forms | documents})
