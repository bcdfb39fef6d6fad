"""The page and the API of a run with fusion: both parts of each score, and queries without local features."""

import io

import httpx
import numpy as np
import pytest
from PIL import Image
from support.fused_run import fused_dir
from support.servers import serving

from delf_d2r.engine import SearchEngine
from delf_d2r.report import scores
from delf_d2r.serving.app import create_app
from delf_d2r.serving.options import Options

__all__ = ['fused_dir']

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def engine(fused_dir):
  return SearchEngine.load(fused_dir)


@pytest.fixture(scope='module')
def client(engine):
  with (
    serving(create_app(engine, Options())) as address,
    httpx.Client(base_url=address, timeout=60) as client,
  ):
    yield client


def test_a_score_has_its_two_parts(client, engine, query_path):
  answer = client.post('/api/search', files={'photo': ('q.jpg', query_path.read_bytes())}).json()
  expected = engine.search(query_path, top_k=24).results
  for name in ('score', 'local_score', 'global_score'):
    found = [result[name] for result in answer['results']]
    assert found == pytest.approx([getattr(result, name) for result in expected], abs=1e-5)
  first = answer['results'][0]
  match = client.get('/api/match', params={'query': answer['query'], 'image': first['id']}).json()
  # Words explain the similarity of local features.
  local = engine.rank(engine.describe(engine.search(query_path).features), top_k=0)
  image = list(engine.index.image_names).index(first['name'])
  assert match['score'] == pytest.approx(local.scores[local.image_ids == image].item(), rel=1e-4)


def test_the_page_is_told_what_the_parts_mean(client, engine):
  assert client.get('/api/limits').json()['score_meanings'] == scores.meanings(engine.fusion) != {}


def test_a_match_names_the_region_that_scored(client, query_path):
  answer = client.post('/api/search', files={'photo': ('q.jpg', query_path.read_bytes())}).json()
  regions = set()
  for result in answer['results']:
    match = client.get('/api/match', params={'query': answer['query'], 'image': result['id']}).json()
    assert match['best_region'] == result['best_region']
    assert match['boxes'] == result['boxes']
    assert match['regions'] == []  # One region is compared, which is no part of another.
    regions.add(match['best_region'])
  assert max(regions) > 0


def test_a_query_without_any_features_finds_nothing(client):
  data = io.BytesIO()
  Image.fromarray(np.full((60, 60, 3), 9, np.uint8)).save(data, 'PNG')
  answer = client.post('/api/search', files={'photo': ('q.png', data.getvalue())}).json()
  assert answer['results'] == []
  assert answer['note'].startswith('No local features were found')


def test_a_query_without_local_features_is_ranked_by_the_global_part(client, engine, query_path, monkeypatch):
  reader = engine._parts.reader
  read, flat = reader.query_features, np.full((60, 60, 3), 9, np.uint8)
  monkeypatch.setattr(reader, 'query_features', lambda pixels, box: read(flat, None))
  answer = client.post('/api/search', files={'photo': ('q.jpg', query_path.read_bytes())}).json()
  assert {result['local_score'] for result in answer['results']} == {0}
  assert answer['results'][0]['global_score'] > 0
  assert 'ranked by the global part of the score alone' in answer['note']
