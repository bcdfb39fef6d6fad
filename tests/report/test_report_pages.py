import base64
import dataclasses
import hashlib
import html
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from delf_d2r.report import experiment_page, search_page
from delf_d2r.report.views import ExperimentView, MatchGroup, MethodView, SearchView, TableView

DVD_COVERS = Path(__file__).resolve().parents[2].parent / 'shared' / 'data' / 'dvd_covers'
HOSTILE = '<script>alert("x")</script> \'Köln\' & 大教堂 \udcff'
SHOWN = HOSTILE.replace('\udcff', '\ufffd')


@pytest.fixture
def view(make_photo, make_query, make_result):
  a, b = make_photo('a b.jpg'), make_photo('ü.jpg')
  results = [
    make_result(1, name='a b.jpg', path=a, label='right', boxes=[[0, 0, 1, 0.5]], best_region=1),
    make_result(2, name=HOSTILE, path=Path('/nowhere.jpg'), label='wrong'),
    make_result(3, name='ü.jpg', path=b, label='junk', boxes=[[0, 0, 1, 0.5]], best_region=0),
  ]
  queries = (
    make_query('fine', path=a, precision={'easy': 1.0, 'medium': 0.9, 'hard': None}, results=results),
    make_query(HOSTILE, path=b, box=np.array([0, 0, 0.5, 0.5], np.float32), seconds=0.0123,
               precision={'easy': 0.5, 'medium': 0.123, 'hard': 0.1}, results=results[::-1]),
    make_query('undefined', precision={'easy': None, 'medium': None, 'hard': None}),
    make_query('middle', precision={'easy': 0.6, 'medium': 0.5, 'hard': 0.3}, results=results[1:]),
  )  # fmt: skip
  return ExperimentView(
    title=HOSTILE,
    subtitle=HOSTILE,
    tables=(TableView((HOSTILE, 'mAP'), ((HOSTILE, 12.5),), HOSTILE),),
    queries=queries,
    config_text='x: "<&>"\n',
    facts={HOSTILE: HOSTILE},
    notes=(HOSTILE,),
    methods=(MethodView(HOSTILE, {'easy': 0.9}), MethodView('b', {'easy': 0.8})),
    queries_title=HOSTILE,
  )


@pytest.fixture
def search_view(view):
  return SearchView(view.queries[1], HOSTILE, {HOSTILE: HOSTILE}, (HOSTILE,), 'x: "<&>"\n')


@pytest.fixture(params=['experiment', 'search', 'matches'])
def source(request, view, search_view, make_match):
  if request.param == 'search':
    return search_page.render(search_view)
  if request.param == 'matches':
    matches = (make_match(2, name=HOSTILE, query=HOSTILE, label='wrong'), make_match())
    view = dataclasses.replace(view, match_groups=(MatchGroup(HOSTILE, HOSTILE, matches),))
  return experiment_page.render(view)


def test_page_is_well_formed(source, parse):
  page = parse(source)
  assert source.startswith('<!DOCTYPE html>\n<html lang="en">')
  assert len(page.all('h1')) == len(page.all('main')) == 1
  assert f'<title>{html.escape(SHOWN)}' in source.partition('</head>')[0]
  ids = [attributes['id'] for _, attributes in page.elements if 'id' in attributes]
  assert len(ids) == len(set(ids))


def test_page_refers_to_nothing_outside(source, parse):
  page = parse(source)
  ids = {attributes['id'] for _, attributes in page.elements if 'id' in attributes}
  references = [
    value
    for _, attributes in page.elements
    for key, value in attributes.items()
    if key in ('href', 'src', 'srcset', 'action', 'data', 'poster', 'xlink:href')
  ]
  assert references
  for reference in references:
    assert reference.startswith('data:') or reference.removeprefix('#') in ids
  style = re.search('<style>(.*?)</style>', source, re.DOTALL)[1]
  assert 'url(' not in style
  assert '@import' not in style
  # A namespace is a name, which is not fetched.
  assert 'http' not in re.sub('http-equiv|http://www.w3.org/2000/svg', '', source)


def test_policy_admits_exactly_the_page_s_own_style_and_script(source, parse):
  policy = parse(source).all('meta', **{'http-equiv': 'Content-Security-Policy'})[0]['content']
  assert "default-src 'none'" in policy
  assert 'unsafe' not in policy
  for element in ('style', 'script'):
    bodies = re.findall(f'<{element}>(.*?)</{element}>', source, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() for body in bodies]
    found = re.search(f'{element}-src ([^;]*)', policy)
    assert (found[1] if found else '') == ' '.join(f"'sha256-{digest}'" for digest in digests)
  # Attributes that the policy would block.
  for _, attributes in parse(source).elements:
    assert not [key for key in attributes if key == 'style' or key.startswith('on')]


def test_everything_given_is_escaped(source, parse):
  page = parse(source)
  assert '<script>alert' not in source
  assert page.text.count(SHOWN) >= 5
  assert 'x: "<&>"' in page.text
  source.encode('utf-8')


def test_same_view_same_bytes(view, search_view):
  assert experiment_page.render(view) == experiment_page.render(view)
  assert search_page.render(search_view) == search_page.render(search_view)


