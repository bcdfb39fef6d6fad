import io
import json
import os
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
import scipy.io
from PIL import Image

from delf_d2r.data.ground_truth import ground_truth
from delf_d2r.data.ground_truth.revisited_folders import FOLDERS, RevisitedFolder
from delf_d2r.errors import UserError
from delf_d2r.geometry.boxes import crop_slices
from delf_d2r.stages import datasets

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
REVISITED = REPOSITORY.parent / 'shared/data/revisited_ground_truth'
needs_revisited = pytest.mark.skipif(
  not REVISITED.is_dir(), reason='../shared/data is not beside the checkout'
)

EXPECTED = RevisitedFolder('mini', (), num_images=3, num_queries=2)
IMAGES = ['ashmolean_1', 'oxford_2', 'radcliffe_3']
GND = [
  {'bbx': [1.5, 2.4, 30.5, 20.6], 'easy': [0], 'hard': [2], 'junk': [1]},
  {'bbx': [0, 0, 40, 24], 'easy': [], 'hard': [1], 'junk': []},
]
QUERIES = ['all_souls_13', 'all_souls_26']


def jpeg(width=40, height=24, **options):
  buffer = io.BytesIO()
  noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
  Image.fromarray(noise).save(buffer, 'JPEG', **options)
  return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
  (tmp_path / 'gnd_mini.pkl').write_bytes(pickle.dumps({'gnd': GND, 'imlist': IMAGES, 'qimlist': QUERIES}))
  (tmp_path / 'jpg' / 'deeper').mkdir(parents=True)
  for name in [*IMAGES[1:], *QUERIES]:
    (tmp_path / 'jpg' / f'{name}.jpg').write_bytes(jpeg())
  (tmp_path / 'jpg' / 'deeper' / f'{IMAGES[0]}.jpg').write_bytes(jpeg())
  return tmp_path


def check(folder, expected=EXPECTED):
  return datasets.check(expected, folder, workers=1)


def test_a_whole_folder(folder):
  found = check(folder)
  assert found == datasets.Findings(5, 5, (), (), (), (), (), ())
  assert found.is_whole


def test_the_folder_around_it_serves(folder, tmp_path):
  (tmp_path / 'around').mkdir()
  (tmp_path / 'around' / 'mini').symlink_to(folder)
  assert check(tmp_path / 'around').is_whole


def test_photos_beside_the_ground_truth_serve(folder, tmp_path):
  flat = tmp_path / 'flat'
  flat.mkdir()
  for file in [folder / 'gnd_mini.pkl', *folder.rglob('*.jpg')]:
    os.link(file, flat / file.name)
  assert check(flat).is_whole


def test_missing_and_surplus_are_named(folder):
  (folder / 'jpg' / 'oxford_2.jpg').rename(folder / 'jpg' / 'oxford_22.jpg')
  found = check(folder)
  assert (found.missing, found.surplus) == (('oxford_2',), ('oxford_22.jpg',))
  assert not found.is_whole


def test_surplus_alone_is_no_fault(folder):
  (folder / 'jpg' / 'paris_damaged.jpg').write_bytes(b'')
  found = check(folder)
  assert (found.surplus, found.unreadable, found.is_whole) == (('paris_damaged.jpg',), (), True)


@pytest.mark.parametrize(
  ('content', 'why'),
  [(b'', '0 bytes'), (b'<html>not found</html>', 'not an image'), (jpeg(200, 200)[:-4000], 'truncated')],
)
def test_unreadable_photos_are_named(folder, content, why):
  (folder / 'jpg' / 'oxford_2.jpg').write_bytes(content)
  (only,) = check(folder).unreadable
  assert only.startswith('oxford_2.jpg: ')
  assert why in only


def test_another_number_of_images_or_queries(folder):
  found = check(folder, RevisitedFolder('mini', (), num_images=4993, num_queries=70))
  assert [problem.partition(': ')[2] for problem in found.problems] == [
    'expected 4993 index images, found 3. Fetch it again',
    'expected 70 queries, found 2. Fetch it again',
  ]


def test_reduced_photos_are_betrayed_by_their_boxes(folder):
  (folder / 'jpg' / 'all_souls_13.jpg').write_bytes(jpeg(40, 2))
  (problem,) = check(folder).problems
  assert 'all_souls_13' in problem
  assert '40 x 2' in problem


def test_boxes_that_reach_beyond_their_photo(folder):
  (folder / 'jpg' / 'all_souls_26.jpg').write_bytes(jpeg(28, 18))
  found = check(folder)
  assert (found.clipped, found.is_whole) == (('all_souls_26',), True)


def test_a_box_mostly_outside_its_photo_is_a_problem(folder):
  (folder / 'jpg' / 'all_souls_26.jpg').write_bytes(jpeg(20, 12))
  found = check(folder)
  assert not found.is_whole
  assert any('all_souls_26' in problem and 'more than half' in problem for problem in found.problems)


def test_photos_that_exif_turns_are_named(folder):
  exif = Image.Exif()
  exif[0x0112] = 6
  (folder / 'jpg' / 'oxford_2.jpg').write_bytes(jpeg(exif=exif))
  found = check(folder)
  assert (found.turned, found.is_whole) == (('oxford_2.jpg',), True)


