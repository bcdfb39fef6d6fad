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


def test_csv_rows_with_more_values_than_columns_are_reported(photos, write):
  path = write('image,ymin,xmin,ymax,xmax\n00aa,0,0,1,1,7\nc,0,0,1,1\n')
  found = {photo.name: photo for photo in training_boxes.read(path, photos)}
  problems = [problem for photo in found.values() for problem in photo.problems]
  assert len(problems) == 1
  assert 'boxes.csv:2: the row has more values than the header' in problems[0]
  assert sum(map(len, found.values())) == 1


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


def turned(photos, orientation=6):
  """Makes c.png a photo whose pixels are 20 x 40, shown as 40 x 20."""
  exif = Image.Exif()
  exif[0x0112] = orientation
  Image.new('RGB', (20, 40)).save(photos.path('c.png'), exif=exif)


@pytest.mark.parametrize(
  ('size', 'problem'),
  [
    ((20, 40), 'swapped'),
    ((200, 400), 'swapped'),
    ((100, 100), '100 x 100 in the file, but the photo is 40 x 20'),
    ((40, 21.5), '40 x 21.5'),
    ((640, 360), '640 x 360'),
  ],
)
def test_coco_boxes_of_another_size_than_the_photo_are_refused(photos, write, size, problem):
  turned(photos)
  text = coco([annotation(bbox=[2, 3, 8, 9])], width=size[0], height=size[1])
  found = by_name(training_boxes.read(write(text, 'x.json'), photos))['c.png']
  assert len(found) == 0
  assert 'x.json: annotation 1: ' in found.problems[0]
  assert problem in found.problems[0]


@pytest.mark.parametrize('size', [(40, 20), (80, 40), (79, 40), (81, 40), (400, 201), (20, 10)])
def test_coco_boxes_of_the_upright_photo_at_any_scale(photos, write, size):
  turned(photos)
  bbox = [size[0] / 4, size[1] / 4, size[0] / 2, size[1] / 2]
  text = coco([annotation(bbox=bbox)], width=size[0], height=size[1])
  found = by_name(training_boxes.read(write(text, 'x.json'), photos))['c.png']
  assert found.problems == ()
  assert_allclose(found.boxes, [[0.25, 0.25, 0.75, 0.75]])


def test_coco_id_of_two_images_moves_no_box(photos, write):
  document = json.loads(coco([annotation(), annotation(id=2, image_id=8)]))
  document['images'] += [
    {'id': 7, 'file_name': '00aa.jpg', 'width': 40, 'height': 20},
    {'id': 8, 'file_name': '00bb.jpg', 'width': 40, 'height': 20},
    {'id': 8, 'file_name': '00bb.jpg', 'width': 40, 'height': 20},
  ]
  found = by_name(training_boxes.read(write(json.dumps(document), 'x.json'), photos))
  for name in ('c.png', '0/a/00aa.jpg'):
    assert len(found[name]) == 0
    assert "its image_id 7 is that of 2 images ('c.png', '00aa.jpg')" in found[name].problems[0]
  assert (len(found['0/b/00bb.jpg']), found['0/b/00bb.jpg'].problems) == (1, ())  # Twice the same entry.


def test_coco_id_of_two_categories(photos, write):
  document = json.loads(coco([annotation()]))
  document['categories'].append({'id': 3, 'name': 'door'})
  found = by_name(training_boxes.read(write(json.dumps(document), 'x.json'), photos))['c.png']
  assert "its category_id 3 is that of 2 categories ('tower', 'door')" in found.problems[0]


@pytest.mark.parametrize('bbox', [(0.1, 0.2, 0.5, 0.4), (0, 0, 1, 1), (0.5, 0.5, 0.5004, 0.2)])
def test_coco_boxes_that_are_normalised_are_refused(photos, write, bbox):
  found = by_name(training_boxes.read(write(coco([annotation(bbox=bbox)]), 'x.json'), photos))['c.png']
  assert len(found) == 0
  assert 'normalised' in found.problems[0]


ODD_VALUES = (None, True, 'x', '1234', [], [1], {}, {'a': 1}, 10**400, float('nan'), float('inf'), -1, 1.5)


