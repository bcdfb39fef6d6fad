"""An answer as text and as JSON, with any names of photos."""

import html
import json
import os
import re
import types

import numpy as np
import pytest
from PIL import Image
from support.fused_run import fused_dir
from support.served_index import photos, query_path

from delf_d2r.engine import Answer, SearchEngine, SearchResult
from delf_d2r.errors import UserError
from delf_d2r.report import answers, scores

__all__ = ['fused_dir', 'photos', 'query_path']

NAMES = ('a b\u00e9.jpg', 'x\n   1      9.0000  fake.jpg', '\x1b[2J\u2028\\.jpg')


def answer():
  results = (SearchResult(rank, name, 0.5, np.zeros((0, 4)), -1) for rank, name in enumerate(NAMES, start=1))
  return Answer(tuple(results), types.SimpleNamespace(features=range(3)), {'search': 0.001})


def test_text_has_a_line_for_each_result():
  assert answers.to_text(answer(), 'q\r.jpg', None).splitlines() == [
    'q\\r.jpg: 3 features; search 1.0 ms',
    '   1      0.5000  a b\u00e9.jpg',
    '   2      0.5000  x\\n   1      9.0000  fake.jpg',
    '   3      0.5000  \\x1b[2J\\u2028\\.jpg',
  ]


def test_json_has_the_names_as_they_are():
  document = json.loads(answers.to_json(answer(), 'q\r.jpg', None))
  assert (document['query'], *(result['name'] for result in document['results'])) == ('q\r.jpg', *NAMES)


@pytest.fixture
def piped():
  """Returns a function that returns the path of a pipe with a content, as <(...) of a shell does."""
  readers = []

  def make(data):
    reader, writer = os.pipe()
    readers.append(reader)
    with os.fdopen(writer, 'wb') as file:
      file.write(data)
    return f'/dev/fd/{reader}'

  yield make
  for reader in readers:
    os.close(reader)


def test_a_query_from_a_pipe_is_read_once_and_can_be_shown(piped, tmp_path):
  Image.new('RGB', (30, 20), 'red').save(tmp_path / 'a.png')
  with answers._query_file(piped((tmp_path / 'a.png').read_bytes())) as path:
    for _ in range(2):
      assert path.read_bytes() == (tmp_path / 'a.png').read_bytes()
    copy = path
  assert not copy.exists()
  with answers._query_file(str(tmp_path / 'a.png')) as path:
    assert path == tmp_path / 'a.png'


@pytest.mark.parametrize(('data', 'says'), [(b'', 'is empty'), (b'text', 'not an image')])
def test_a_pipe_without_a_photo(piped, data, says):
  path = piped(data)
  with pytest.raises(UserError, match=f'{path}: .*{says}'):
    answers.search_photo('no_index', path)


def test_a_query_that_is_missing_or_a_folder(tmp_path):
  with pytest.raises(UserError, match=r'--query=.*no\.jpg: no such file'):
    answers.search_photo('no_index', str(tmp_path / 'no.jpg'))
  with pytest.raises(UserError, match='a folder, expected a photo'):
    answers.search_photo('no_index', str(tmp_path))


@pytest.mark.slow
def test_a_fused_score_has_its_two_parts(fused_dir, query_path, tmp_path):
  found = SearchEngine.load(fused_dir).search(query_path, top_k=2).results[0]
  both = f'local {found.local_score:.4f}, global {found.global_score:.4f}'
  page = tmp_path / 'answer.html'
  text = answers.search_photo(fused_dir, str(query_path), top_k=2, page=page, matches=1)
  assert f'{found.name}  ({both})' in text.splitlines()[1]
  document = json.loads(answers.search_photo(fused_dir, str(query_path), top_k=2, form='json'))
  first = document['results'][0]
  assert first['score'] == pytest.approx(first['local_score'] + first['global_score'], abs=1e-5)
  assert 'local ' in page.read_text()
  source = page.read_text()
  for meaning in scores.meanings(SearchEngine.load(fused_dir).fusion).values():
    assert html.escape(meaning) in source
  (entry,) = json.loads(re.search('<script type="application/json" id="matches">(.*?)</script>', source)[1])
  assert entry['fused'].startswith('score ')
  assert entry['match']['best_region'] == found.best_region
  assert entry['match']['boxes'] == found.boxes.tolist()
  # The report of the run shows them, too.
  report = (fused_dir / 'report' / 'index.html').read_text()
  assert '>local ' in report
  assert html.escape(scores.meanings(SearchEngine.load(fused_dir).fusion)['score']) in report
  assert 'exact share of the similarity of local features' in report
