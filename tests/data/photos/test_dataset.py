"""Data sets: index images, queries, and early errors."""

import json

import pytest

from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.errors import UserError


@pytest.fixture
def photos(tmp_path):
  root = tmp_path / 'photos'
  for name in ('a.jpg', 'sub/b.jpg', 'sub/c d.jpg', 'q.jpg'):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(name.encode())
  return root


@pytest.fixture
def truth(tmp_path):
  """Writes a ground truth of one query, with changes."""

  def write(index_images=None, **changes):
    query = {'image': 'q.jpg', 'name': 'q 1', 'box': [0.1, 0.2, 0.9, 0.8], 'easy': ['sub/b.jpg'], **changes}
    document = {'version': 1, 'queries': [query, {'image': 'q.jpg', 'name': 'q 2', 'easy': ['a.jpg']}]}
    if index_images is not None:
      document['index_images'] = index_images
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps(document), encoding='utf-8')
    return path

  return write


def test_folder_alone(photos):
  dataset = Dataset.load(photos)
  assert dataset.images.names == ('a.jpg', 'q.jpg', 'sub/b.jpg', 'sub/c d.jpg')
  assert dataset.queries is None


def test_queries_in_the_order_of_the_ground_truth(photos, truth):
  dataset = Dataset.load(str(photos), ground_truth=str(truth()))
  assert len(dataset.images) == 4
  assert len(dataset.queries) == 2
  (first, first_photo), (second, second_photo) = dataset.queries.items()
  assert (first.name, first_photo, first.box) == ('q 1', 'q.jpg', (0.1, 0.2, 0.9, 0.8))
  assert (second.name, second_photo, second.box) == ('q 2', 'q.jpg', None)


def test_ground_truth_says_what_is_indexed(photos, truth):
  dataset = Dataset.load(photos, ground_truth=truth(['sub/c d.jpg', 'a.jpg', 'sub/b.jpg']))
  assert dataset.images.names == ('sub/c d.jpg', 'a.jpg', 'sub/b.jpg')
  assert dataset.queries.images.names == ('q.jpg', 'q.jpg')


def test_queries_in_a_folder_of_their_own(photos, truth, tmp_path):
  (tmp_path / 'queries').mkdir()
  (photos / 'q.jpg').rename(tmp_path / 'queries' / 'q.jpg')
  path = truth()
  with pytest.raises(UserError, match=r"truth\.json: query images: 1 named images .*'q\.jpg'"):
    Dataset.load(photos, ground_truth=path)
  dataset = Dataset.load(photos, ground_truth=path, query_images=tmp_path / 'queries')
  assert 'q.jpg' not in dataset.images.names
  assert dataset.queries.images.path('q.jpg').is_file()


@pytest.mark.parametrize('label', ['easy', 'hard', 'junk'])
def test_labels_of_photos_that_are_not_there(photos, truth, label):
  with pytest.raises(UserError, match=r'gone\.jpg'):
    Dataset.load(photos, ground_truth=truth(**{'easy': [], label: ['gone.jpg']}))


def test_index_images_that_are_not_there(photos, truth):
  with pytest.raises(UserError, match=r"truth\.json: index images: .*'gone\.jpg'"):
    Dataset.load(photos, ground_truth=truth(['a.jpg', 'sub/b.jpg', 'gone.jpg']))


def test_missing_ground_truth(photos, tmp_path):
  with pytest.raises(UserError, match=r'nothing\.json'):
    Dataset.load(photos, ground_truth=tmp_path / 'nothing.json')


def test_fingerprint_of_the_queries_is_of_photos_and_boxes_not_of_labels(photos, truth):
  def load(**changes):
    return Dataset.load(photos, ground_truth=truth(**changes)).queries.as_input().fingerprint

  before = load()
  assert load(easy=[], hard=['sub/b.jpg']) == before
  assert load(box=[0, 0, 1, 1]) != before
  assert load(name='other') != before
  (photos / 'q.jpg').write_bytes(b'changed')
  assert load() != before
