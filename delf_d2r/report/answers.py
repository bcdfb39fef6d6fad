"""One answer of the search engine as text, as JSON and as an HTML page."""

import contextlib
import json
import pathlib
import tempfile
import threading
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from delf_d2r.data import files
from delf_d2r.data.boxes.csv_file import check_box
from delf_d2r.data.photos import images
from delf_d2r.data.photos.photo_folders import PhotoFolders
from delf_d2r.engine import Answer, SearchEngine
from delf_d2r.errors import UserError
from delf_d2r.report import match_views, parts, scores, search_page
from delf_d2r.report.views import QueryView, ResultView, SearchView
from delf_d2r.text_table import one_line

_NOTHING_FOUND = (
  'The query has no local features, so nothing can be found: the photo or its box is too small or too smooth.'
)
_FOUND_BY_GLOBAL = (
  'The query has no local features, so photos are ranked by the global part of the score alone: the photo or'
  ' its box is too small or too smooth.'
)


def search_photo(
  index: str | pathlib.Path,
  photo: str,
  *,
  box: str | None = None,
  top_k: int = 10,
  verify: bool | None = None,
  photos: Sequence[str | pathlib.Path] = (),
  preload: bool = False,
  page: str | pathlib.Path | None = None,
  matches: int = 24,
  form: Literal['text', 'json'] = 'text',
) -> str:
  """Searches an index for one photo and returns the printed answer.

  Args:
    index: an output directory of `build_index` or of `run_experiment`.
    photo: the path of the photo.
    box: `ymin,xmin,ymax,xmax` normalised to [0, 1], the part of the photo to search for.
    top_k: number of results; 0 for all images.
    verify: whether to verify the results; None verifies if the run that made the index does.
    photos: the folders of the indexed photos, if they have moved.
    preload: whether to read the index into memory first.
    page: an HTML file to write the answer to, too.
    matches: see `write_page`.
    form: how the answer is printed.

  Raises:
    UserError: the index, the photo or the box cannot be used.
  """
  with _query_file(photo) as path:
    engine = SearchEngine.load(index, one_photo=True, preload=preload)
    corners = parse_box(box) if box else None
    if photos:
      engine.photos = PhotoFolders.of(photos)
    with _preparing(engine):
      answer = engine.search(
        path, box=corners, top_k=top_k, verify=engine.verifies if verify is None else verify
      )
    if page:
      write_page(engine, answer, path, corners, pathlib.Path(page), matches=matches)
  return to_json(answer, photo, corners) if form == 'json' else to_text(answer, photo, corners)


@contextlib.contextmanager
def _preparing(engine: SearchEngine) -> Iterator[None]:
  """Loads the networks on another thread, while the photo is decoded and the first of them is used."""

  def prepare() -> None:
    # What cannot be loaded is an error of the search, which needs it.
    with contextlib.suppress(Exception):
      engine.prepare()

  thread = threading.Thread(target=prepare)
  thread.start()
  try:
    yield
  finally:
    thread.join()


@contextlib.contextmanager
def _query_file(photo: str) -> Iterator[pathlib.Path]:
  """Yields the file of a query photo: of a pipe, which can be read only once, a copy.

  Raises:
    UserError: there is no such file, or it is a folder, empty or no image.
  """
  path = pathlib.Path(photo)
  if path.is_dir():
    raise UserError(f'--query={photo}: a folder, expected a photo')
  if not path.exists():
    raise UserError(f'--query={photo}: no such file')
  if path.is_file():
    yield path
    return
  with files.format_errors(path, 'a photo'):
    data = path.read_bytes()
  with images.open_image(data, name=photo):
    pass
  with tempfile.TemporaryDirectory() as folder:
    copy = pathlib.Path(folder) / path.name
    copy.write_bytes(data)
    yield copy