@pytest.mark.parametrize('value', ODD_VALUES, ids=repr)
@pytest.mark.parametrize('key', ['image_id', 'category_id', 'bbox'])
def test_odd_types_in_coco_annotations_are_problems(photos, write, key, value):
  text = coco([annotation(), annotation(id=9) | {key: value}])
  found = by_name(training_boxes.read(write(text, 'x.json'), photos))
  assert len(found['c.png']) == 1
  (problem,) = [text for photo in found.values() for text in photo.problems if 'annotation 9: ' in text] or [
    text for photo in found.values() for text in photo.problems
  ]
  assert problem


@pytest.mark.parametrize('value', ODD_VALUES, ids=repr)
@pytest.mark.parametrize('element', range(4))
def test_odd_types_in_bbox_are_problems(photos, write, element, value):
  bbox = [10, 5, 20, 10]
  bbox[element] = value
  found = by_name(training_boxes.read(write(coco([annotation(bbox=bbox)]), 'x.json'), photos))['c.png']
  assert len(found) + len(found.problems) == 1
  assert isinstance(value, float) or not len(found)


@pytest.mark.parametrize('value', ODD_VALUES, ids=repr)
@pytest.mark.parametrize('key', ['width', 'height'])
def test_odd_types_of_the_size_are_problems(photos, write, key, value):
  found = by_name(training_boxes.read(write(coco([annotation()], **{key: value}), 'x.json'), photos))
  assert len(found['c.png']) == 0
  assert len(found['c.png'].problems) == 1


@pytest.mark.parametrize('value', [None, True, [], [1], {}, '', 5, '\ud800'], ids=repr)
@pytest.mark.parametrize(
  ('part', 'key'), [('images', 'id'), ('images', 'file_name'), ('categories', 'id'), ('categories', 'name')]
)
def test_odd_types_of_images_and_categories_are_explained(photos, write, part, key, value):
  document = json.loads(coco([annotation()]))
  document[part].append({'id': 99, 'file_name': 'z.jpg', 'name': 'z', 'width': 1, 'height': 1} | {key: value})
  path = write(json.dumps(document), 'x.json')
  if key == 'id' and isinstance(value, int | str) and value is not True:
    assert len(training_boxes.read(path, photos)) == len(NAMES)
  else:
    with pytest.raises(UserError, match=f'no COCO annotations .{part}: expected'):
      training_boxes.read(path, photos)


@pytest.mark.parametrize('value', [None, 5, 'x', {}, [None], [5], ['x'], [[]]], ids=repr)
@pytest.mark.parametrize('part', ['images', 'categories', 'annotations'])
def test_odd_types_of_whole_parts_are_explained(photos, write, part, value):
  document = json.loads(coco([annotation()])) | {part: value}
  with pytest.raises(UserError, match=f'no COCO annotations .{part}: expected a list of objects'):
    training_boxes.read(write(json.dumps(document), 'x.json'), photos)


# Boxes of less than a pixel


@pytest.mark.parametrize(
  'text',
  [
    'image,ymin,xmin,ymax,xmax\nc.png,0.01,0.01,0.02,0.5\nc.png,0.1,0.1,0.9,0.9\n',
    'id,box\nc,0.01 0.01 0.5 0.03\nc,0.1 0.1 0.9 0.9\n',
  ],
)
def test_boxes_of_less_than_a_pixel_are_refused(photos, write, text):
  found = by_name(training_boxes.read(write(text), photos))['c.png']
  assert_allclose(found.boxes, [[0.1, 0.1, 0.9, 0.9]])
  assert 'boxes.csv:2: ' in found.problems[0]
  assert 'less than a pixel of the photo, which is 40 x 20' in found.problems[0]


def test_boxes_of_a_pixel_are_taken(photos, write):
  text = 'image,ymin,xmin,ymax,xmax\nc.png,0.05,0.025,0.1,0.05\n'
  assert len(by_name(training_boxes.read(write(text), photos))['c.png']) == 1


def test_photos_that_cannot_be_read_keep_their_boxes_for_whoever_reports_them(photos, write):
  photos.path('c.png').write_bytes(b'damaged')
  found = by_name(training_boxes.read(write(coco([annotation()]), 'x.json'), photos))['c.png']
  assert (len(found), found.problems) == (1, ())


# Whole photos


def test_whole_photos_are_grouped_by_folder_or_by_name(photos):
  found = training_boxes.whole_photos(photos)
  assert [photo.groups for photo in found] == [('0/a',), ('0/b',), ('c',)]
  assert all(np.array_equal(photo.boxes, [[0, 0, 1, 1]]) for photo in found)
