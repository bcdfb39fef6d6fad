"""Matches in pages: data for a script in the page, and buttons that are hidden until it runs."""

import dataclasses
import json
import re
from pathlib import Path

from delf_d2r.report import experiment_page, parts, search_page
from delf_d2r.report.match_sheet import SCRIPTS
from delf_d2r.report.views import ExperimentView, MatchGroup, SearchView


def experiment(matches, queries=()):
  groups = (MatchGroup('Title of the group', 'Why these', tuple(matches)),)
  return experiment_page.render(ExperimentView('Title', '', queries=tuple(queries), match_groups=groups))


def entries(source):
  return json.loads(re.search('<script type="application/json" id="matches">(.*?)</script>', source)[1])


def test_entries_have_what_the_script_needs(make_match, make_photo, parse):
  source = experiment([make_match(3, path=make_photo('a.jpg', size=(900, 600)), label='wrong')])
  page = parse(source)
  (entry,) = entries(source)
  assert entry['match']['words'][0]['word'] == 7
  assert entry['heading'] == 'query.jpg → 3. index.jpg'
  assert (entry['label'], entry['note'], entry['fused']) == ('wrong', 'a note', '')
  images = {image['id']: image for image in page.all('image')}
  assert images[entry['photos'][1]]['width'] == '512'
  assert {'Title of the group', 'Why these'} <= set(re.findall('>([^<]*)<', source))


def test_a_fused_score_is_shown_with_its_parts(make_match):
  match = make_match()
  result = dataclasses.replace(match.result, score=36.15, local_score=23.8, global_score=27.21)
  (entry,) = entries(experiment([dataclasses.replace(match, result=result)]))
  assert entry['fused'] == 'score 36.15: local 23.80, global 27.21'


def test_a_photo_that_is_not_at_hand_is_said_to_be_missing(make_match):
  (entry,) = entries(experiment([make_match(path=Path('/nowhere.jpg'))]))
  assert entry['photos'][1] == {'missing': 'photo not found'}


def test_no_name_ends_the_data(make_match):
  name = '</script><script>alert(1)</script>\udcff.jpg'
  source = experiment([make_match(name=name)])
  assert '<script>alert' not in source
  assert entries(source)[0]['heading'].endswith(name)


def test_buttons_wait_for_the_script(make_match, parse):
  page = parse(experiment([make_match(1), make_match(2)]))
  buttons = page.all('button')
  assert [button['data-match'] for button in buttons] == ['0', '1']
  assert all('hidden' in button for button in buttons)
  assert 'Matches open in a browser that runs scripts.' in page.text


def test_the_list_of_queries_opens_the_same_matches(make_match, make_query, make_result, parse):
  queries = [
    make_query(name, results=[make_result(rank) for rank in (1, 2)]) for name in ('query.jpg', 'other')
  ]
  source = experiment([make_match(2)], queries)
  assert [button['data-match'] for button in parse(source).all('button')] == ['0', '0']
  assert len(entries(source)) == 1


def test_results_of_a_search_open_their_matches(make_match, make_query, make_result, parse):
  query = make_query(results=[make_result(rank) for rank in (1, 2, 3)])
  source = search_page.render(SearchView(query, matches=(make_match(1), make_match(3))))
  assert [button['aria-label'] for button in parse(source).all('button')] == [
    'Why it matched: 1. index.jpg',
    'Why it matched: 3. index.jpg',
  ]


def test_a_page_without_matches_carries_none_of_it(make_query, make_result, parse):
  for source in (
    experiment_page.render(ExperimentView('Title', '')),
    search_page.render(SearchView(make_query(results=[make_result()]))),
  ):
    page = parse(source)
    assert page.all('button') == page.all('script') == page.all('noscript') == []


def test_one_script_of_several_modules():
  source = parts.script(('script.js', *SCRIPTS))
  assert not re.search('^(import|export) ', source, re.MULTILINE)
  declared = re.findall(r'^(?:const|let|class|function|async function) (\w+)', source, re.MULTILINE)
  assert len(declared) > 10
  assert len(declared) == len(set(declared))
  assert parts.script(()) == ''


def test_modules_import_only_what_comes_before_them():
  before = set()
  for name in SCRIPTS:
    source = parts._read_asset(name)
    assert set(re.findall(r"^import [^;]* from '\./([^']*)';", source, re.MULTILINE)) <= before
    before.add(name)
