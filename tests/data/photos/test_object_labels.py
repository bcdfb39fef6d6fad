"""Which photos show the same object: folders, CSV files, ground truth."""

import json

import numpy as np
import pytest

from delf_d2r.data.photos import object_labels
from delf_d2r.errors import UserError

NAMES = ('a/1.jpg', 'a/2.jpg', 'b/1.jpg', 'b/deep/3.jpg', 'b/deep/4.jpg', 'loose.jpg')


def load(path, names=NAMES):
  return [group.tolist() for group in object_labels.load(path, names)]


def test_folders():
  assert load(None) == [[0, 1], [3, 4]]
  with pytest.raises(UserError, match='the folders of the photos: no two of 2 photos show the same object'):
    load(None, ('x.jpg', 'y.jpg'))


def test_csv(tmp_path):
  path = tmp_path / 'labels.csv'
  path.write_text('label,path\nB,loose.jpg\nA,b/1.jpg\nB,a/2.jpg\nA,elsewhere.jpg\nC,a/1.jpg\n')
  assert load(path) == [[1, 5]]
  path.write_text('name,label\na,b\n')
  with pytest.raises(UserError, match=r'the header lacks path; wanted path,label'):
    load(path)
  path.write_text('path,label\na/1.jpg,\n')
  with pytest.raises(UserError, match=r'labels\.csv:2: path or label is missing'):
    load(path)
  path.write_text('')
  with pytest.raises(UserError, match='the header lacks path, label'):
    load(path)


def test_ground_truth(tmp_path):
  path = tmp_path / 'truth.json'
  queries = [
    {'image': 'queries/q.jpg', 'easy': ['a/1.jpg'], 'hard': ['b/1.jpg'], 'junk': ['a/2.jpg']},
    {'image': 'loose.jpg', 'easy': ['b/deep/3.jpg']},
    {'image': 'queries/r.jpg', 'hard': ['a/1.jpg']},
  ]
  path.write_text(json.dumps({'version': 1, 'queries': queries}))
  assert load(path) == [[3, 5], [0, 2]]
  assert all(group.dtype == np.int64 for group in object_labels.load(path, NAMES))
