"""`.boxes` files: published bytes (docs/reference.md 1.3), folders, and invalid files."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from delf_d2r.data.legacy import box_files
from delf_d2r.errors import UserError
from delf_d2r.structures import Boxes

# Field 1 to 5 are float32 (tags 0d, 15, 1d, 25, 2d), field 6 is a varint (tag 30).
ONE_BOX = '0a1b' + '0d0000803e' + '150000003f' + '1d0000403f' + '250000803f' + '2d0000003f' + '3001'
TWO_BOXES = (
  ONE_BOX + '0a1c' + '0d00000000' + '1500000000' + '1d0000803f' + '250000803f' + '2d00000000' + '30ac02'
)

ONE = Boxes(np.array([[0.25, 0.5, 0.75, 1]], np.float32), np.array([0.5], np.float32))
TWO = Boxes(np.array([[0.25, 0.5, 0.75, 1], [0, 0, 1, 1]], np.float32), np.array([0.5, 0], np.float32))


def test_bytes_of_the_research_code():
  assert box_files.encode(ONE).hex() == ONE_BOX
  # Zeros are written too: every field is set.
  assert box_files.encode(TWO, [1, 300]).hex() == TWO_BOXES
  assert box_files.encode(Boxes.empty()) == b''


def test_reading_those_bytes():
  boxes, classes = box_files.decode(bytes.fromhex(TWO_BOXES))
  assert_array_equal(boxes.coordinates, TWO.coordinates)
  assert_array_equal(boxes.scores, TWO.scores)
  assert classes.tolist() == [1, 300]
  assert (boxes.coordinates.dtype, boxes.scores.dtype, classes.dtype) == (np.float32, np.float32, np.int64)


def test_no_boxes():
  boxes, classes = box_files.decode(b'')
  assert (boxes.coordinates.shape, boxes.scores.shape, classes.shape) == ((0, 4), (0,), (0,))


def test_fields_that_are_absent_are_zero():
  boxes, classes = box_files.decode(bytes.fromhex('0a050d0000803e'))
  assert_allclose(boxes.coordinates, [[0.25, 0, 0, 0]])
  assert (boxes.scores.tolist(), classes.tolist()) == ([0], [0])


def test_classes_must_be_as_many_as_boxes():
  with pytest.raises(ValueError, match=r'zip\(\)'):
    box_files.encode(TWO, [1])


def test_damage(tmp_path):
  with pytest.raises(UserError, match=r'none\.boxes: not readable as a \.boxes file'):
    box_files.read(tmp_path / 'none.boxes')
  (tmp_path / 'x.boxes').write_bytes(bytes.fromhex(ONE_BOX)[:-3])
  with pytest.raises(UserError, match=r'x\.boxes: not readable'):
    box_files.read(tmp_path / 'x.boxes')


# Directories


def test_directory_there_and_back(tmp_path):
  found = {'a/1.jpg': TWO, 'b/1.jpg': ONE, 'c.d.png': Boxes.empty()}
  assert box_files.write_directory(tmp_path / 'new', found.items()) == 3
  files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob('*.boxes'))
  assert files == ['new/a/1.boxes', 'new/b/1.boxes', 'new/c.d.boxes']
  again = box_files.read_directory(tmp_path / 'new', ['b/1.jpg', 'c.d.png', 'a/1.jpg', 'without.jpg'])
  assert again.keys() == found.keys()
  for name, boxes in found.items():
    assert_array_equal(again[name].coordinates, boxes.coordinates)
    assert_array_equal(again[name].scores, boxes.scores)


def test_the_research_codes_flat_directory_fits_photos_in_folders(tmp_path):
  box_files.write(tmp_path / 'all_souls_000013.boxes', ONE, [7])
  box_files.write(tmp_path / 'elsewhere.boxes', ONE)
  assert list(box_files.read_directory(tmp_path, ['jpg/all_souls_000013.jpg'])) == [
    'jpg/all_souls_000013.jpg'
  ]


def test_files_that_do_not_fit(tmp_path):
  with pytest.raises(UserError, match=r'contains no \.boxes files'):
    box_files.read_directory(tmp_path, ['a.jpg'])
  box_files.write(tmp_path / '1.boxes', ONE)
  with pytest.raises(UserError, match=r"none of its 1 images is among the 1 photos \(it names '1'"):
    box_files.read_directory(tmp_path, ['2.jpg'])
  with pytest.raises(UserError, match="'1' matches 2 photos"):
    box_files.read_directory(tmp_path, ['a/1.jpg', 'b/1.jpg'])


def test_photos_that_differ_in_their_extension_alone(tmp_path):
  with pytest.raises(UserError, match=r"1\.boxes: would be the file of both '1\.jpg' and '1\.png'"):
    box_files.write_directory(tmp_path, [('1.jpg', ONE), ('1.png', ONE)])


@pytest.mark.parametrize('name', ['../1.jpg', '/1.jpg', 'a/../../1.jpg'])
def test_names_that_lead_out_of_the_directory_are_refused(tmp_path, name):
  with pytest.raises(UserError, match='leads out of it'):
    box_files.write_directory(tmp_path / 'out', [(name, ONE)])
  assert list(tmp_path.rglob('*.boxes')) == []
