"""The app: a search engine's page and JSON API, with or without the page that draws boxes."""

import pathlib
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.responses import FileResponse, RedirectResponse
from starlette.staticfiles import StaticFiles

from delf_d2r.data.photos.photo_folders import PhotoFolders
from delf_d2r.serving import annotation_routes, problems, schemas
from delf_d2r.serving.annotations import Annotations
from delf_d2r.serving.guard import Guard
from delf_d2r.serving.options import Options
from delf_d2r.serving.work import Work
from delf_d2r.version import VERSION

if TYPE_CHECKING:
  from delf_d2r.engine import SearchEngine

_PROBLEM = {'model': problems.ProblemBody, 'description': 'What failed, and what to do.'}
_ASSETS = pathlib.Path(__file__).parent / 'assets'


def create_app(
  engine: 'SearchEngine | None',
  options: Options | None = None,
  *,
  photos: PhotoFolders | None = None,
  annotations: Annotations | None = None,
) -> FastAPI:
  """The app, for any ASGI server.

  Args:
    engine: answers the searches; None: the app only draws boxes. Photos may be added and removed meanwhile.
    options: its limits; the defaults are meant for one machine.
    photos: the folders of the indexed photos, if they are not where they were when they were indexed.
    annotations: the boxes to draw; None: the app only searches.
  """
  if engine is None and annotations is None:
    raise ValueError('expected an engine, annotations or both, found neither')
  options = options or Options()
  app = FastAPI(
    title='Detect-to-Retrieve',
    version=VERSION,
    description='Landmark image search. Boxes are [ymin, xmin, ymax, xmax], shares of height and width.',
    # Their pages load scripts from elsewhere; /openapi.json opens in any tool of that kind.
    docs_url=None,
    redoc_url=None,
    responses=dict.fromkeys(('default', 422), _PROBLEM),
  )
  problems.install(app)
  app.add_middleware(Guard, options=options)
  # The report's style sheet is the ground of this page's own.
  app.mount('/assets/report', StaticFiles(packages=[('delf_d2r.report', 'assets')]), name='report')
  app.mount('/assets', StaticFiles(directory=_ASSETS), name='assets')
  work = Work(options)

  @app.get('/healthz')
  async def health() -> schemas.Health:
    return schemas.Health(images=0 if engine is None else len(engine))

  if engine is not None:
    # Here, for boxes are drawn without the engine's libraries, which take longer to load than all else.
    from delf_d2r.serving import search_routes

    app.include_router(search_routes.router(engine, options, work, photos, annotates=annotations is not None))
  if annotations is not None:
    app.include_router(annotation_routes.router(annotations, work))

  @app.get('/', include_in_schema=False)
  async def _start():
    return RedirectResponse('/annotate') if engine is None else FileResponse(_ASSETS / 'search.html')

  if annotations is not None:

    @app.get('/annotate', include_in_schema=False)
    async def _annotate():
      return FileResponse(_ASSETS / 'annotate.html')

  return app
