import html.parser

import numpy as np
import pytest
from PIL import Image

from delf_d2r.report import views

VOID = {'meta', 'link', 'input', 'br', 'img', 'hr'}


class Page(html.parser.HTMLParser):
  """A parsed page with its elements, attributes and text; fails on unbalanced tags."""

  def __init__(self, source: str):
    super().__init__(convert_charrefs=True)
    self.elements: list[tuple[str, dict[str, str | None]]] = []
    self.text = ''
    self._open: list[str] = []
    self.feed(source)
    self.close()
    assert self._open == []

  def handle_starttag(self, tag, attrs):
    names = [name for name, _ in attrs]
    assert len(names) == len(set(names)), f'<{tag}> repeats an attribute: {names}'
    self.elements.append((tag, dict(attrs)))
    if tag not in VOID:
      self._open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))

  def handle_endtag(self, tag):
    assert self._open, f'</{tag}> closes nothing'
    assert self._open.pop() == tag

  def handle_data(self, data):
    self.text += data

  def all(self, tag, **attributes):
    wanted = {name.rstrip('_'): value for name, value in attributes.items()}
    return [
      found
      for name, found in self.elements
      if name == tag and all(found.get(key) == value for key, value in wanted.items())
    ]


@pytest.fixture
def parse():
  return Page


@pytest.fixture
def make_photo(tmp_path):
  """Writes a photo of one colour and returns its path."""

  def make(name='photo.jpg', size=(80, 60), colour=(200, 30, 30), **options):
    path = tmp_path / name
    Image.new('RGB', size, colour).save(path, **options)
    return path

  return make


@pytest.fixture
def make_result():
  def make(rank=1, *, name='index.jpg', path=None, score=0.5, label=None, boxes=(), best_region=-1):
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    return views.ResultView(name, path, score, label, boxes, best_region, rank)

  return make


@pytest.fixture
def make_query():
  def make(name='query.jpg', *, path=None, box=None, precision=None, results=(), seconds=None):
    return views.QueryView(name, path, box, precision or {}, tuple(results), seconds)

  return make


DOCUMENT = {
  'name': 'index.jpg',
  'score': 2.5,
  'query_photo': {'height': 60, 'width': 80},
  'index_photo': {'height': 60, 'width': 80},
  'query_box': [0, 0, 1, 1],
  'num_words': 1,
  'words': [{'word': 7, 'share': 1.0, 'query': [[0.5, 0.5]], 'index': [[0.25, 0.75]]}],
  'regions': [],
  'boxes': [[0, 0, 1, 0.5]],
  'best_region': 1,
  'num_inliers': 0,
  'inliers': [],
}


@pytest.fixture
def make_match(make_photo, make_result):
  def make(rank=1, *, name='index.jpg', query='query.jpg', path=None, label=None):
    result = make_result(rank, name=name, path=path, label=label)
    return views.MatchView(query, make_photo('query.jpg'), result, DOCUMENT, 'a note')

  return make
