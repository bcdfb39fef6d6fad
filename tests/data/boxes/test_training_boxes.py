"""Files of boxes in three formats: valid rows, and the messages for all invalid ones."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image

from delf_d2r.data.boxes import training_boxes
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.errors import UserError

NAMES = ('0/a/00aa.jpg', '0/b/00bb.jpg', 'c.png')


@pytest.fixture
def photos(tmp_path):
  for name in NAMES:
    path = tmp_path / 'photos' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (40, 20)).save(path)
  return ImageList.from_folder(tmp_path / 'photos')


@pytest.fixture
def write(tmp_path):
  def write_text(text, name='boxes.csv'):
    (tmp_path / name).write_text(text, encoding='utf-8')
    return tmp_path / name

  return write_text


def by_name(found):
  assert len({photo.name for photo in found}) == len(found)
  return {photo.name: photo for photo in found}


# Google Landmark Boxes


def test_google_boxes_find_their_photos_and_landmarks(photos, write):
  boxes = write('id,box\n00aa,0.1 0.2 0.8 0.9\nc,0.0 0.0 1.0 0.5\n', 'boxes_split1.csv')
  landmarks = write('id,url,landmark_id\n00aa,http://x,17\nother,http://y,3\nc,http://z,5\n', 'train.csv')
  found = by_name(training_boxes.read(boxes, photos, landmarks_path=landmarks))
  assert list(found) == list(NAMES)
  photo = found['0/a/00aa.jpg']
  # The published order: top, left, bottom, right.
  assert_allclose(photo.boxes, [[0.1, 0.2, 0.8, 0.9]])
  assert (photo.groups, photo.classes, photo.problems) == (('17',), ('landmark',), ())
  assert photo.path == photos.path(photo.name)
  assert len(found['0/b/00bb.jpg']) == 0
  assert found['0/b/00bb.jpg'].boxes.shape == (0, 4)
  assert found['c.png'].groups == ('5',)


def test_google_boxes_without_landmarks_have_no_group(photos, write):
  found = by_name(training_boxes.read(write('id,box\nc,0 0 1 1\n'), photos))
  assert found['c.png'].groups == ('',)


def test_id_without_photo_is_named(photos, write):
  found = training_boxes.read(write('id,box\nc,0 0 1 1\nffff,0 0 1 1\n'), photos)
  last = found[-1]
  assert (last.name, last.path, len(last)) == ('ffff', None, 0)
  assert "boxes.csv:3: 'ffff' is not among the 3 photos" in last.problems[0]


def test_landmarks_of_another_version_are_refused(photos, write):
  landmarks = write('id,url,landmark_id\nother,http://y,3\n', 'train.csv')
  with pytest.raises(UserError, match=r'train\.csv: has none of the 1 ids with boxes, for example c'):
    training_boxes.read(write('id,box\nc,0 0 1 1\n'), photos, landmarks_path=landmarks)


def test_landmarks_that_lack_some_ids_are_used(photos, write):
  landmarks = write('id,url,landmark_id\nc,http://y,3\n', 'train.csv')
  found = training_boxes.read(write('id,box\nc,0 0 1 1\n00aa,0 0 1 1\n'), photos, landmarks_path=landmarks)
  assert [photo.groups for photo in found] == [('',), (), ('3',)]


@pytest.mark.parametrize(
  'box, problem',
  [
    ('0.1 0.2 0.8 1.01', 'must satisfy'),
    ('-0.1 0.2 0.8 0.9', 'must satisfy'),
    ('0.8 0.2 0.1 0.9', 'must satisfy'),
    ('0.1 0.2 0.8 0.2', 'must satisfy'),
    ('0.1 0.2 0.10000000001 0.9', 'must satisfy'),  # Of no area as float32.
    ('nan 0.2 0.8 0.9', 'must satisfy'),
    ('0.1 0.2 0.8', 'expected a box of four numbers, found 0.1 0.2 0.8'),
    ('0.1 0.2 0.8 x', 'expected a box of four numbers'),
    ('', 'expected a box of four numbers, found nothing'),
  ],
)
def test_what_is_no_box_stays_with_its_photo(photos, write, box, problem):
  found = by_name(training_boxes.read(write(f'id,box\nc,{box}\nc,0 0 0.5 0.5\n'), photos))
  (text,) = found['c.png'].problems
  assert 'boxes.csv:2: ' in text
  assert problem in text
  assert_allclose(found['c.png'].boxes, [[0, 0, 0.5, 0.5]])  # The good one is kept.


def test_rounding_beyond_the_edge_is_moved_onto_it(photos, write):
  found = by_name(training_boxes.read(write('id,box\nc,-0.0009 0 1.0000001192 0.5\n'), photos))
  assert found['c.png'].boxes.tolist() == [[0, 0, 1, 0.5]]
  assert found['c.png'].problems == ()


def test_row_without_its_last_column(photos, write):
  found = by_name(training_boxes.read(write('id,box\nc\n00aa,0 0 1 1\n'), photos))
  assert 'found nothing' in found['c.png'].problems[0]


# CSV


def test_csv_with_class_and_group(photos, write):
  text = 'image,ymin,xmin,ymax,xmax,class,group\nc.png,0,0,0.5,1,tower,t1\nc,0.5,0,1,1,,\n'
  photo = by_name(training_boxes.read(write(text), photos))['c.png']
  assert (photo.classes, photo.groups) == (('tower', 'landmark'), ('t1', ''))
  assert_allclose(photo.boxes, [[0, 0, 0.5, 1], [0.5, 0, 1, 1]])


def test_selected_classes(photos, write):
  text = 'image,ymin,xmin,ymax,xmax,class,group\nc.png,0,0,0.5,1,tower,t1\nc.png,0,0,1,1,door,d1\n'
  photo = by_name(training_boxes.read(write(text), photos))['c.png']
  door = training_boxes.select_classes(photo, ('door', 'gate'))
  assert (door.classes, door.groups, door.boxes.tolist()) == (('door',), ('d1',), [[0, 0, 1, 1]])
  assert training_boxes.select_classes(photo, ()).boxes.shape == (0, 4)


def test_csv_without_rows_has_photos_without_boxes(photos, write):
  found = training_boxes.read(write('image,ymin,xmin,ymax,xmax\n'), photos)
  assert [len(photo) for photo in found] == [0, 0, 0]


@pytest.mark.parametrize(
  'text, message',
  [
    ('a,b\n', 'boxes.csv:1: the header lacks image'),
    ('', 'boxes.csv:1: the header lacks image'),
    ('id,box\nzz,0 0 1 1\n', r"none of its 1 boxes belongs to one of the 3 photos \(it names 'zz'"),
    ('image,ymin,xmin,ymax,xmax\nzz,0,0,1,1\n', 'none of its 1 boxes'),
  ],
)
def test_files_that_fit_nothing_are_refused(photos, write, text, message):
  with pytest.raises(UserError, match=message):
    training_boxes.read(write(text), photos)


def test_missing_file(photos, tmp_path):
  for name in ('no.csv', 'no.json'):
    with pytest.raises(UserError, match=rf'{name}: cannot be read'):
      training_boxes.read(tmp_path / name, photos)


def test_landmarks_file_belongs_to_google_boxes(photos, write):
  path = write('image,ymin,xmin,ymax,xmax\nc,0,0,1,1\n')
  with pytest.raises(UserError, match='--landmarks is for Google Landmark Boxes'):
    training_boxes.read(path, photos, landmarks_path='train.csv')


# COCO


def coco(annotations, **image):
  return json.dumps(
    {
      'images': [{'id': 7, 'file_name': 'c.png', 'width': 40, 'height': 20} | image],
      'annotations': annotations,
      'categories': [{'id': 3, 'name': 'tower'}],
    }
  )


def annotation(bbox=(10, 5, 20, 10), **fields):
  return {'id': 1, 'image_id': 7, 'category_id': 3, 'bbox': bbox} | fields


def test_coco_boxes_are_x_y_width_height_in_pixels(photos, write):
  photo = by_name(training_boxes.read(write(coco([annotation()]), 'x.json'), photos))['c.png']
  assert_allclose(photo.boxes, [[0.25, 0.25, 0.75, 0.75]])
  assert photo.classes == ('tower',)


@pytest.mark.parametrize(
  'bad, problem',
  [
    (annotation(bbox=(10, 5, 31, 10)), 'must satisfy'),
    (annotation(bbox=(10, 5, 0, 10)), 'must satisfy'),
    (annotation(bbox=(10, 5, -4, 10)), 'must satisfy'),
    (annotation(bbox=(10, 5)), 'is not four numbers'),
    (annotation(bbox=None), 'is not four numbers'),
    (annotation(category_id=4), 'its category_id 4 is not among the categories'),
    (annotation(iscrowd=1), 'a crowd'),
  ],
)
def test_bad_coco_annotations_stay_with_their_photo(photos, write, bad, problem):
  found = by_name(training_boxes.read(write(coco([annotation(), bad | {'id': 9}]), 'x.json'), photos))
  assert 'x.json: annotation 9: ' in found['c.png'].problems[0]
  assert problem in found['c.png'].problems[0]
  assert len(found['c.png']) == 1


def test_coco_annotation_of_no_image(photos, write):
  found = training_boxes.read(write(coco([annotation(), annotation(image_id=8)]), 'x.json'), photos)
  assert found[-1].name == 'image 8'
  assert found[-1].path is None


def test_coco_image_without_size(photos, write):
  found = by_name(training_boxes.read(write(coco([annotation()], width=0), 'x.json'), photos))
  assert 'the size of its image is missing' in found['c.png'].problems[0]


@pytest.mark.parametrize(
  'text, message', [('{', 'cannot be read as JSON'), ('{}', 'no COCO'), ('[]', 'no COCO')]
)
def test_what_is_no_coco_is_explained(photos, write, text, message):
  with pytest.raises(UserError, match=message):
    training_boxes.read(write(text, 'x.json'), photos)


# Whole photos


def test_whole_photos_are_grouped_by_folder_or_by_name(photos):
  found = training_boxes.whole_photos(photos)
  assert [photo.groups for photo in found] == [('0/a',), ('0/b',), ('c',)]
  assert all(np.array_equal(photo.boxes, [[0, 0, 1, 1]]) for photo in found)
