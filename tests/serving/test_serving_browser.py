"""The pages in a headless Chromium: by pointer, by keyboard alone, and on a narrow screen."""

import shutil

import pytest
from PIL import Image
from support.fused_run import fused_dir
from support.pages import READY, drag, wait_for_answer
from support.servers import serving

from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.data.photos.photo_folders import PhotoFolders
from delf_d2r.engine import SearchEngine
from delf_d2r.report import scores
from delf_d2r.serving.annotations import Annotations
from delf_d2r.serving.app import create_app
from delf_d2r.serving.options import Options

__all__ = ['fused_dir']

pytestmark = pytest.mark.slow

NARROW = {'width': 360, 'height': 740}


def names(page):
  return page.locator('#results .name').all_text_contents()


def test_upload_box_and_match(open_page, address, engine, query_path):
  page = open_page(address)
  page.set_input_files('#file', query_path)
  wait_for_answer(page)
  page.wait_for_selector(READY)
  expected = [result.name for result in engine.search(query_path, top_k=12).results]
  assert names(page) == expected
  with page.expect_response('**/api/search') as searched:
    drag(page, (0.2, 0.1), (0.9, 0.8))
  answer = searched.value.json()
  assert answer['box'] == pytest.approx([0.2, 0.1, 0.9, 0.8], abs=0.01)
  page.wait_for_selector('#clear-box:enabled')
  wait_for_answer(page)
  assert names(page) == [result['name'] for result in answer['results']]
  with page.expect_response('**/api/match*') as matched:
    page.locator('#results .card').first.click()
  match = matched.value.json()
  page.wait_for_selector('.match-stage circle')
  places = sum(len(word['query']) + len(word['index']) for word in match['words'] if word['share'] > 0)
  assert page.locator('.match-stage circle').count() == places
  assert page.locator('.match-stage line.inlier').count() == len(match['inliers'])
  page.locator('.word').first.click()
  first = match['words'][0]
  assert page.locator('.match-stage circle').count() == len(first['query']) + len(first['index'])
  assert page.locator('.match-stage line').count() == len(first['query']) * len(first['index'])


def test_both_parts_of_a_score_and_the_box_that_matched(open_page, fused_dir, query_path):
  engine = SearchEngine.load(fused_dir)
  with serving(create_app(engine, Options())) as address:
    page = open_page(address, NARROW)
    page.set_input_files('#file', query_path)
    wait_for_answer(page)
    results = engine.search(query_path, top_k=24).results
    legend = page.text_content('#legend')
    for meaning in scores.meanings(engine.fusion).values():
      assert meaning in legend
    assert 'inliers' not in legend
    assert page.evaluate('document.documentElement.scrollWidth') <= NARROW['width']
    parts = page.locator('#results .score-parts')
    first = results[0]
    assert parts.first.text_content() == f'local {first.local_score:.3f} · global {first.global_score:.3f}'
    assert scores.meanings(engine.fusion)['global'] in parts.first.get_attribute('title')
    place = next(place for place, result in enumerate(results) if result.best_region > 0)
    best = results[place].best_region
    assert page.locator('#results .card-note').nth(place).text_content() == f'best: box {best}'
    page.locator('#results .card').nth(place).click()
    page.wait_for_selector('.match-stage .box')
    assert f'best: box {best} of {len(results[place].boxes)}' in page.text_content('#match-summary')
    assert f'global {results[place].global_score:.3f}' in page.text_content('#match-summary')
    # Without the width of the lines, and in the frame of the photo.
    extent = 'node => (({ x, y, width, height }) => [x, y, x + width, y + height])(node.getBBox())'
    left, top, right, bottom = page.locator('.match-stage image').nth(1).evaluate(extent)
    drawn = page.locator('.match-stage .box.best:not(.halo)').evaluate(extent)
    ymin, xmin, ymax, xmax = results[place].boxes[best - 1].tolist()
    width, height = right - left, bottom - top
    assert drawn == pytest.approx([xmin * width, ymin * height, xmax * width, ymax * height], abs=0.01)
    page.get_by_label('Boxes').last.uncheck()
    assert page.locator('.match-stage .box').count() == 0
    page.keyboard.press('Escape')
    page.check('#verify')
    page.wait_for_selector('#legend:has-text("inliers")')


