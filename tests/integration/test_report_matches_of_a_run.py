"""Matches of a real run: numbers, the page in a browser, and after files were moved."""

import copy
import dataclasses
import json
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.data.photos.photo_folders import PhotoFolders
from delf_d2r.engine import SearchEngine
from delf_d2r.protos.extraction_pb2 import ExtractionConfig
from delf_d2r.report import answers, make_report, match_views

pytestmark = pytest.mark.slow

NARROW = {'width': 390, 'height': 740}


@pytest.fixture(scope='module')
def matches(finished):
  return match_views.of_run(finished.reported, 12)


@pytest.fixture(scope='module')
def engine(finished):
  return SearchEngine.load(finished.artefacts['index'].path)


def moved(artefact, folder, gone):
  """A copy of an artefact whose manifest names places where there are no inputs."""
  shutil.copytree(artefact.path, folder)
  manifest = folder / 'manifest.pbtxt'
  manifest.write_text(manifest.read_text().replace(str(gone), str(folder / 'nowhere')))
  return Artefact.open(folder, artefact.manifest.kind)


def documents(matches):
  return [match.document for group in matches.groups for match in group.matches]


def entries(page):
  source = page.read_text('utf-8')
  return json.loads(re.search('<script type="application/json" id="matches">(.*?)</script>', source)[1])


def test_every_score_is_that_of_the_ranking_and_shared_out_in_full(matches):
  found = [match for group in matches.groups for match in group.matches]
  assert len(found) == 12
  assert matches.notes == ()
  for match in found:
    assert match.document['score'] == pytest.approx(match.result.score, rel=1e-4)
    assert match.note == ''
    assert match.document['num_words'] == len(match.document['words']) > 0
    assert sum(word['share'] for word in match.document['words']) == pytest.approx(1)


def test_groups_are_labelled_as_they_say(matches):
  labels = {group.title: {match.result.label for match in group.matches} for group in matches.groups}
  assert labels == {
    'Right, found first': {'right'},
    'Wrong, ranked highest': {'wrong'},
    'Right, ranked lowest': {'right'},
  }


def test_marks_of_a_pair_are_bounded(finished, monkeypatch):
  monkeypatch.setattr(match_views, 'MAX_WORDS', 3)
  monkeypatch.setattr(match_views, 'MAX_INLIERS', 2)
  found = documents(match_views.of_run(finished.reported, 12))
  assert {len(document['words']) for document in found} == {3}
  assert max(document['num_words'] for document in found) > 3
  assert max(document['num_inliers'] for document in found) > 2
  assert max(len(document['inliers']) for document in found) == 2


def test_photos_that_are_gone_leave_the_marks(finished, benchmark, tmp_path):
  shutil.copytree(benchmark.images_dir, tmp_path / 'photos')
  dataset = Dataset.load(
    tmp_path / 'photos', ground_truth=benchmark.ground_truth_path, query_images=benchmark.queries_dir
  )
  shutil.rmtree(tmp_path / 'photos')
  run = dataclasses.replace(finished.reported, dataset=dataset)
  found = entries(make_report.run(run, tmp_path / 'report', matches=3))
  assert len(found) == 3
  for entry in found:
    assert isinstance(entry['photos'][0], str)
    assert entry['photos'][1] == {'missing': 'no photo'}
    assert entry['match']['words']


def test_query_features_that_are_gone_are_told(finished, finished_dir, tmp_path):
  rankings = moved(finished.artefacts['rankings'], tmp_path / 'rankings', finished_dir / 'query_features')
  found = match_views.of_run(dataclasses.replace(finished.reported, rankings=rankings), 3)
  assert found.groups == ()
  assert 'features of the queries are missing' in found.notes[0]


def test_index_features_that_are_gone_are_made_anew_or_told(finished, finished_dir, tmp_path):
  index = moved(finished.artefacts['index'], tmp_path / 'index', finished_dir)
  run = dataclasses.replace(finished.reported, index=index)
  assert documents(match_views.of_run(run, 2)) == documents(match_views.of_run(finished.reported, 2))
  lost = dataclasses.replace(run.dataset.images, root=tmp_path / 'nowhere')
  run = dataclasses.replace(run, dataset=dataclasses.replace(run.dataset, images=lost))
  found = match_views.of_run(run, 2)
  assert found.groups == ()
  assert re.match('2 matches are not shown; the first of them: .*cannot find the features', found.notes[0])


def test_a_ranking_by_other_scores_is_told(finished, finished_dir, tmp_path):
  """The score after query expansion, whose descriptor is not that of the query alone."""
  path = shutil.copytree(finished_dir, tmp_path / 'run') / 'rankings'
  np.save(path / 'scores.npy', 2 * np.load(path / 'scores.npy'))
  run = dataclasses.replace(finished.reported, rankings=Artefact.open(path, 'rankings'))
  (match,) = match_views.of_run(run, 1).groups[0].matches
  assert match.document['score'] == pytest.approx(match.result.score / 2, rel=1e-4)
  assert match.note.startswith(f'ranked by {match.result.score:.4g}')


def test_global_descriptors_have_no_words_to_show(finished):
  index = copy.deepcopy(finished.artefacts['index'])
  index.config.extraction.extractor = ExtractionConfig.GLOBAL
  found = match_views.of_run(dataclasses.replace(finished.reported, index=index), 3)
  assert found.groups == ()
  assert 'no visual words' in found.notes[0]


def test_none_are_wanted(finished, tmp_path):
  page = make_report.run(finished.reported, tmp_path, matches=0)
  assert 'Why they matched' not in page.read_text('utf-8')


