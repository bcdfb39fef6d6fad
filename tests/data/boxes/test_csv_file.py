"""Boxes from a CSV file: names, lines and invalid boxes."""

import pytest
from numpy.testing import assert_allclose

from delf_d2r.data import files
from delf_d2r.data.boxes import csv_file
from delf_d2r.errors import UserError

NAMES = ('a/1.jpg', 'b/1.jpg', 'gr\u00fc\u00dfe, 2.jpg')
HEADER = 'image,ymin,xmin,ymax,xmax'


@pytest.fixture
def read(tmp_path):
  def read_text(text, names=NAMES, encoding='utf-8'):
    path = tmp_path / 'my boxes.csv'
    path.write_text(text, encoding=encoding)
    return csv_file.read_boxes(path, names)

  return read_text


def test_boxes_with_scores(read):
  found = read(f'{HEADER},score\na/1.jpg,0,0.1,0.5,1,0.25\nb/1.jpg,0,0,1,1,\na/1.jpg,0.5,0.5,0.75,0.75,0\n')
  assert sorted(found) == ['a/1.jpg', 'b/1.jpg']
  assert_allclose(found['a/1.jpg'].coordinates, [[0, 0.1, 0.5, 1], [0.5, 0.5, 0.75, 0.75]])
  assert_allclose(found['a/1.jpg'].scores, [0.25, 0])
  assert_allclose(found['b/1.jpg'].scores, [1])  # Where none is given.


def test_columns_in_any_order_quotes_and_other_columns(read):
  found = read('xmax,label,ymax,xmin,ymin,image\n1,"x, y",0.5,0.25,0,"gr\u00fc\u00dfe, 2.jpg"\n')
  assert_allclose(found[NAMES[2]].coordinates, [[0, 0.25, 0.5, 1]])


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-8'])
@pytest.mark.parametrize('newline', ['\n', '\r\n'])
def test_files_of_spreadsheets(read, encoding, newline):
  assert len(read(f'{HEADER}{newline}a/1.jpg,0,0,1,1{newline}{newline}', encoding=encoding)) == 1


def test_a_row_with_more_values_than_columns_is_refused(read):
  with pytest.raises(UserError, match=r':3: the row has more values than the header'):
    read(f'{HEADER}\na/1.jpg,0,0,1,1\nb/1.jpg,0,0,1,1,7\n')


def test_a_column_that_is_there_twice_is_refused(read):
  with pytest.raises(UserError, match=r':1: the header has xmin, score more than once'):
    read(f'{HEADER},xmin,score,score\na/1.jpg,0,0,1,1,0.5,1,0\n')


def test_file_without_rows_has_no_boxes(read):
  assert read(HEADER) == {}


def test_other_images_are_left_out(read):
  assert list(read(f'{HEADER}\nb/1.jpg,0,0,1,1\nelsewhere/9.jpg,0,0,1,1\n')) == ['b/1.jpg']


def test_row_of_the_same_file_name_in_another_folder_is_another_photo(read):
  assert list(read(f'{HEADER}\nb/1.jpg,0,0,1,1\nc/1.jpg,0,0,1,1\n')) == ['b/1.jpg']


def test_two_spellings_of_one_photo_add_up(read):
  found = read(f'{HEADER}\na/1.jpg,0,0,1,1\na/1,0,0,0.5,0.5\n')
  assert len(found['a/1.jpg']) == 2


def test_nothing_fits(read):
  with pytest.raises(UserError, match=r"none of its 1 images is among the 3 photos \(it names 'z\.jpg'"):
    read(f'{HEADER}\nz.jpg,0,0,1,1\n')


def test_ambiguous_name(read):
  with pytest.raises(UserError, match=r"my boxes\.csv: '1\.jpg' matches 2 photos"):
    read(f'{HEADER}\n1.jpg,0,0,1,1\n')


@pytest.mark.parametrize('text', ['', 'image,ymin,xmin\n', '\n\n', 'a/1.jpg,0,0,1,1\n'])
def test_header_that_lacks_columns(read, text):
  with pytest.raises(
    UserError, match=r'my boxes\.csv:1: the header lacks .*wanted image,ymin,xmin,ymax,xmax'
  ):
    read(text)


@pytest.mark.parametrize(
  'box',
  ['0,0,1,1.01', '-0.1,0,1,1', '0.5,0,0.5,1', '0.6,0,0.5,1', 'nan,0,1,1', '0,0,inf,1', '10,20,200,300'],
)
def test_what_is_no_box_is_shown_with_its_line(read, box):
  with pytest.raises(UserError, match=r'my boxes\.csv:3: ymin.*not pixels'):
    read(f'{HEADER}\na/1.jpg,0,0,1,1\na/1.jpg,{box}\n')


@pytest.mark.parametrize(
  'row', ['a/1.jpg,0,0,1', 'a/1.jpg,0,0,1,', 'a/1.jpg,0,0,one,1', 'a/1.jpg', '0,0,1,1']
)
def test_rows_that_lack_a_number(read, row):
  with pytest.raises(UserError, match=r'my boxes\.csv:2: box and score must be numbers'):
    read(f'{HEADER}\n{row}\n')


@pytest.mark.parametrize('row', ['a/1.jpg,0,0,1,1,nan', 'a/1.jpg,0,0,1,1,inf', ',0,0,1,1,1'])
def test_rows_without_name_or_finite_score(read, row):
  with pytest.raises(UserError, match=r'my boxes\.csv:2: expected the name of an image and a finite score'):
    read(f'{HEADER},score\n{row}\n')


def test_file_that_cannot_be_read(tmp_path):
  with pytest.raises(UserError, match=r'nothing\.csv: cannot be read'):
    csv_file.read_boxes(tmp_path / 'nothing.csv', NAMES)
  (tmp_path / 'x.csv').write_bytes(b'image,\xff\xfe')
  with pytest.raises(UserError, match=r'x\.csv: cannot be read as a UTF-8 CSV file'):
    csv_file.read_boxes(tmp_path / 'x.csv', NAMES)


def test_fingerprint_is_that_of_the_contents(tmp_path):
  paths = [tmp_path / name for name in 'abc']
  for path, text in zip(paths, ('x', 'x', 'y'), strict=True):
    path.write_text(text, encoding='utf-8')
  a, b, c = map(files.content_fingerprint, paths)
  assert a == b != c