def test_scores_of_a_photo_that_finds_itself(open_page, fused_dir):
  """The rounded scores of all others keep a decimal, and none of them is a negative zero."""
  engine = SearchEngine.load(fused_dir)
  with serving(create_app(engine, Options())) as address:
    page = open_page(address)

    def thousandfold(route):
      answer = route.fetch().json()
      answer['results'][0]['score'] = 5704.3
      answer['results'][1]['score'] = -0.01
      route.fulfill(json=answer)

    page.route('**/api/search', thousandfold)
    page.goto(f'{address}/?indexed={engine.index.image_names[0]}')
    wait_for_answer(page)
    shown = page.locator('#results .card-line .score').all_text_contents()
    assert shown[:2] == ['5704.3', '0.0']
    assert all(len(text.split('.')[1]) == 1 for text in shown)


def test_a_run_without_fusion_has_no_parts(open_page, address, query_path):
  page = open_page(address)
  page.set_input_files('#file', query_path)
  wait_for_answer(page)
  assert page.locator('.score-parts').count() == 0
  assert page.text_content('#legend').strip() == 'boxes'


def test_a_box_is_moved_resized_and_cleared_by_pointer(open_page, address, query_path):
  page = open_page(address)
  page.set_input_files('#file', query_path)
  page.wait_for_selector(READY)
  boxes = []
  for start, stop in [((0.2, 0.2), (0.6, 0.6)), ((0.4, 0.4), (0.5, 0.5)), ((0.7, 0.7), (0.9, 0.95))]:
    with page.expect_response('**/api/search') as searched:
      drag(page, start, stop)
    boxes.append(searched.value.json()['box'])
  assert boxes == [
    pytest.approx(box, abs=0.012)
    for box in ([0.2, 0.2, 0.6, 0.6], [0.3, 0.3, 0.7, 0.7], [0.3, 0.3, 0.9, 0.95])
  ]
  with page.expect_response('**/api/search') as searched:
    page.click('#clear-box')
  assert searched.value.json()['box'] is None


def test_by_keyboard_alone(open_page, address):
  page = open_page(address)
  page.wait_for_selector('#pick:enabled')
  press = page.keyboard.press

  def tab_to(selector):
    for _ in range(60):
      press('Tab')
      if page.locator(f'{selector}:focus').count():
        return
    raise AssertionError(f'{selector} cannot be reached by Tab')

  tab_to('#pick')
  press('Enter')
  page.wait_for_selector('#picker[open] .card')
  assert page.locator('#filter:focus').count() == 1
  page.keyboard.type('e_00003')
  page.wait_for_selector('#picker-list li:only-child')
  tab_to('#picker-list .card')
  press('Enter')
  wait_for_answer(page)
  assert names(page)[0] == 'scene_00003.jpg'
  page.wait_for_selector(READY)
  tab_to('.stage')
  outline = page.locator('.stage').evaluate('node => getComputedStyle(node).outlineStyle')
  assert outline == 'solid'
  with page.expect_response('**/api/search') as searched:
    press('Enter')
    press('ArrowUp')
    press('ArrowRight')
    press('Shift+ArrowDown')
    press('Shift+ArrowLeft')
  assert searched.value.json()['box'] == pytest.approx([0.24, 0.26, 0.75, 0.75], abs=1e-3)
  wait_for_answer(page)
  tab_to('#results .card')
  press('Enter')
  page.wait_for_selector('.match-stage circle')
  first = page.text_content('#match-heading')
  press('ArrowRight')
  page.wait_for_selector('#match-heading:has-text("2.")')
  assert page.text_content('#match-heading') != first
  press('Escape')
  assert page.locator('#match[open]').count() == 0
  assert page.locator('#results .card:focus').count() == 1
  for _ in range(60):
    press('Shift+Tab')
    if page.locator('.stage:focus').count():
      break
  with page.expect_response('**/api/search') as searched:
    press('Delete')
  assert searched.value.json()['box'] is None


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_a_narrow_screen(open_page, address, query_path, scheme):
  page = open_page(address, NARROW, has_touch=True, color_scheme=scheme)

  def overflows():
    return page.evaluate('document.documentElement.scrollWidth') > NARROW['width']

  assert not overflows()
  page.set_input_files('#file', query_path)
  wait_for_answer(page)
  page.wait_for_selector(READY)
  assert not overflows()
  page.locator('#results .card').first.tap()
  page.wait_for_selector('.match-stage circle')
  photos = [image.bounding_box() for image in page.locator('.match-stage image').all()]
  assert photos[1]['y'] >= photos[0]['y'] + photos[0]['height']
  assert all(photo['x'] >= 0 and photo['x'] + photo['width'] <= NARROW['width'] for photo in photos)
  dark = page.evaluate('getComputedStyle(document.body).backgroundColor') != 'rgb(255, 255, 255)'
  assert dark == (scheme == 'dark')