def test_stored_features_need_no_tensorflow(finished_dir, benchmark, tmp_path):
  code = (
    'import sys; from absl import app, flags; from delf_d2r.tools import make_report;'
    'flags.FLAGS(sys.argv); make_report.main(sys.argv[:1]); sys.exit("tensorflow" in sys.modules)'
  )
  values = {
    'experiment': finished_dir,
    'images': benchmark.images_dir,
    'ground_truth': benchmark.ground_truth_path,
    'query_images': benchmark.queries_dir,
    'output': tmp_path,
    'matches': 2,
  }
  arguments = [f'--{name}={value}' for name, value in values.items()]
  subprocess.run([sys.executable, '-c', code, *arguments], check=True)
  assert len(entries(tmp_path / 'index.html')) == 2


def test_a_search_explains_what_it_lists(engine, benchmark, tmp_path):
  query = benchmark.queries_dir / 'astronaut.jpg'
  answer = engine.search(query, top_k=5)
  page = tmp_path / 'answer.html'
  answers.write_page(engine, answer, query, None, page, matches=3)
  found = entries(page)
  assert [entry['match']['name'] for entry in found] == [result.name for result in answer.results[:3]]
  for entry, result in zip(found, answer.results, strict=False):
    assert entry['match']['score'] == pytest.approx(result.score, rel=1e-4)
  assert 'Matches can be opened for the first 3 of the 5 results.' in page.read_text('utf-8')


def test_an_answer_is_written_through_links_and_to_devices(engine, benchmark, tmp_path):
  query = benchmark.queries_dir / 'astronaut.jpg'
  answer = engine.search(query, top_k=2)
  for name, target in (('link', tmp_path / 'real.html'), ('device', pathlib.Path('/dev/null'))):
    (tmp_path / name).symlink_to(target)
    answers.write_page(engine, answer, query, None, tmp_path / name)
    assert (tmp_path / name).readlink() == target
  assert (tmp_path / 'real.html').read_text('utf-8').startswith('<!DOCTYPE html>')
  page = make_report.write('text', tmp_path / 'report')
  page.unlink()
  page.symlink_to(tmp_path / 'real.html')
  make_report.write('other', tmp_path / 'report')
  assert page.is_symlink()
  assert (tmp_path / 'real.html').read_text() == 'other'


def test_a_match_in_a_browser(open_page, finished, tmp_path):
  path = make_report.run(finished.reported, tmp_path, matches=6)
  found = entries(path)
  page = open_page(path.as_uri())
  requests = []
  page.on('request', lambda request: requests.append(request.url))
  page.locator('.pairs button').first.click()
  match = found[0]['match']
  places = sum(len(word['query']) + len(word['index']) for word in match['words'] if word['share'] > 0)
  page.wait_for_selector('.match-stage circle')
  assert page.locator('.match-stage circle').count() == places
  assert page.locator('.match-stage line.inlier').count() == len(match['inliers'])
  assert page.locator('.match-stage image').count() == 2
  page.locator('.word').first.click()
  first = match['words'][0]
  assert page.locator('.match-stage circle').count() == len(first['query']) + len(first['index'])
  strong = page.locator('.match-stage .box.best:not(.halo)')
  before = strong.count()
  page.locator('.region').first.click()
  assert strong.count() == before + 1
  assert [url for url in requests if not url.startswith('data:')] == []


def test_by_keyboard_alone(open_page, finished, tmp_path):
  path = make_report.run(finished.reported, tmp_path, matches=6)
  headings = [entry['heading'] for entry in entries(path)]
  page = open_page(path.as_uri())
  press = page.keyboard.press
  for _ in range(60):
    press('Tab')
    if page.locator('.pairs button:focus').count():
      break
  press('Enter')
  page.wait_for_selector('.match-stage circle')
  assert page.text_content('#match-heading') == headings[0]
  assert page.locator('#match-previous:disabled').count() == 1
  press('ArrowRight')
  press('ArrowRight')
  press('ArrowLeft')
  assert page.text_content('#match-heading') == headings[1]
  press('Escape')
  assert page.locator('#match[open]').count() == 0
  assert page.locator('.pairs button:focus').get_attribute('data-match') == '0'


def test_on_a_narrow_screen(open_page, engine, benchmark, tmp_path):
  query = benchmark.queries_dir / 'astronaut.jpg'
  answers.write_page(engine, engine.search(query, top_k=4), query, None, tmp_path / 'answer.html')
  page = open_page((tmp_path / 'answer.html').as_uri(), NARROW, has_touch=True)
  assert page.locator('.results button:visible').count() == 4
  assert page.evaluate('document.documentElement.scrollWidth') <= NARROW['width']
  photo = page.locator('.results li svg').nth(1)
  photo.scroll_into_view_if_needed()
  frame = photo.bounding_box()
  page.touchscreen.tap(frame['x'] + frame['width'] / 2, frame['y'] + frame['height'] / 2)  # Opens it too.
  page.wait_for_selector('.match-stage circle')
  photos = [image.bounding_box() for image in page.locator('.match-stage image').all()]
  assert photos[1]['y'] >= photos[0]['y'] + photos[0]['height']
  assert all(photo['x'] >= 0 and photo['x'] + photo['width'] <= NARROW['width'] for photo in photos)


def test_a_missing_photo_in_a_browser(open_page, engine, benchmark, tmp_path):
  query = benchmark.queries_dir / 'astronaut.jpg'
  answer = engine.search(query, top_k=1)
  known, engine.photos = engine.photos, PhotoFolders((tmp_path / 'nowhere',))
  try:
    answers.write_page(engine, answer, query, None, tmp_path / 'answer.html')
  finally:
    engine.photos = known
  page = open_page((tmp_path / 'answer.html').as_uri())
  page.locator('.results button').click()
  page.wait_for_selector('.match-stage circle')
  assert page.locator('.match-stage image').count() == 1
  assert page.text_content('.match-stage text') == 'no photo'
