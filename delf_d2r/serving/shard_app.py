"""The app of one shard: ranks its images for the queries that a front sends."""

from absl import logging
from fastapi import FastAPI, Request
from fastapi.responses import Response

from delf_d2r.errors import ArtefactError
from delf_d2r.index import IndexFormatError
from delf_d2r.serving import problems, schemas
from delf_d2r.serving.drain import Drain
from delf_d2r.serving.executor import RequestExecutor
from delf_d2r.serving.guard import Guard
from delf_d2r.serving.options import Options
from delf_d2r.serving.problems import Problem
from delf_d2r.sharding.messages import ShardQuery
from delf_d2r.sharding.shard import Shard
from delf_d2r.version import VERSION


def create_shard_app(shard: Shard, options: Options) -> FastAPI:
  """Returns the app of a shard, for any ASGI server."""
  app = FastAPI(title='Detect-to-Retrieve, a shard', version=VERSION, docs_url=None, redoc_url=None)
  problems.install(app)
  app.state.drain = drain = Drain()
  app.add_middleware(Guard, options=options, drain=drain)
  execute = RequestExecutor(options, drain)

  def answer(body: bytes) -> bytes:
    try:
      query = ShardQuery.decode(body)
    except ArtefactError as error:
      raise Problem(422, f'not a query of a front: {error}', 'See delf_d2r/sharding/messages.py.') from None
    try:
      return shard.answer(query).encode()
    except IndexFormatError as error:
      logging.error('%s', error)
      raise Problem(500, str(error), 'Restore the shard, or split the index again.') from None

  @app.post('/shard/search', response_class=Response)
  async def search(request: Request) -> Response:
    """Ranks the images of this shard; the bodies are described in delf_d2r/sharding/messages.py."""
    return Response(await execute(request, answer, await request.body()), media_type='application/json')

  @app.get('/healthz')
  async def health() -> schemas.Health:
    return schemas.Health(images=len(shard))

  return app
