"""The CSV file that maps feature files to images."""

import pytest

from delf_d2r.data.legacy import mapping_files
from delf_d2r.data.legacy.mapping_files import MappedImage
from delf_d2r.errors import UserError

TEXT = 'name,index_image_id,box_id\r\na,0,-1\r\nb,1,-1\r\nb_0,1,0\r\nb_1,1,1\r\n'
IMAGES = [MappedImage('a'), MappedImage('b', ('b_0', 'b_1'))]


def test_there_and_back(tmp_path):
  path = tmp_path / 'mapping.csv'
  mapping_files.write(path, IMAGES)
  assert path.read_bytes().decode() == TEXT
  assert mapping_files.read(path) == IMAGES


def test_rows_and_ids_in_any_order(tmp_path):
  path = tmp_path / 'mapping.csv'
  path.write_text('name,index_image_id,box_id\nb_1,7,1\na,3,-1\nb_0,7,0\nb,7,-1\n')
  assert mapping_files.read(path) == IMAGES


@pytest.mark.parametrize(
  ('rows', 'message'),
  [
    ('', r'csv:1: the header lacks name'),
    ('name,box_id\na,1\n', r'csv:1: the header lacks index_image_id'),
    ('name,index_image_id,box_id\na,0,x\n', r'csv:2: index_image_id and box_id must be whole numbers'),
    ('name,index_image_id,box_id\na,0\n', r'csv:2: index_image_id and box_id must be whole numbers'),
    ('name,index_image_id,box_id\n,0,-1\n', r'csv:2: expected the name'),
    ('name,index_image_id,box_id\na,0,-1\nb,0,-1\n', r"csv:3: box -1 of image 0 is 'a' already"),
    ('name,index_image_id,box_id\na,0,-1\na,1,-1\n', r"csv:3: 'a' appears twice"),
    ('name,index_image_id,box_id\na_0,0,0\n', r'image 0 must have the boxes .* found \[0\]'),
    ('name,index_image_id,box_id\na,0,-1\na_1,0,1\n', r'image 0 must have .* found \[-1, 1\]'),
  ],
)
def test_what_is_no_such_file(tmp_path, rows, message):
  (tmp_path / 'm.csv').write_text(rows)
  with pytest.raises(UserError, match=message):
    mapping_files.read(tmp_path / 'm.csv')