def matlab(first):
  gnd = np.empty((1, len(GND)), [(key, object) for key in ('easy', 'hard', 'junk', 'bbx')])
  for i, entry in enumerate(GND):
    for label in ('easy', 'hard', 'junk'):
      gnd[0, i][label] = np.array([n + first for n in entry[label]], np.float64).reshape(1, -1)
    gnd[0, i]['bbx'] = np.array(entry['bbx'], np.float64).reshape(1, -1)
  return {'gnd': gnd, 'imlist': np.array(IMAGES, object), 'qimlist': np.array(QUERIES, object)}


def test_matlab_alone_and_beside_the_pickle(folder):
  scipy.io.savemat(folder / 'gnd_mini.mat', matlab(first=1))
  assert check(folder).is_whole
  (folder / 'gnd_mini.pkl').unlink()
  assert check(folder).is_whole


def test_two_ground_truths_that_differ(folder):
  other = matlab(first=1)
  other['gnd'][0, 0]['bbx'][0, 0] = 2
  scipy.io.savemat(folder / 'gnd_mini.mat', other)
  (problem,) = check(folder).problems
  assert 'are not the same ground truth' in problem


def test_distractors_by_their_list(folder):
  (folder / 'revisitop1m.txt').write_text('oxford_2.jpg\ndeeper/ashmolean_1\ngone.jpg\n')
  found = check(folder, FOLDERS['revisitop1m'])
  assert (found.listed, found.missing) == (3, ('gone.jpg',))
  assert found.surplus == ('all_souls_13.jpg', 'all_souls_26.jpg', 'radcliffe_3.jpg')


def test_an_empty_folder_says_what_to_fetch(tmp_path):
  with pytest.raises(UserError) as error:
    check(tmp_path, FOLDERS['rparis6k'])
  for part in ('gnd_rparis6k.pkl', 'paris_2.tgz', '--name=rparis6k'):
    assert part in str(error.value)


@pytest.mark.slow
@needs_revisited
def test_the_published_ground_truth(tmp_path):
  (tmp_path / 'gnd_roxford5k.pkl').symlink_to(REVISITED / 'gnd_roxford5k.pkl')
  truth = ground_truth.load(tmp_path / 'gnd_roxford5k.pkl')
  (tmp_path / 'jpg').mkdir()
  (tmp_path / 'small').write_bytes(jpeg(8, 8))
  (tmp_path / 'large').write_bytes(jpeg(1024, 1024, quality=5))
  for name in truth.index_images:
    (tmp_path / 'jpg' / f'{name}.jpg').symlink_to(tmp_path / 'small')
  for query in truth.queries:
    (tmp_path / 'jpg' / f'{query.image}.jpg').symlink_to(tmp_path / 'large')
  (tmp_path / 'jpg' / f'{truth.index_images[7]}.jpg').unlink()
  found = check(tmp_path, FOLDERS['roxford5k'])
  assert (found.listed, found.found, found.problems) == (5063, 5062, ())
  assert found.missing == (truth.index_images[7],)


@needs_revisited
@pytest.mark.parametrize('name', ['roxford5k', 'rparis6k'])
def test_query_crops_are_those_of_the_research_code(name):
  # Whole pixels by Python's round, as docs/reference.md 4.3 has it, through normalised boxes and back.
  for query in ground_truth.load(REVISITED / f'gnd_{name}.pkl').queries:
    xmin, ymin, xmax, ymax = (round(value) for value in query.box_pixels)
    for height, width in ((1024, 1024), (1023, 1027)):
      rows, columns = crop_slices(query.box_for(height, width), height, width)
      assert (columns.start, rows.start) == (xmin, ymin)
      assert (columns.stop, rows.stop) == (min(xmax, width), min(ymax, height))


def run_command(*flags):
  command = [sys.executable, REPOSITORY / 'tools/datasets.py', *flags]
  return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_binary_says_what_to_fetch():
  process = run_command()
  assert process.returncode == 0
  for part in ('gnd_rparis6k.pkl', 'revisitop1m.txt', '4,993 index images'):
    assert part in process.stdout
  # As the benchmark's own script has them now, and as it had them.
  for archive in ('oxbuildings/oxbuild_images', 'parisbuildings/paris_1', 'parisbuildings/paris_2'):
    place = f'www.robots.ox.ac.uk/~vgg/data/{archive}'
    assert f'\n  https://{place}-v1.tgz\n      (before: http://{place}.tgz)\n' in process.stdout


def test_the_binary_checks(folder, tmp_path):
  (folder / 'revisitop1m.txt').write_text('oxford_2\ngone\n')
  process = run_command(
    '--name=revisitop1m', f'--root={folder}', f'--json={tmp_path / "found.json"}', '--workers=1'
  )
  assert process.returncode == 1
  assert '1 missing:\n  gone\n' in process.stdout
  assert process.stdout.endswith('NOT whole\n')
  assert json.loads((tmp_path / 'found.json').read_text())['missing'] == ['gone']