def test_verifying(open_page, address, query_path):
  page = open_page(address)
  page.set_input_files('#file', query_path)
  wait_for_answer(page)
  with page.expect_response('**/api/search') as searched:
    page.check('#verify')
  results = searched.value.json()['results']
  page.wait_for_selector('#results .card-note:has-text("inliers")')
  assert names(page) == [result['name'] for result in results]


@pytest.mark.parametrize(('verifies', 'refusal'), [(True, ''), (False, ''), (False, 'no places')])
def test_verifying_is_offered_as_the_run_has_it(open_page, address, engine, monkeypatch, verifies, refusal):
  monkeypatch.setattr(engine, 'verifies', verifies)
  monkeypatch.setattr(engine._verification, 'why_unverifiable', refusal)
  page = open_page(address)
  page.wait_for_selector('#index-size:not(:empty)')
  assert page.is_checked('#verify') == verifies
  assert page.is_disabled('#verify') == bool(refusal)
  assert (
    page.locator('label', has=page.locator('#verify')).get_attribute('title').startswith(refusal or 'Put')
  )


def test_failures_are_told_and_the_page_goes_on(open_page, address, query_path, tmp_path):
  page = open_page(address)
  page.wait_for_selector('#index-size:not(:empty)')
  (tmp_path / 'text.jpg').write_text('no photo')
  page.set_input_files('#file', tmp_path / 'text.jpg')
  page.wait_for_selector('#problem:has-text("not an image")')
  assert page.locator('body.busy').count() == 0
  (tmp_path / 'large.jpg').write_bytes(bytes(3_000_001))
  page.set_input_files('#file', tmp_path / 'large.jpg')
  page.wait_for_selector('#problem:has-text("at most 3.0 MB")')
  page.set_input_files('#file', query_path)
  wait_for_answer(page)
  assert page.locator('#problem:visible').count() == 0


def test_no_other_photo_stands_beside_the_message_about_a_photo(open_page, address, query_path, tmp_path):
  page = open_page(address)
  (tmp_path / 'text.jpg').write_text('no photo')
  (tmp_path / 'large.jpg').write_bytes(bytes(3_000_001))
  for name in ('text.jpg', 'large.jpg'):
    page.set_input_files('#file', query_path)
    wait_for_answer(page)
    page.wait_for_selector(READY)
    drag(page, (0.2, 0.1), (0.9, 0.8))
    page.wait_for_selector('#clear-box:enabled')
    wait_for_answer(page)
    page.set_input_files('#file', tmp_path / name)
    page.wait_for_selector(f'#problem:has-text("{name}")')
    assert page.is_hidden('#editor')
    assert page.is_visible('#drop-empty')
    assert page.text_content('#query-name') == ''
    assert page.is_disabled('#clear-box')
    assert page.locator('#results li').count() == 0
    page.click('#verify')  # There is nothing to search for again.
    page.click('#verify')
    assert page.is_visible('#problem')


def test_the_photo_stays_when_the_search_for_its_box_fails(open_page, address, query_path):
  page = open_page(address)
  page.set_input_files('#file', query_path)
  wait_for_answer(page)
  page.wait_for_selector(READY)
  page.route(
    '**/api/search', lambda route: route.fulfill(status=503, json={'error': 'busy', 'remedy': 'Wait.'})
  )
  drag(page, (0.2, 0.1), (0.9, 0.8))
  page.wait_for_selector('#problem:has-text("busy")')
  assert page.is_visible('#editor')
  assert page.text_content('#query-name').startswith(query_path.name)


MIDDLE = """async (image) => {
  image.loading = 'eager';
  await image.decode();
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = 1;
  canvas.getContext('2d').drawImage(image, 0, 0, 1, 1);
  return [...canvas.getContext('2d').getImageData(0, 0, 1, 1).data].slice(0, 3);
}"""
RED = pytest.approx((250, 0, 0), abs=8)


def test_a_replaced_photo_is_shown(open_page, engine, photos, query_path, tmp_path):
  shutil.copytree(photos.images_dir, tmp_path / 'photos')
  original = engine.photos
  try:
    app = create_app(engine, photos=PhotoFolders.of([tmp_path / 'photos']))
    with serving(app) as address:
      page = open_page(address)
      page.wait_for_selector('#pick:enabled')
      colours = []
      for _ in range(2):
        page.set_input_files('#file', query_path)
        wait_for_answer(page)
        page.locator('#results .card').first.click()
        page.wait_for_selector('.match-stage circle')
        shown = page.locator('.match-stage image').nth(1).get_attribute('href')
        page.keyboard.press('Escape')
        best = names(page)[0]
        thumbnail = page.locator('#results .card img').first
        page.click('#pick')
        page.fill('#filter', best)
        picked = page.locator('#picker-list li:only-child img')
        picked.wait_for()
        colours.append([image.evaluate(MIDDLE) for image in (thumbnail, picked)])
        page.click('#picker [data-close]')
        colours[-1].append(shown)
        Image.new('RGB', (200, 200), (250, 0, 0)).save(tmp_path / 'photos' / best)
    before, after = colours
    assert before[0] != RED
    assert after[:2] == [RED, RED]
    assert before[2] != after[2]
  finally:
    engine.photos = original


