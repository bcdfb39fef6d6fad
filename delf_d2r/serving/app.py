"""The app: the web page and JSON API of a search engine, and the page for drawing boxes."""

import asyncio
import pathlib
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.responses import FileResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from delf_d2r.data.photos.photo_folders import PhotoFolders
from delf_d2r.serving import annotation_routes, problems, schemas
from delf_d2r.serving.annotations import Annotations
from delf_d2r.serving.decoding import DecodingBudget
from delf_d2r.serving.drain import Drain
from delf_d2r.serving.executor import RequestExecutor
from delf_d2r.serving.guard import Guard
from delf_d2r.serving.options import Options
from delf_d2r.version import VERSION

if TYPE_CHECKING:
  from delf_d2r.engine import SearchEngine

_PROBLEM = {'model': problems.ProblemBody, 'description': 'What happened, and what to do.'}
_ASSETS = pathlib.Path(__file__).parent / 'assets'


def create_app(
  engine: 'SearchEngine | None',
  options: Options | None = None,
  *,
  photos: PhotoFolders | None = None,
  annotations: Annotations | None = None,
) -> FastAPI:
  """Returns the app, for any ASGI server.

  Args:
    engine: answers the searches; None for an app that only draws boxes. Photos may be added to it and removed
      from it while the app runs.
    options: the limits of the server.
    photos: the folders of the indexed photos, if they have moved since they were indexed.
    annotations: the boxes to draw; None for an app that only searches.

  Raises:
    ValueError: there is neither an engine nor annotations.
  """
  if engine is None and annotations is None:
    raise ValueError('expected an engine, annotations or both, found neither')
  options = options or Options()
  app = FastAPI(
    title='Detect-to-Retrieve',
    version=VERSION,
    description='Landmark image search. Boxes are [ymin, xmin, ymax, xmax], normalised to [0, 1].',
    # FastAPI's documentation pages load scripts from other hosts; any OpenAPI tool opens /openapi.json.
    docs_url=None,
    redoc_url=None,
    responses=dict.fromkeys(('default', 422), _PROBLEM),
  )
  problems.install(app)
  app.state.drain = drain = Drain()
  app.add_middleware(Guard, options=options, drain=drain)
  # The style sheet of the page builds on that of the report.
  app.mount('/assets/report', StaticFiles(packages=[('delf_d2r.report', 'assets')]), name='report')
  app.mount('/assets', StaticFiles(directory=_ASSETS), name='assets')
  execute = RequestExecutor(options, drain)
  decoding = DecodingBudget(options.max_decoded_megapixels, seconds=options.wait_seconds)

  @app.get('/healthz')
  async def health() -> schemas.Health:
    if engine is not None:
      await asyncio.to_thread(engine.refresh)
    return schemas.Health(images=0 if engine is None else len(engine))

  if engine is not None:
    # Imported late: drawing boxes does not need the libraries of the engine, which take seconds to load.
    from delf_d2r.serving import search_routes

    app.include_router(
      search_routes.router(engine, options, execute, decoding, photos, annotates=annotations is not None)
    )
  if annotations is not None:
    app.include_router(annotation_routes.router(annotations, execute, decoding))

  @app.get('/', include_in_schema=False)
  async def _start() -> Response:
    return RedirectResponse('/annotate') if engine is None else FileResponse(_ASSETS / 'search.html')

  if annotations is not None:

    @app.get('/annotate', include_in_schema=False)
    async def _annotate() -> FileResponse:
      return FileResponse(_ASSETS / 'annotate.html')

  return app