def test_queries_stand_worst_first_and_undefined_last(view, parse):
  sections = parse(experiment_page.render(view)).all('section')
  assert [section['data-name'] for section in sections] == [SHOWN, 'middle', 'fine', 'undefined']
  assert [section['data-order'] for section in sections] == ['2', '4', '1', '3']
  assert sections[2]['data-ap'] == '1.000000,0.900000,'
  assert ['data-misranks' in section for section in sections] == [True, True, False, False]


def test_precision_of_each_protocol_is_shown(view, parse):
  text = parse(experiment_page.render(view)).text
  assert 'Easy 50.0Medium 12.3Hard 10.012.3 ms' in text
  assert 'Easy 100.0Medium 90.0Hard \u2013' in text


def test_toolbar_waits_for_the_script(view, parse):
  page = parse(experiment_page.render(view))
  (toolbar,) = page.all('div', id='toolbar')
  assert 'hidden' in toolbar
  options = page.all('option')
  assert [option['value'] for option in options] == ['+0', '-0', '+1', '-1', '+2', '-2', 'order', 'name']
  assert [option['value'] for option in options if 'selected' in option] == ['+1']
  used = set(re.findall(r"'([a-z-]+)'", re.search(r'\[(\'toolbar.*?)\]', experiment_page.render(view))[1]))
  ids = {attributes.get('id') for _, attributes in page.elements}
  assert used == {'toolbar', 'sort', 'filter', 'mistakes', 'count'} <= ids


def test_missing_photo_has_a_placeholder(view, parse):
  assert parse(experiment_page.render(view)).text.count('photo not found') == 3


def test_no_queries(parse):
  page = parse(experiment_page.render(ExperimentView('Title', '')))
  assert 'No queries.' in page.text
  assert page.all('script') == page.all('section') == page.all('div', id='toolbar') == []


def test_no_ground_truth(make_query, make_result, parse):
  queries = tuple(make_query(name, results=[make_result()]) for name in 'ba')
  page = parse(experiment_page.render(ExperimentView('Title', '', queries=queries)))
  assert 'No ground truth: results are not labelled.' in page.text
  assert [section['data-name'] for section in page.all('section')] == ['b', 'a']
  assert (
    page.all('div', class_='charts')
    == page.all('ul', class_='chips')
    == page.all('input', id='mistakes')
    == []
  )
  assert [option['value'] for option in page.all('option') if 'selected' in option] == ['order']


def test_no_results(make_query, parse):
  view = SearchView(make_query())
  page = parse(search_page.render(view))
  assert 'No results.' in page.text
  assert 'query.jpg: 0 results' in page.text


def test_search_page_tells_time_and_facts(search_view, parse):
  view = dataclasses.replace(search_view, title='Search', facts={'Index images': '150'})
  page = parse(search_page.render(view))
  assert f'{SHOWN}: 3 results in 12.3 ms' in page.text
  assert 'Index images150' in page.text
  assert page.all('script') == []


def test_thumbnails_are_embedded_once(make_photo, make_query, make_result, parse):
  paths = [make_photo(f'{i}.jpg', colour=(i, i, i)) for i in range(3)]
  results = [make_result(rank, path=path) for rank, path in enumerate(paths, start=1)]
  queries = tuple(make_query(f'q{i}', results=results) for i in range(5))
  page = parse(experiment_page.render(ExperimentView('Title', '', queries=queries)))
  assert len(page.all('image')) == 3
  assert len(page.all('use')) == 15


def test_size_of_a_result_without_its_photo(make_query, make_result):
  boxes = np.random.default_rng(0).random((8, 4))

  def size(count):
    results = [
      make_result(rank, name=f'{"folder" * 5}/{rank:04}.jpg', label='right', boxes=boxes, best_region=1)
      for rank in range(1, count + 1)
    ]
    return len(search_page.render(SearchView(make_query(results=results))).encode())

  assert (size(200) - size(100)) / 100 < 1500


@pytest.mark.slow
@pytest.mark.skipif(not DVD_COVERS.is_dir(), reason=f'needs the photos of {DVD_COVERS.name}')
def test_size_on_real_photos(make_query, make_result):
  """14 queries x 20 results over 150 index images: less than 3 MB."""
  paths = sorted(DVD_COVERS.glob('*/*.jpg'))[:164]
  assert len(paths) == 164
  index, query_paths = paths[:150], paths[150:]
  queries = []
  for q, path in enumerate(query_paths):
    hits = [index[(11 * q + k) % 150] for k in range(20)]
    results = [
      make_result(k + 1, name=hit.name, path=hit, label='wrong', boxes=[[0, 0, 0.5, 0.5]] * 4, best_region=2)
      for k, hit in enumerate(hits)
    ]
    queries.append(make_query(path.name, path=path, precision={'hard': 0.5}, results=results))
  source = experiment_page.render(ExperimentView('Title', '', queries=tuple(queries)))
  assert source.count('<image ') == 164
  assert len(source.encode()) < 3_000_000


def test_photos_are_decoded_once_for_a_page(make_photo, make_query, make_result, monkeypatch):
  opened = []
  real_open = Image.open
  monkeypatch.setattr(Image, 'open', lambda path: opened.append(path) or real_open(path))
  path = make_photo()
  results = [make_result(rank, path=path) for rank in range(1, 6)]
  search_page.render(SearchView(make_query(results=results)))
  assert [file.name for file in opened] == [str(path)]