def test_a_replaced_photo_is_shown_for_annotating(open_page, photos, tmp_path):
  shutil.copytree(photos.images_dir, tmp_path / 'photos')
  folder = ImageList.from_folder(tmp_path / 'photos')
  app = create_app(None, annotations=Annotations(folder, tmp_path / 'boxes.csv'))
  with serving(app) as address:
    page = open_page(address)
    for key, place in (('n', 1), ('p', 0)):
      page.wait_for_selector(READY)
      assert page.locator('.stage img').evaluate(MIDDLE) != RED
      Image.new('RGB', (200, 200), (250, 0, 0)).save(folder.path(folder.names[0]))
      page.keyboard.press(key)
      page.wait_for_selector(f'#name:has-text("{folder.names[place]}")')
    page.wait_for_selector(READY)
    assert page.locator('.stage img').evaluate(MIDDLE) == RED


def test_a_dropped_photo_is_searched(open_page, address, query_path):
  page = open_page(address)
  data = list(query_path.read_bytes())
  transfer = page.evaluate_handle(
    """(data) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([new Uint8Array(data)], 'dropped.jpg', { type: 'image/jpeg' }));
      return transfer;
    }""",
    data,
  )
  page.dispatch_event('#drop', 'drop', {'dataTransfer': transfer})
  wait_for_answer(page)
  page.wait_for_selector('#query-name:has-text("dropped.jpg")')


def test_names_are_shown_as_text(open_page, address, query_path, tmp_path):
  odd = tmp_path / '<img src=x onerror=alert(1)>.jpg'
  odd.write_bytes(query_path.read_bytes())
  page = open_page(address)
  page.set_input_files('#file', odd)
  wait_for_answer(page)
  page.wait_for_selector('#query-name:has-text("<img src=x")')
  assert page.locator('#query-name img').count() == 0


def test_annotating_by_keyboard_and_pointer(open_page, photos, tmp_path):
  folder = ImageList.from_folder(photos.images_dir)
  output = tmp_path / 'boxes.csv'
  with serving(create_app(None, Options(), annotations=Annotations(folder, output))) as address:
    page = open_page(address)
    assert page.url.startswith(f'{address}/annotate')

    def wait_for(name, state):
      page.wait_for_selector(f'#name:has-text("{name}")')
      page.wait_for_selector(f'#state:has-text("{state}")')
      page.wait_for_selector(READY)

    wait_for(folder.names[0], 'Not done')
    drag(page, (0.2, 0.2), (0.7, 0.8))
    wait_for(folder.names[0], 'Box saved')
    # A key pressed before a box is saved does not lose it.
    page.keyboard.press('n')
    wait_for(folder.names[1], 'Not done')
    page.keyboard.press('Enter')
    page.keyboard.press('n')
    wait_for(folder.names[2], 'Not done')
    page.keyboard.press('0')
    wait_for(folder.names[3], 'Not done')
    page.keyboard.press('p')
    wait_for(folder.names[2], 'No object')
    page.keyboard.press('p')
    wait_for(folder.names[1], 'Box saved')
    page.keyboard.press('c')
    wait_for(folder.names[1], 'Not done')
    page.wait_for_selector('#done:has-text("2 of")')
    page.keyboard.press('u')
    wait_for(folder.names[3], 'Not done')
    page.reload()  # takes up where it was
    wait_for(folder.names[3], 'Not done')
  again = Annotations(folder, output)
  assert again.box(0) == pytest.approx((0.2, 0.2, 0.7, 0.8), abs=0.01)
  assert [again.is_labelled(number) for number in range(4)] == [True, False, True, False]


def test_annotating_on_a_narrow_screen(open_page, photos, tmp_path):
  folder = ImageList.from_folder(photos.images_dir)
  annotations = Annotations(folder, tmp_path / 'boxes.csv')
  with serving(create_app(None, annotations=annotations)) as address:
    page = open_page(address, NARROW, has_touch=True)
    page.wait_for_selector(READY)
    assert page.evaluate('document.documentElement.scrollWidth') == NARROW['width']
    page.locator('#none').tap()
    page.wait_for_selector('#done:has-text("1 of")')
    assert annotations.is_labelled(0)