def parse_box(text: str) -> tuple[float, float, float, float]:
  """Parses a normalised box `ymin,xmin,ymax,xmax`.

  Raises:
    UserError: the text is not four numbers, or they are not a box within [0, 1].
  """
  try:
    box = tuple(float(part) for part in text.split(','))
  except ValueError:
    box = ()
  if len(box) != 4:
    raise UserError(f'--box={text}: expected four numbers ymin,xmin,ymax,xmax, for example 0.1,0.2,0.8,0.9')
  check_box(box, '--box')
  return box


def to_text(answer: Answer, query: str, box: Sequence[float] | None) -> str:
  """Returns a ranked list for a terminal, with a line for each result."""
  where = f', box {_box_text(box)}' if box else ''
  seconds = ', '.join(f'{part} {1e3 * value:.1f} ms' for part, value in answer.seconds.items())
  lines = [f'{one_line(query)}{where}: {answer.num_features} features; {seconds}']
  if not answer.num_features:
    lines.append(_no_features(answer))
  lines += [
    f'{result.rank:>4}  {result.score:10.4f}  {one_line(result.name)}{_parts(result)}{_inliers(result)}'
    f'{_region(result)}'
    for result in answer.results
  ]
  return '\n'.join(lines)


def to_json(answer: Answer, query: str, box: Sequence[float] | None) -> str:
  """Returns the whole answer as JSON; boxes are `[ymin, xmin, ymax, xmax]`, normalised."""
  document = {
    'query': query,
    'box': list(box) if box else None,
    'num_features': answer.num_features,
    'seconds': answer.seconds,
    'results': [
      {
        'rank': result.rank,
        'name': result.name,
        'score': result.score,
        'local_score': result.local_score,
        'global_score': result.global_score,
        'inliers': result.inliers,
        'boxes': result.boxes.tolist(),
        'best_region': None if result.best_region < 0 else result.best_region,
      }
      for result in answer.results
    ],
  }
  return json.dumps(document, ensure_ascii=False, indent=1)


def write_page(
  engine: SearchEngine,
  answer: Answer,
  query: pathlib.Path,
  box: Sequence[float] | None,
  output: pathlib.Path,
  *,
  matches: int = 24,
) -> None:
  """Writes the answer as one HTML file; of photos that are missing, the page shows only the name.

  Args:
    engine: the engine that gave the answer; its `photos` finds the indexed photos.
    answer: the results.
    query: the query photo.
    box: the box that was searched, `[ymin, xmin, ymax, xmax]` normalised; None: the whole photo.
    output: the file.
    matches: number of best results of which the page shows why they matched; about 80 kB each.

  Raises:
    UserError: the file cannot be written.
  """
  shown = QueryView(
    name=query.name,
    image_path=query,
    box=np.array(box, np.float32) if box else None,
    average_precision={},
    results=tuple(ResultView.of(result, engine.photos.find(result.name), None) for result in answer.results),
    seconds=sum(answer.seconds.values()),
    score_meanings=scores.meanings(engine.fusion),
  )
  explained, notes = match_views.of_answer(engine, answer, shown, count=matches)
  view = SearchView(
    query=shown,
    facts={
      'index': f'{len(engine):,} images',
      'query features': f'{answer.num_features:,}',
      **{part: parts.duration(value) for part, value in answer.seconds.items()},
    },
    notes=notes if answer.num_features else (_no_features(answer),),
    matches=explained,
  )
  with files.user_errors('cannot write', output):
    output.parent.mkdir(parents=True, exist_ok=True)
    files.write_output(output, search_page.render(view))


def _no_features(answer: Answer) -> str:
  return _FOUND_BY_GLOBAL if answer.can_find else _NOTHING_FOUND


def _box_text(box: Sequence[float]) -> str:
  return ','.join(f'{value:g}' for value in box)


def _parts(result) -> str:
  both = scores.both_parts(result.local_score, result.global_score, 4)
  return f'  ({", ".join(both)})' if both else ''


def _inliers(result) -> str:
  return '' if result.inliers is None else f'  ({result.inliers} inliers)'


def _region(result) -> str:
  if result.best_region < 0:
    return ''
  return '  (whole image)' if result.best_region == 0 else f'  (box {result.best_region})'
