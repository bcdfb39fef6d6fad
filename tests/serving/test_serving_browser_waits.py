"""What is done on the pages while a photo or an answer is still under way, or does not come at all."""

import shutil

import pytest
from support.pages import READY, begin_drag, drag, hold, wait_for_answer
from support.servers import serving

from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.serving.annotations import Annotations
from delf_d2r.serving.app import create_app

pytestmark = pytest.mark.slow

STARTED = pytest.approx((0.25, 0.25, 0.75, 0.75))  # a box by Enter


@pytest.fixture
def folder(photos):
  return ImageList.from_folder(photos.images_dir)


@pytest.fixture
def annotations(folder, tmp_path):
  return Annotations(folder, tmp_path / 'boxes.csv')


@pytest.fixture
def annotate_page(annotations, open_page):
  with serving(create_app(None, annotations=annotations)) as address:
    page = open_page(address)
    page.wait_for_selector(READY)
    yield page


def wait_for_name(page, name):
  page.wait_for_selector(f'#name:has-text("{name}")')


def test_no_box_is_drawn_on_a_photo_before_it_is_there(annotate_page, annotations, folder):
  page = annotate_page
  held = hold(page, '**/api/annotate/1/photo')
  page.keyboard.press('n')
  wait_for_name(page, folder.names[1])
  for draw in (lambda: drag(page, (0.2, 0.2), (0.7, 0.8)), lambda: page.keyboard.press('Enter')):
    draw()
    assert page.text_content('#state') == 'Not done'
  held[0].continue_()
  page.wait_for_selector(READY)
  page.keyboard.press('Enter')
  page.wait_for_selector('#state:has-text("Box saved")')
  assert annotations.box(1) == STARTED
  assert annotations.num_labelled == 1


def test_what_is_said_of_a_photo_is_said_of_the_one_that_was_seen(annotate_page, annotations, folder):
  page = annotate_page
  said = []
  page.on(
    'request', lambda request: said.append(request.url) if request.method in ('PUT', 'DELETE') else None
  )
  saving = hold(page, '**/api/annotate/0', times=1)
  loading = hold(page, '**/api/annotate/1/photo')
  with page.expect_request('**/api/annotate/0'):
    page.keyboard.press('0')
  page.keyboard.press('0')  # while the first is saved
  saving[0].continue_()
  wait_for_name(page, folder.names[1])
  page.keyboard.press('0')  # while the next photo loads
  loading[0].continue_()
  page.wait_for_selector(READY)
  page.keyboard.press('n')
  wait_for_name(page, folder.names[2])
  assert [url.rpartition('/')[2] for url in said] == ['0']
  assert annotations.num_labelled == 1


def test_a_drag_ends_with_its_photo(annotate_page, annotations, folder):
  page = annotate_page
  begin_drag(page, (0.2, 0.2), (0.7, 0.8))
  page.keyboard.press('n')
  wait_for_name(page, folder.names[1])
  page.wait_for_selector(READY)
  page.mouse.move(10, 10)
  page.mouse.up()
  page.keyboard.press('Enter')
  page.wait_for_selector('#state:has-text("Box saved")')
  assert annotations.box(1) == STARTED


def test_a_box_drawn_while_the_next_one_is_asked_for(annotate_page, annotations, folder):
  page = annotate_page
  held = hold(page, '**/api/annotate/1', times=1)
  hold(page, '**/api/annotate/1/photo')
  with page.expect_request('**/api/annotate/1'):
    page.keyboard.press('n')
  page.keyboard.press('Enter')
  held[0].continue_()
  wait_for_name(page, folder.names[1])
  assert annotations.box(0) == STARTED


def test_a_photo_that_cannot_be_shown_gets_no_box(open_page, photos, tmp_path):
  images = tmp_path / 'photos'
  images.mkdir()
  (images / 'a.jpg').write_text('no photo')
  shutil.copy(photos.images_dir / 'scene_00000.jpg', images / 'b.jpg')
  annotations = Annotations(ImageList.from_folder(images), tmp_path / 'boxes.csv')
  with serving(create_app(None, annotations=annotations)) as address:
    page = open_page(address)
    page.wait_for_selector('#problem:has-text("a.jpg cannot be shown")')
    assert page.locator('.stage:focus').count() == 1
    page.keyboard.press('Enter')
    page.keyboard.press('n')  # saves what there is
    page.wait_for_selector(READY)
    assert not annotations.is_labelled(0)
    page.keyboard.press('p')
    page.wait_for_selector('#problem:has-text("a.jpg cannot be shown")')
    page.keyboard.press('0')
    page.wait_for_selector(READY)
    assert annotations.is_labelled(0)
    assert annotations.box(0) is None


def test_a_match_stays_with_the_answer_it_was_opened_from(open_page, address, query_path):
  page = open_page(address)
  with page.expect_response('**/api/search') as searched:
    page.set_input_files('#file', query_path)
  answer = searched.value.json()
  page.wait_for_selector(READY)
  held = hold(page, '**/api/search')
  with page.expect_request('**/api/search'):
    page.locator('.stage').press('Enter')
  page.locator('#results .card').first.click()
  page.wait_for_selector('.match-stage circle')
  held[0].fulfill(json=answer | {'query': 'another', 'results': answer['results'][-1:]})
  page.wait_for_selector('#results > li:only-child')
  for position in (1, 2):
    with page.expect_response('**/api/match*') as matched:
      page.keyboard.press('ArrowRight')
    expected = answer['results'][position]
    assert matched.value.json()['id'] == expected['id']
    page.wait_for_selector(f'#match-heading:has-text("{position + 1}. {expected["name"]}")')
  page.wait_for_selector('.match-stage circle')


def test_a_match_that_fails_too_late_is_not_told(open_page, address, query_path):
  page = open_page(address)
  page.set_input_files('#file', query_path)
  wait_for_answer(page)
  held = hold(page, '**/api/match*', times=1)
  page.locator('#results .card').first.click()
  page.wait_for_selector('#match-heading:has-text("1.")')
  page.keyboard.press('ArrowRight')
  page.wait_for_selector('.match-stage circle')
  with page.expect_response('**/api/match*'):
    held[0].fulfill(status=503, json={'error': 'busy', 'remedy': 'later'})
  page.wait_for_timeout(100)
  assert page.locator('.match-stage circle').count()


def test_a_photo_that_another_search_overtakes(open_page, address, photos, query_path):
  page = open_page(address)
  hold(page, '**/api/query/*/photo', times=1)
  page.set_input_files('#file', photos.images_dir / 'scene_00003.jpg')
  page.wait_for_selector('#query-name:has-text("scene_00003.jpg")')
  page.set_input_files('#file', query_path)
  page.wait_for_selector(f'#query-name:has-text("{query_path.name}")')
  page.wait_for_selector(READY)
  wait_for_answer(page)
  assert page.locator('#problem:visible').count() == 0


def test_verifying_a_photo_that_is_still_searched_with(open_page, address, query_path):
  page = open_page(address)
  hold(page, '**/api/search', times=1)
  with page.expect_request('**/api/search'):
    page.set_input_files('#file', query_path)
  page.check('#verify')
  page.wait_for_selector('#results .card-note:has-text("inliers")')
  assert query_path.name in page.text_content('#query-name')
